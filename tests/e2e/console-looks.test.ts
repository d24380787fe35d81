/** How the pages look to everybody: to screen readers, in both schemes, on three sizes of screen, with names that mean harm, and with very many of them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, describe, it } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import type { Sandbox } from '../../src/client/client.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { startBrowser, Visitor } from './visitor.ts';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SIZES = [
  { name: 'desktop', width: 1280, height: 800 },
  { name: 'tablet', width: 820, height: 1180 },
  { name: 'phone', width: 390, height: 844 },
];
/** Of the first page, compressed, in bytes. */
const FIRST_LOAD = 300_000;
/** As a page and as metadata would have it to be taken for markup. */
const HOSTILE = `"><img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;

let service: Service;
let browser: Browser;
let box: Sandbox;

before(async () => {
  [service, browser] = await Promise.all([startService(), startBrowser()]);
  box = await service.client.create({
    sandboxId: 'looks',
    recording: 'always',
    recordingSegmentSeconds: 5,
    metadata: { note: HOSTILE, long: 'x'.repeat(500) },
  });
}, LIMIT);

after(async () => {
  await browser?.close();
  await service?.end();
}, LIMIT);

/** The pages, and what tells that each is there. */
function pages(): { name: string; path: string; ready: string }[] {
  return [
    { name: 'list', path: '/console/', ready: '.card-id' },
    { name: 'detail', path: `/console/#/sandboxes/${box.sandboxId}`, ready: '.screen canvas' },
    { name: 'recordings', path: '/console/#/recordings', ready: '.card-id' },
    { name: 'overview', path: '/console/#/overview', ready: '.chart' },
    { name: 'nothing', path: '/console/#/nowhere', ready: '.nothing' },
    { name: 'live', path: `/sandboxes/${box.sandboxId}/live`, ready: '.screen canvas' },
    { name: 'live-unknown', path: '/sandboxes/unknown/live', ready: '.veil h2' },
    { name: 'docs', path: '/docs', ready: '.opblock' },
  ];
}

/** Sentences about what is serious. */
async function axe(page: Page): Promise<string[]> {
  // As a person finds it, with nothing on its way in.
  await page.evaluate(
    'Promise.all(document.getAnimations().map((one) => one.effect?.getTiming().iterations === Infinity || one.finished))',
  );
  await page.evaluate(AXE);
  const rules = { 'scrollable-region-focusable': { enabled: true } };
  const { violations } = (await page.evaluate(`axe.run(document, ${JSON.stringify({ rules })})`)) as {
    violations: { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }[];
  };
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .flatMap(({ id, nodes }) =>
      nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 200)}: ${failureSummary}`),
    );
}

async function overflows(page: Page): Promise<string> {
  return String(
    await page.evaluate(`(() => {
      const { scrollWidth, clientWidth } = document.documentElement;
      if (scrollWidth <= clientWidth) return '';
      const wide = [...document.querySelectorAll('body *')].find((one) => one.getBoundingClientRect().right > clientWidth + 1);
      return scrollWidth + ' > ' + clientWidth + ': ' + (wide?.outerHTML.slice(0, 160) ?? '');
    })()`),
  );
}

describe('Every page', () => {
  for (const scheme of ['light', 'dark'] as const) {
    it(`has no serious fault of accessibility, and fits three sizes of screen (${scheme}).`, LIMIT, async () => {
      const visitor = await Visitor.come(browser, service, { scheme, expected: /404 .*unknown\/live/ });
      for (const { name, path, ready } of pages()) {
        for (const size of SIZES) {
          await visitor.page.setViewportSize(size);
          if (size === SIZES[0]) {
            await visitor.page.goto('about:blank');
            await visitor.page.goto(`${service.url}${path}`);
            await visitor.page.locator(ready).first().waitFor();
          }
          await visitor.picture(`${name}-${size.name}-${scheme}`);
          assert.equal(await overflows(visitor.page), '', `${name} on a ${size.name} is too wide`);
          // Swagger UI's own faults are its own; everything else is ours.
          if (name !== 'docs') assert.deepEqual(await axe(visitor.page), [], `${name} on a ${size.name}`);
        }
      }
      await visitor.leave();
    });
  }

  it('has dialogs without a serious fault, which keep the focus and give it back.', LIMIT, async () => {
    const visitor = await Visitor.come(browser, service);
    await visitor.open();
    // The list is there: what comes while the dialog is open may put another button in this one's place.
    await visitor.page.getByRole('link', { name: new RegExp(box.sandboxId) }).waitFor();
    const opener = visitor.page.getByRole('button', { name: 'New sandbox' });
    await opener.click();
    await visitor.page.getByRole('dialog').waitFor();
    for (const fold of await visitor.page.locator('summary').all()) await fold.click();
    assert.deepEqual(await axe(visitor.page), []);
    for (let i = 0; i < 60; i++) await visitor.page.keyboard.press('Tab');
    assert.ok(
      await visitor.page.evaluate(
        '[document.body, document.documentElement].includes(document.activeElement) || document.activeElement.closest("dialog") !== null',
      ),
    );
    await visitor.page.keyboard.press('Escape');
    await visitor.page.getByRole('dialog').waitFor({ state: 'detached' });
    assert.ok(await opener.evaluate((button) => button === document.activeElement));
    await visitor.open(`#/sandboxes/${box.sandboxId}`);
    for (const name of ['Extend', 'Share', 'Stop']) {
      await visitor.page.getByRole('button', { name, exact: true }).click();
      await visitor.page.getByRole('dialog').waitFor();
      assert.deepEqual(await axe(visitor.page), [], name);
      await visitor.page.keyboard.press('Escape');
    }
    await visitor.leave();
  });
});

describe('The first page', () => {
  it('is small, and fetches noVNC only for a screen.', LIMIT, async () => {
    const visitor = await Visitor.come(browser, service);
    const loaded: { url: string; size: number }[] = [];
    visitor.context.on('requestfinished', async (request) => {
      const { responseBodySize } = await request.sizes();
      loaded.push({ url: request.url(), size: responseBodySize });
    });
    await visitor.open();
    await visitor.page.locator('.card-id').first().waitFor();
    await visitor.page.waitForLoadState('networkidle').catch(() => {}); // the stream of events stays open
    const pages = loaded.filter(({ url }) => url.includes('/console/'));
    const total = pages.reduce((sum, { size }) => sum + size, 0);
    assert.ok(pages.length > 2 && total > 10_000 && total < FIRST_LOAD, `${total} bytes: ${JSON.stringify(pages)}`);
    assert.ok(!pages.some(({ url }) => /rfb|swagger|docs/.test(url)), JSON.stringify(pages));
    await visitor.page.getByRole('link', { name: /looks/ }).click();
    await visitor.sees();
    assert.ok(loaded.some(({ url }) => /rfb-/.test(url)));
    await visitor.leave();
  });

  it('comes with a policy under which nothing foreign runs, and files that browsers keep.', LIMIT, async () => {
    const page = await fetch(`${service.url}/console/`);
    const policy = page.headers.get('content-security-policy') ?? '';
    assert.match(policy, /default-src 'none'; script-src 'self'; style-src 'self';/);
    assert.match(policy, /frame-ancestors 'none'/);
    assert.ok(!/unsafe/.test(policy));
    assert.equal(page.headers.get('cache-control'), 'no-cache');
    const script = /assets\/index-[^"]+\.js/.exec(await page.text())?.[0];
    const file = await fetch(`${service.url}/console/${script}`, { headers: { 'accept-encoding': 'br' } });
    assert.equal(file.headers.get('content-encoding'), 'br');
    assert.match(file.headers.get('cache-control') ?? '', /immutable/);
    const again = await fetch(`${service.url}/console/${script}`, {
      headers: {
        'if-none-match': file.headers.get('etag') as string,
        'cache-control': 'max-age=0',
        'accept-encoding': 'br',
      },
    });
    assert.equal(again.status, 304);
    for (const path of [
      'console/../package.json',
      'console/%2e%2e/%2e%2e/package.json',
      'console/assets/',
      'console/.made-of',
    ]) {
      assert.equal((await fetch(`${service.url}/${path}`)).status, 404, path);
    }
    const live = await fetch(`${service.url}/sandboxes/${box.sandboxId}/live`, { headers: { accept: 'text/html' } });
    assert.match(
      live.headers.get('content-security-policy') ?? '',
      /frame-ancestors 'self' http/,
      'pages of this machine may frame the live view',
    );
  });
});

describe('Names that mean harm', () => {
  it('are shown as they are, and do nothing.', LIMIT, async () => {
    const visitor = await Visitor.come(browser, service);
    const page = `<title>${HOSTILE.replaceAll('<', '&lt;')}</title>`;
    await fetch(`${service.url}/sandboxes/${box.sandboxId}/json/new?${encodeURIComponent(`data:text/html,${page}`)}`, {
      method: 'PUT',
    });
    await visitor.open(`#/sandboxes/${box.sandboxId}`);
    await visitor.page.getByRole('tab', { name: 'Details' }).click();
    await visitor.page.getByText(HOSTILE).first().waitFor();
    await visitor.page.getByRole('tab', { name: 'Pages' }).click();
    await visitor.page.locator('.page-list li').nth(1).waitFor();
    await visitor.open();
    await visitor.page.getByText(`note: ${HOSTILE}`).waitFor();
    await visitor.open(`#/sandboxes/${encodeURIComponent(HOSTILE)}`);
    await visitor.page.getByText('There is no such sandbox').waitFor();
    assert.ok(!(await visitor.page.title()).startsWith('owned'));
    assert.equal(await visitor.page.locator('img[src=x]').count(), 0);
    visitor.wrong.splice(0, visitor.wrong.length, ...visitor.wrong.filter((text) => !text.includes('404')));
    await visitor.leave();
  });
});

describe('Five hundred sandboxes', () => {
  it('scroll as fluently as ten: only those that can be seen are drawn whole.', LIMIT, async () => {
    const visitor = await Visitor.come(browser, service, { expected: /404/ });
    const many = Array.from({ length: 500 }, (_, i) => ({
      ...box,
      sandboxId: `many-${i}`,
      createdAt: new Date(Date.now() - i * 1000).toISOString(),
    }));
    await visitor.context.route(/\/sandboxes\?/, (route) => {
      const query = new URL(route.request().url()).searchParams;
      const [page, size] = [Number(query.get('page') ?? 1), Number(query.get('page_size') ?? 20)];
      const sandboxes = many.slice((page - 1) * size, page * size);
      return route.fulfill({
        json: { code: 'SUCCESS', requestId: 'x', data: { sandboxes, total: many.length, page, pageSize: size } },
      });
    });
    await visitor.context.route(/\/screenshot/, (route) => route.fulfill({ status: 204 }));
    await visitor.open();
    await waitFor(async () => (await visitor.page.locator('.card').count()) === 500, 'all of them to be listed');
    await visitor.page.locator('.facts').first().waitFor();
    const facts = await visitor.page.locator('.facts').count();
    assert.ok(facts < 150, `${facts} lines of facts are drawn`);
    await visitor.page.getByLabel('Search by id').fill('many-499');
    await waitFor(async () => (await visitor.page.locator('.card').count()) === 1, 'the search to find one');
    await visitor.page.getByLabel('Search by id').fill('');
    await waitFor(async () => (await visitor.page.locator('.card').count()) === 500, 'all to be listed again');
    await visitor.page.evaluate('scrollTo(0, document.documentElement.scrollHeight)');
    await visitor.page.getByText('many-499').waitFor();
    await waitFor(
      async () => /old/.test(await visitor.page.locator('.card').last().innerText()),
      'the last one to be drawn',
    );
    await visitor.leave();
  });
});
