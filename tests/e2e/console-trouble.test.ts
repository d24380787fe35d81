/** What people see of the console when something goes wrong: every time what happened, and what to do about it. */
import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import type { Browser } from 'playwright-core';
import { BerthClient } from '../../src/client/client.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { startBrowser, Visitor } from './visitor.ts';

const KEY = 'trouble-key-0123456789';
const LOOKER = 'looker-key-0123456789';
const KEYS = `acme:${KEY}:admin,acme:${LOOKER}:viewer`;

let service: Service;
let browser: Browser;
let client: BerthClient;

before(async () => {
  const env = { BERTH_API_KEYS: KEYS };
  // Not one of those that the kernel hands out: it is started again at the same, which another program's connection may have by then.
  const port = String(20_000 + (process.pid % 10_000));
  [service, browser] = await Promise.all([startService({ env: { ...env, BERTH_PORT: port } }), startBrowser()]);
  client = new BerthClient(service.url, KEY);
}, LIMIT);

after(async () => {
  await browser?.close();
  await service?.end();
}, LIMIT);

describe('A wrong key', () => {
  it(
    'is refused in words, thrice, and the right one lets in after that or after the wait that is told.',
    LIMIT,
    async () => {
      const visitor = await Visitor.come(browser, service, { expected: /40[13]|429/ });
      await visitor.open();
      for (const key of ['wrong', 'still-wrong', 'wrong with a space']) {
        await visitor.signIn(key);
        await visitor.page.getByRole('alert').waitFor();
        assert.match((await visitor.page.getByRole('alert').textContent()) ?? '', /key|Try again/);
      }
      await visitor.picture('wrong-key');
      await visitor.signIn(KEY);
      await waitFor(async () => {
        if ((await visitor.page.getByRole('heading', { name: 'Sandboxes' }).count()) > 0) return true;
        const [alert = ''] = await visitor.page.getByRole('alert').allTextContents();
        return /Try again in/.test(alert);
      }, 'the way in, or how long to wait');
      await visitor.leave();
    },
  );
});

describe('Who may only look', () => {
  it('is offered nothing else.', LIMIT, async () => {
    const { sandboxId } = await client.create();
    const visitor = await Visitor.come(browser, service);
    await visitor.open();
    await visitor.signIn(LOOKER);
    await visitor.page.getByRole('link', { name: new RegExp(sandboxId) }).click();
    await visitor.sees();
    await visitor.page.getByText('View only').waitFor();
    for (const name of ['New sandbox', 'Stop', 'Share', 'Extend']) {
      assert.equal(await visitor.page.getByRole('button', { name, exact: true }).count(), 0, name);
    }
    assert.equal(await visitor.page.getByRole('link', { name: 'Overview' }).count(), 0);
    await visitor.leave();
    await client.delete(sandboxId);
  });
});

describe('A live view', () => {
  it('whose ticket has expired or is not one says so and offers the sign-in.', LIMIT, async () => {
    const { sandboxId } = await client.create();
    const made = await client.http.POST('/sandboxes/{id}/tickets', {
      params: { path: { id: sandboxId } },
      body: { role: 'control', ttlSeconds: 1 },
    });
    const link = made.data?.data.liveViewUrl ?? assert.fail('there is a link');
    await waitFor(async () => (await fetch(link, { headers: { accept: 'text/html' } })).status === 401, 'it to expire');
    const visitor = await Visitor.come(browser, service, { expected: /401/ });
    await visitor.page.goto(link);
    await visitor.page.getByText('The ticket has expired.').waitFor();
    await visitor.picture('live-expired');
    await visitor.page.goto(`${service.url}/sandboxes/${sandboxId}/live?ticket=no.ticket`);
    await visitor.page.getByText('The ticket is not valid.').waitFor();
    await visitor.page.getByRole('link', { name: 'Sign in' }).click();
    await visitor.signIn(KEY);
    await visitor.page.getByRole('heading', { name: sandboxId }).waitFor();
    await visitor.leave();
    await client.delete(sandboxId);
  });

  it('works in a frame of another site, says why it ends, and links what was recorded.', LIMIT, async () => {
    const { sandboxId, liveViewUrl = '' } = await client.create({ recording: 'always' });
    const site = await siteOf(
      `<!doctype html><title>Theirs</title><iframe src="${liveViewUrl}" width="900" height="600"></iframe>`,
    );
    const visitor = await Visitor.come(browser, service);
    await visitor.page.goto(site.url);
    const frame = visitor.page.frameLocator('iframe');
    await waitFor(async () => (await frame.locator('.screen-state').textContent()) === 'Live', 'the screen to be live');
    await visitor.picture('framed');
    await client.delete(sandboxId);
    await frame.getByRole('heading', { name: 'This sandbox has ended' }).waitFor();
    await frame.getByText('Somebody stopped it.').waitFor();
    assert.match(
      (await frame.getByRole('link', { name: 'Its recordings' }).getAttribute('href')) ?? '',
      /console\/#\/recordings\?sandbox=/,
    );
    await visitor.picture('live-ended');
    visitor.wrong.splice(0, visitor.wrong.length, ...visitor.wrong.filter((text) => !text.includes(site.url)));
    await visitor.leave();
    site.server.close();
  });

  it('does what the parameters of noVNC say.', LIMIT, async () => {
    const { sandboxId, liveViewUrl = '' } = await client.create();
    const visitor = await Visitor.come(browser, service, { width: 900, height: 700 });
    await visitor.page.goto(`${liveViewUrl}&autoconnect=0&view_only=1&resize=off`);
    await visitor.page.getByRole('button', { name: 'Connect' }).click();
    await visitor.sees();
    assert.equal((await visitor.page.locator('.screen canvas').boundingBox())?.width, 1280, 'every pixel is shown');
    await visitor.page.getByRole('button', { name: 'Fit to the window' }).click();
    await waitFor(
      async () => (await visitor.page.locator('.screen canvas').boundingBox())?.width !== 1280,
      'it to fit',
    );
    await visitor.leave();
    await client.delete(sandboxId);
  });
});

describe('A recording', () => {
  it('that is deleted while it is played says so.', LIMIT, async () => {
    const { sandboxId } = await client.create({ recording: 'always', recordingSegmentSeconds: 5 });
    await waitFor(async () => ((await client.timeline(sandboxId))[0]?.segments.length ?? 0) > 1, 'two files');
    const sessionId = (await client.timeline(sandboxId))[0]?.sessionId ?? '';
    const visitor = await Visitor.come(browser, service, { expected: /404/ });
    await visitor.open(`#/recordings/${sessionId}`);
    await visitor.signIn(KEY);
    await visitor.page.getByRole('button', { name: 'Play' }).click();
    await visitor.page.getByRole('button', { name: /Go live|Live/ }).click();
    await waitFor(
      async () => Number(await visitor.page.evaluate('document.querySelector("video").currentTime')) > 4,
      'it to play the live edge',
    );
    await visitor.picture('player-live-edge');
    await client.http.DELETE('/sandboxes/{id}', { params: { path: { id: sandboxId }, query: { recordings: true } } });
    await visitor.page.getByRole('heading', { name: 'This recording has been deleted' }).waitFor();
    await visitor.picture('player-deleted');
    await visitor.leave();
  });
});

describe('DevTools of a page', () => {
  it('open through the gateway, show its elements, and are strangers to the console.', LIMIT, async () => {
    const { sandboxId } = await client.create();
    const list = await client.http.GET('/sandboxes/{id}/json/list', { params: { path: { id: sandboxId } } });
    const visitor = await Visitor.come(browser, service);
    await visitor.open(`#/sandboxes/${sandboxId}`);
    await visitor.signIn(KEY);
    await visitor.page.getByRole('tab', { name: 'Pages' }).click();
    const opened = visitor.context.waitForEvent('page');
    await visitor.page.getByRole('button', { name: /^Open DevTools/ }).click();
    const inspector = await opened;
    // It may be on its way still.
    await waitFor(async () => /<body/.test(await elementsOf(inspector).catch(() => '')), 'the elements to be shown');
    assert.equal(await inspector.evaluate('self.origin'), 'null', 'its origin is none');
    assert.ok(!JSON.stringify(list.data).includes(KEY));
    await visitor.picture('devtools', inspector);
    await inspector.close();
    assert.ok(!service.log().includes('inspector/Wy'), 'the log has no ticket');
    await visitor.leave();
    await client.delete(sandboxId);
  });
});

describe('A service that is restarted', () => {
  it('is waited for, and the open console goes on by itself.', LIMIT, async () => {
    const visitor = await Visitor.come(browser, service, {
      expected: /410 |ERR_CONNECTION_RE|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE|50\d|WebSocket/,
    });
    await visitor.open();
    await visitor.signIn(KEY);
    await visitor.page.getByRole('heading', { name: 'Sandboxes' }).waitFor();
    const env = { BERTH_API_KEYS: KEYS, BERTH_PORT: new URL(service.url).port };
    await service.kill();
    await visitor.page.getByText('The connection to the service is lost.').waitFor();
    await visitor.picture('service-away');
    service = await startService({ env, on: service });
    await visitor.page.getByText('The connection to the service is lost.').waitFor({ state: 'detached' });
    const { sandboxId } = await client.create();
    await visitor.page.getByRole('link', { name: new RegExp(sandboxId) }).waitFor();
    await client.delete(sandboxId);
    await visitor.page.getByRole('link', { name: new RegExp(sandboxId) }).waitFor({ state: 'detached' });
    await visitor.leave();
  });
});

async function siteOf(html: string): Promise<{ url: string; server: Server }> {
  const server = createServer((_req, res) => res.setHeader('content-type', 'text/html').end(html));
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

/** What the inspector's tree of elements says; it lies behind shadow roots. */
function elementsOf(page: import('playwright-core').Page): Promise<string> {
  return page.evaluate(`(() => {
    const texts = [];
    const walk = (node) => {
      for (const child of node.querySelectorAll('*')) if (child.shadowRoot) walk(child.shadowRoot);
      texts.push(...[...node.querySelectorAll('li[role=treeitem]')].map((item) => item.textContent));
    };
    walk(document);
    return texts.join(' ');
  })()`) as Promise<string>;
}
