/** The whole tour of somebody who never read the docs, in a real browser: the console from the sign-in to the deletion. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Browser } from 'playwright-core';
import { connect, type Browser as Puppeteer, type Page as SandboxPage } from 'puppeteer-core';
import { BerthClient } from '../../src/client/client.ts';
import { DRIVER, type Site, serveSite } from './drivers.ts';
import { hasClipboard } from './rfb.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { probe } from './video.ts';
import { startBrowser, Visitor } from './visitor.ts';

const KEY = 'console-key-0123456789';
const ID = 'tour';
/** Of three alphabets, one beyond 16 bits. */
const TEXT = 'Grüße 你好 😀';

/** A field over the whole page: whoever clicks anywhere types into it. */
const PAGE = `<!doctype html><meta charset="utf-8"><title>Tour</title><style>textarea{position:fixed;inset:0;width:100%;height:100%;font-size:40px}</style><textarea onclick="window.clicked=true"></textarea>`;

let service: Service;
let browser: Browser;
let site: Site;
let guide: Visitor;
let client: BerthClient;
let driven: Puppeteer | undefined;
let page: SandboxPage;

before(async () => {
  const env = { BERTH_API_KEYS: `acme:${KEY}:admin` };
  [service, browser] = await Promise.all([startService({ env }), startBrowser()]);
  site = await serveSite((_req, res) => res.setHeader('content-type', 'text/html').end(PAGE));
  client = new BerthClient(service.url, KEY);
  // A look at what has just been stopped may still be on its way.
  guide = await Visitor.come(browser, service, { expected: /410 / });
}, LIMIT);

after(async () => {
  await driven?.disconnect();
  await browser?.close();
  site?.close();
  await service?.end();
}, LIMIT);

/** What stands in the page's field. */
const typed = async (): Promise<string> => String(await page.evaluate('document.querySelector("textarea").value'));

describe('The tour', () => {
  it('signs in with a key that is kept where no script can read it.', LIMIT, async () => {
    await guide.page.goto(service.url);
    assert.match(guide.page.url(), /\/console\/$/, 'the bare address leads to the console');
    await guide.page.getByRole('heading', { name: 'Sign in to Berth' }).waitFor();
    await guide.picture('sign-in');
    await guide.signIn(KEY);
    await guide.page.getByRole('heading', { name: 'Sandboxes' }).waitFor();
    const kept = await guide.page.evaluate(
      'JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])',
    );
    assert.equal(kept, '[{},{},""]');
    await guide.page.reload();
    await guide.page.getByRole('heading', { name: 'Sandboxes' }).waitFor();
  });

  it('creates a sandbox from the dialog, in which every option is explained.', LIMIT, async () => {
    await guide.page.getByRole('button', { name: 'New sandbox' }).first().click();
    const dialog = guide.page.getByRole('dialog', { name: 'New sandbox' });
    await dialog.getByLabel('Id', { exact: true }).fill(ID);
    await dialog.getByRole('button', { name: 'Add' }).click();
    await dialog.getByLabel('Key 1').fill('job');
    await dialog.getByLabel('Value 1').fill('tour');
    await dialog.locator('summary', { hasText: 'Recording' }).click();
    await dialog.getByLabel('Recording', { exact: true }).selectOption('always');
    await dialog.getByLabel('Segment (seconds)').fill('5');
    for (const field of await dialog.locator('input:not([type=radio]), select, textarea').all()) {
      const about = await field.getAttribute('aria-describedby');
      if (about) assert.notEqual(await guide.page.locator(`[id="${about}"]`).textContent(), '');
    }
    await guide.picture('create');
    await dialog.getByRole('button', { name: 'Start sandbox' }).click();
    await guide.page.getByRole('heading', { name: ID }).waitFor();
  });

  it('watches it from its first moment.', LIMIT, async () => {
    await guide.sees();
    await guide.page.getByText('Running', { exact: true }).waitFor();
    const box = await client.get(ID);
    assert.deepEqual([box.recording.mode, box.metadata.job], ['always', 'tour']);
    driven = await connect({ browserWSEndpoint: box.cdpUrl as string, defaultViewport: null });
    page = (await driven.pages())[0] as SandboxPage;
    await page.goto(site.url);
    await guide.picture('detail');
  });

  it('types into the live view, and the page has it.', LIMIT, async () => {
    // One that comes before the page is painted goes to the empty one before it.
    await waitFor(async () => {
      await guide.clickOnScreen(600, 400);
      return (await page.evaluate('window.clicked')) === true;
    }, 'the click to reach the page');
    await guide.page.keyboard.type('hello berth', { delay: 40 });
    let text = '';
    await waitFor(
      async () => {
        text = await typed();
        return text === 'hello berth';
      },
      () => `the text to reach the page, which has "${text}"`,
    );
    await guide.page.keyboard.press('Shift+Escape');
    assert.notEqual(
      await guide.page.evaluate('document.activeElement.tagName'),
      'CANVAS',
      'the keyboard is free again',
    );
  });

  it(
    'puts text of any script on the clipboard of the sandbox, and gets back what is copied there.',
    LIMIT,
    async () => {
      const bar = guide.page.locator('.screen-bar');
      const panel = guide.page.getByLabel('Clipboard of the sandbox');
      // Before 1.15 TigerVNC's server of a screen that is there already knew of no clipboard, and of no keys but the keyboard's.
      const wanted = hasClipboard(DRIVER) ? TEXT : 'Hello, World!';
      await page.evaluate('document.querySelector("textarea").value = ""');
      await bar.getByRole('button', { name: 'Clipboard' }).click();
      await panel.fill(wanted);
      if (!hasClipboard(DRIVER)) {
        await bar.getByRole('button', { name: 'Type it' }).click();
      } else {
        await bar.getByRole('button', { name: 'Send' }).click();
        await waitFor(async () => {
          await page.evaluate('document.querySelector("textarea").value = ""');
          await guide.page.keyboard.press('Control+v');
          await new Promise((later) => setTimeout(later, 300));
          return (await typed()) !== '';
        }, 'the text to be pasted');
      }
      let text = '';
      await waitFor(
        async () => {
          text = await typed();
          return text === wanted;
        },
        () => `the text to reach the page, which has "${text}"`,
      );
      if (hasClipboard(DRIVER)) {
        await page.evaluate('document.querySelector("textarea").value = "zurück: 再见 🚢"');
        await guide.page.keyboard.press('Control+a');
        await guide.page.keyboard.press('Control+c');
        await waitFor(async () => (await panel.inputValue()) === 'zurück: 再见 🚢', 'what was copied to come back');
      }
      await guide.picture('clipboard');
      await page.evaluate('document.querySelector("textarea").value = "hello berth"');
      await guide.page.keyboard.press('Shift+Escape');
      await bar.getByRole('button', { name: 'Clipboard' }).click();
    },
  );

  it('copies a snippet with the address of this sandbox in it.', LIMIT, async () => {
    const text = await guide.page.getByRole('tabpanel').locator('pre').textContent();
    assert.match(text ?? '', new RegExp(`puppeteer\\.connect[^]*/sandboxes/${ID}/ws/automation\\?ticket=`));
    assert.ok(!text?.includes(KEY));
  });

  it('shares a link to watch, whose holder sees and cannot type.', LIMIT, async () => {
    await guide.page.getByRole('button', { name: 'Share' }).click();
    const dialog = guide.page.getByRole('dialog', { name: 'Share' });
    await dialog.getByRole('button', { name: 'Make a link' }).click();
    const link = (await dialog.getByTestId('link').textContent()) ?? '';
    assert.match(link, new RegExp(`^${service.url}/sandboxes/${ID}/live\\?ticket=`));
    await guide.picture('share');
    const guest = await Visitor.come(browser, service, { width: 1000, height: 640 });
    await guest.page.goto(link);
    await guest.sees();
    await guest.page.getByText('View only').waitFor();
    await guest.clickOnScreen(600, 400);
    await guest.page.keyboard.type('not me');
    await guest.picture('live-view-only');
    // What the guide types afterwards is there; had the guest's keys come through, they would stand before it.
    await guide.page.keyboard.press('Escape');
    await guide.clickOnScreen(600, 400);
    await guide.page.keyboard.type('x');
    await waitFor(async () => (await typed()).includes('x'), 'the text of who may to reach the page');
    assert.match(await typed(), /^(?=.*x)[helo brtx]{12}$/);
    await guest.leave();
    await guide.page.keyboard.press('Shift+Escape');
  });

  it('takes the link back, and who watched by it sees why it ends.', LIMIT, async () => {
    await guide.page.getByRole('button', { name: 'Share' }).click();
    const dialog = guide.page.getByRole('dialog', { name: 'Share' });
    await dialog.getByRole('button', { name: 'Make a link' }).click();
    const link = (await dialog.getByTestId('link').textContent()) ?? '';
    const guest = await Visitor.come(browser, service, { expected: /401/ });
    await guest.page.goto(link);
    await guest.sees();
    await dialog
      .getByRole('button', { name: /^End the link/ })
      .last()
      .click();
    await guest.page.getByRole('heading', { name: 'You may not look at this' }).waitFor();
    await guest.page.getByText('The ticket has been revoked.').waitFor();
    await guest.picture('live-revoked');
    await guest.leave();
    await guide.page.keyboard.press('Escape');
  });

  it('sees the pages of the browser, and closes one.', LIMIT, async () => {
    await driven?.newPage();
    await guide.page.getByRole('tab', { name: 'Pages' }).click();
    await guide.page.getByText('about:blank').first().waitFor();
    await guide.page.getByRole('button', { name: 'Close about:blank' }).first().click();
    await waitFor(async () => (await driven?.pages())?.length === 1, 'the tab to be closed');
  });

  it('gives it more time, then stops it once it has said yes.', LIMIT, async () => {
    const before = await client.get(ID);
    await guide.page.getByRole('button', { name: 'Extend' }).click();
    await guide.page.getByRole('dialog').getByRole('button', { name: 'Extend' }).click();
    await guide.page.getByRole('dialog').waitFor({ state: 'detached' });
    assert.equal((await client.get(ID)).maxLifetimeSeconds, before.maxLifetimeSeconds + 3600);
    await driven?.disconnect();
    await guide.page.getByRole('button', { name: 'Stop', exact: true }).click();
    await guide.page
      .getByRole('dialog', { name: 'Stop this sandbox?' })
      .getByRole('button', { name: 'Cancel' })
      .click();
    assert.equal((await client.get(ID)).status, 'READY');
    await guide.page.getByRole('button', { name: 'Stop', exact: true }).click();
    await guide.page.getByRole('dialog').getByRole('button', { name: 'Stop sandbox' }).click();
    await guide.page.getByRole('heading', { name: 'This sandbox has ended' }).waitFor();
    await guide.picture('ended');
  });

  it('replays what happened, across its files.', LIMIT, async () => {
    await guide.page.getByRole('link', { name: 'Recordings' }).last().click();
    await guide.page.getByRole('link', { name: new RegExp(`^.*${ID}`) }).click();
    await guide.page.getByRole('button', { name: 'Play' }).click();
    const [session] = await client.timeline(ID);
    assert.ok(session && session.segments.length > 1, 'it has several files');
    // Near the end of the second file, so that playing on leads over to the next, or to the end.
    const inSecond = (session.segments[0]?.durationSeconds ?? 0) + (session.segments[1]?.durationSeconds ?? 0) - 1;
    await guide.page.getByLabel('Position').fill(inSecond.toFixed(1));
    await waitFor(
      async () => Number(await guide.page.evaluate('document.querySelector("video").currentTime')) > inSecond + 0.5,
      'it to play on',
    );
    const shown = await guide.page.evaluate(
      '(({ videoWidth, videoHeight, error }) => [videoWidth, videoHeight, error])(document.querySelector("video"))',
    );
    assert.deepEqual(shown, [1280, 720, null]);
    await guide.page.getByLabel('Speed').selectOption('4');
    // At that speed it would be past everything again before a busy machine has looked.
    await guide.page.evaluate('document.querySelector("video").pause()');
    await guide.page
      .getByRole('button', { name: /A client connected/ })
      .first()
      .click();
    await guide.page
      .getByRole('button', { name: `A tab went to ${site.url}/` })
      .first()
      .click();
    assert.ok(Number(await guide.page.getByLabel('Position').inputValue()) < inSecond, 'it has jumped back');
    await guide.picture('player');
  });

  it('exports it as one MP4 that plays, and takes a file along.', LIMIT, async () => {
    const exported = guide.page.waitForEvent('download');
    await guide.page.getByRole('button', { name: 'MP4' }).click();
    const file = await (await exported).path();
    const [session] = await client.timeline(ID);
    const { duration, width } = await probe(file);
    assert.equal(width, 1280);
    assert.ok(Math.abs(duration - (session?.durationSeconds ?? 0)) < 1, `it lasts ${duration} s`);
    const segment = guide.page.waitForEvent('download');
    await guide.page.getByRole('link', { name: 'Download segment 1', exact: true }).click();
    assert.match((await segment).suggestedFilename(), /_seg000\.mkv$/);
  });

  it('deletes it, once it has said yes.', LIMIT, async () => {
    await guide.page.getByRole('button', { name: 'Delete' }).click();
    await guide.page.getByRole('dialog').getByRole('button', { name: 'Delete recording' }).click();
    await guide.page.getByRole('heading', { name: 'No recording yet' }).waitFor();
    assert.deepEqual(await client.recordings(ID), []);
  });

  it('looks at the overview and signs out.', LIMIT, async () => {
    await guide.page.getByRole('link', { name: 'Overview' }).click();
    await guide.page.getByText('Creates a minute').waitFor();
    await guide.picture('overview');
    await guide.page.getByRole('button', { name: 'Sign out' }).click();
    await guide.page.getByRole('heading', { name: 'Sign in to Berth' }).waitFor();
    await guide.page.reload();
    await guide.page.getByRole('heading', { name: 'Sign in to Berth' }).waitFor();
  });

  it('has seen nothing wrong, and nothing has left the origin.', LIMIT, async () => {
    await guide.leave();
  });
});
