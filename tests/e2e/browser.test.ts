import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import type { Sandbox } from '../../src/client/client.ts';
import { processesOf, type Site, serveSite, signalPart } from './drivers.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { openSocket, Raw } from './sockets.ts';

const LOOP = '<script>onmessage = () => { for (;;); }</script>';

let service: Service;
let site: Site;
/** Forms that were sent. */
let posts = 0;

before(async () => {
  site = await serveSite((req, res) => {
    if (req.method === 'POST') posts += 1;
    res.setHeader('content-type', 'text/html');
    res.end(`<!doctype html><title>${req.method} ${req.url}</title>${LOOP}`);
  });
  service = await startService();
}, LIMIT);

after(async () => {
  site?.close();
  await service.end();
}, LIMIT);

function connect(sandbox: Sandbox): Promise<Browser> {
  return puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl ?? '', defaultViewport: null });
}

/** A sandbox of its own for one case. */
async function withSandbox(
  input: Parameters<Service['client']['create']>[0],
  use: (sandbox: Sandbox, browser: Browser) => Promise<void>,
): Promise<void> {
  const sandbox = await service.client.create(input);
  const browser = await connect(sandbox);
  try {
    await use(sandbox, browser);
  } finally {
    await browser.disconnect();
    await service.client.delete(sandbox.sandboxId);
  }
}

async function pagesOf({ sandboxId }: Sandbox) {
  const { data } = await service.client.http.GET('/sandboxes/{id}/pages', { params: { path: { id: sandboxId } } });
  return data?.data.pages ?? assert.fail('no list of pages');
}

async function closePage({ sandboxId }: Sandbox, page: string): Promise<number> {
  const params = { path: { id: sandboxId, page } };
  return (await service.client.http.DELETE('/sandboxes/{id}/pages/{page}', { params })).response.status;
}

/** Has the page's renderer die as if the kernel had killed it. */
async function crash(page: Page): Promise<void> {
  const session = await page.createCDPSession();
  session.send('Page.crash').catch(() => {}); // it cannot be answered
}

/** The words with which a call failed. */
function failure(call: Promise<unknown>): Promise<string> {
  return call.then(
    () => assert.fail('the call was answered'),
    (err: Error) => err.message,
  );
}

describe('the first tab', () => {
  it('has all the room that later ones have: no bar that warns of flags lies over it', LIMIT, async () => {
    await withSandbox({}, async (_sandbox, browser) => {
      const [first] = await browser.pages();
      const later = await browser.newPage();
      const height = (page: Page | undefined): Promise<unknown> | undefined => page?.evaluate('innerHeight');
      assert.ok(Number(await height(later)) > 500);
      assert.equal(await height(first), await height(later));
    });
  });
});

describe('a tab that crashes', () => {
  it('ends the calls that are under way with the reason, and works again', LIMIT, async () => {
    await withSandbox({}, async (sandbox, browser) => {
      const page = await browser.newPage();
      await page.goto(`${site.url}/crashes`);
      const pending = failure(page.evaluate(() => new Promise(() => {})));
      await crash(page);
      assert.match(await pending, /Target crashed/);
      // A call may still meet the navigation that brings the page back.
      await waitFor(async () => (await page.title().catch(() => '')) === 'GET /crashes', 'the page to be back');
      await waitFor(async () => (await pagesOf(sandbox)).every(({ health }) => health === 'ok'), 'the tab to be well');
    });
  });

  it('is emptied the second time, and a form is never sent again', LIMIT, async () => {
    await withSandbox({}, async (sandbox, browser) => {
      const page = await browser.newPage();
      await page.goto(`${site.url}/form`);
      await Promise.all([
        page.waitForNavigation(),
        page.evaluate(() => {
          const form = document.createElement('form');
          form.method = 'post';
          document.body.append(form);
          form.submit();
        }),
      ]);
      assert.equal(await page.title(), 'POST /form');
      const before = posts;
      for (const expected of [`${site.url}/form`, 'about:blank']) {
        const pending = failure(page.evaluate(() => new Promise(() => {})));
        await crash(page);
        await pending;
        await waitFor(async () => page.url() === expected, `the tab to show ${expected}`);
        await waitFor(async () => (await pagesOf(sandbox)).every(({ health }) => health === 'ok'), 'it to be well');
      }
      assert.equal(posts, before);
    });
  });
});

describe('a page in an endless loop', () => {
  it('is told from the others, and can be closed', LIMIT, async () => {
    await withSandbox({}, async (sandbox, browser) => {
      const [well, wedged] = [await browser.newPage(), await browser.newPage()];
      await well.goto(`${site.url}/well`);
      await wedged.goto(`${site.url}/wedged`);
      await wedged.evaluate(() => postMessage('go'));
      // In one list: on a busy machine any page may now and then take more than its second.
      await waitFor(async () => {
        const health = Object.fromEntries((await pagesOf(sandbox)).map((page) => [page.url, page.health]));
        return health[`${site.url}/wedged`] === 'unresponsive' && health[`${site.url}/well`] === 'ok';
      }, 'the loop to begin, and to be told from the page that is well');
      const { id } = (await pagesOf(sandbox)).find((page) => page.url.endsWith('/wedged')) ?? assert.fail();
      assert.equal(await closePage(sandbox, id), 204);
      assert.ok(!(await pagesOf(sandbox)).some((page) => page.id === id));
      assert.equal(await closePage(sandbox, id), 404);
      assert.equal(await well.title(), 'GET /well');
    });
  });

  it('does not keep a new client from connecting', LIMIT, async () => {
    await withSandbox({}, async (sandbox, browser) => {
      const wedged = await browser.newPage();
      await wedged.goto(`${site.url}/wedged`);
      await wedged.evaluate(() => postMessage('go'));
      const wedges = async () => (await pagesOf(sandbox)).some(({ health }) => health === 'unresponsive');
      await waitFor(wedges, 'the loop to begin');
      const playwright = await chromium.connectOverCDP(sandbox.cdpUrl ?? '', LIMIT);
      const urls = playwright.contexts().flatMap((context) => context.pages().map((page) => page.url()));
      assert.ok(urls.includes(`${site.url}/wedged`), String(urls));
      await playwright.close();
      assert.equal(await wedged.title(), 'GET /wedged', 'the page is there, its script is not');
    });
  });
});

describe('a browser that hangs', () => {
  it('is ended after its ten seconds, its clients hear of it, and a fresh one takes its place', LIMIT, async () => {
    const sandbox = await service.client.create();
    const raw = await Raw.open(sandbox.cdpUrl ?? '');
    const since = performance.now();
    await signalPart(service, sandbox.sandboxId, 'chromium', 'SIGSTOP');
    const { code, reason } = await raw.closed;
    assert.equal(code, 1011);
    assert.match(reason, /the browser did not answer for 10 s/);
    assert.ok(performance.now() - since > 8000, 'not before');
    const browser = await connect(sandbox);
    assert.match(await browser.version(), /^Chrome\//);
    await browser.disconnect();
    assert.equal((await service.client.get(sandbox.sandboxId)).browserRestarts, 1);
    await service.client.delete(sandbox.sandboxId);
  });
});

describe("a client's Browser.close", () => {
  it('restart: gives the next client a fresh browser, again and again, however quickly it comes', LIMIT, async () => {
    const sandbox = await service.client.create();
    for (let i = 0; i < 6; i++) {
      const browser = await connect(sandbox);
      const page = (await browser.pages())[0] ?? assert.fail('a fresh browser has a tab');
      assert.equal(page.url(), 'about:blank');
      await page.goto(`${site.url}/${i}`);
      await browser.close();
    }
    const { status, browserRestarts } = await service.client.get(sandbox.sandboxId);
    assert.equal(status, 'READY');
    assert.ok(browserRestarts >= 5, `${browserRestarts} restarts`);
    await service.client.delete(sandbox.sandboxId);
  });

  it('terminate: ends the sandbox, its recording whole', LIMIT, async () => {
    const sandbox = await service.client.create({ onBrowserClose: 'terminate', recording: 'always' });
    const other = await Raw.open(sandbox.cdpUrl ?? '');
    const browser = await connect(sandbox);
    await browser.close();
    assert.deepEqual(await other.closed, { code: 1001, reason: 'sandbox ended: browser_closed' });
    await waitFor(async () => (await service.client.get(sandbox.sandboxId)).endedAt !== undefined, 'it to end');
    const { status, endedReason } = await service.client.get(sandbox.sandboxId);
    assert.deepEqual([status, endedReason], ['TERMINATED', 'browser_closed']);
    const recordings = await service.client.recordings(sandbox.sandboxId);
    assert.deepEqual(
      recordings.map((recording) => recording.status),
      ['completed'],
    );
  });

  it('keep: lets that client go and nothing else', LIMIT, async () => {
    const sandbox = await service.client.create({ onBrowserClose: 'keep' });
    const other = await Raw.open(sandbox.cdpUrl ?? '');
    const first = await connect(sandbox);
    await (await first.newPage()).goto(`${site.url}/stays`);
    await first.close();
    const raw = await Raw.open(sandbox.cdpUrl ?? '');
    assert.deepEqual(await raw.send('Browser.close'), {});
    assert.deepEqual(await raw.closed, {
      code: 1000,
      reason: 'Browser.close: this sandbox keeps its browser (onBrowserClose)',
    });
    assert.ok((await other.pageUrls()).includes(`${site.url}/stays`));
    assert.equal((await service.client.get(sandbox.sandboxId)).browserRestarts, 0);
    other.socket.terminate();
    await service.client.delete(sandbox.sandboxId);
  });
});

describe('what a client leaves', () => {
  it('is no tab that waits for a debugger which is gone', LIMIT, async () => {
    await withSandbox({}, async (sandbox, browser) => {
      const opener = await browser.newPage();
      await opener.goto(`${site.url}/opener`);
      const leaving = await Raw.open(sandbox.cdpUrl ?? '');
      await leaving.send('Target.setAutoAttach', { autoAttach: true, waitForDebuggerOnStart: true, flatten: true });
      const waits = new Promise<void>((resolve) => {
        leaving.socket.on('message', (data) => {
          const { method, params } = JSON.parse(String(data));
          const { type, openerId } = params?.targetInfo ?? {};
          if (method === 'Target.attachedToTarget' && params.waitingForDebugger && type === 'page' && openerId)
            resolve();
        });
      });
      await opener.evaluate((url) => void open(url), `${site.url}/opened`);
      await waits;
      leaving.socket.terminate();
      await waitFor(
        async () => (await pagesOf(sandbox)).some(({ title, health }) => title === 'GET /opened' && health === 'ok'),
        'the new tab to go on',
      );
    });
  });
});

describe('PATCH of a sandbox', () => {
  const patch = async (id: string, body: object): Promise<{ status: number; sandbox: Sandbox | undefined }> => {
    const answer = await fetch(`${service.url}/sandboxes/${id}`, {
      method: 'PATCH',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const { data } = (await answer.json()) as { data?: Sandbox };
    return { status: answer.status, sandbox: data };
  };

  it('extends and shortens its life, changes its metadata, and all of it outlives the service', LIMIT, async () => {
    const first = await startService();
    let second: Service | undefined;
    const own = service;
    try {
      service = first;
      const { sandboxId, createdAt, idleDeadline } = await first.client.create({
        sandboxIdleTimeoutSeconds: 6,
        metadata: { a: '1', b: '2' },
      });
      const { sandbox } = await patch(sandboxId, {
        sandboxIdleTimeoutSeconds: 600,
        maxLifetimeSeconds: 900,
        metadata: { a: null, c: '3' },
      });
      assert.equal(sandbox?.sandboxIdleTimeoutSeconds, 600);
      assert.ok(Math.abs(Date.parse(sandbox?.expiresAt ?? '') - Date.parse(createdAt) - 900_000) < 1000);
      assert.deepEqual(sandbox?.metadata, { b: '2', c: '3' });
      while (Date.now() < Date.parse(idleDeadline ?? '') + 1000) await sleep(200);
      await first.kill();
      second = await startService({ on: first });
      service = second;
      const found = await second.client.get(sandboxId);
      assert.deepEqual([found.status, found.maxLifetimeSeconds, found.metadata], ['READY', 900, { b: '2', c: '3' }]);
      await patch(sandboxId, { maxLifetimeSeconds: 1 });
      await waitFor(async () => (await second?.client.get(sandboxId))?.endedAt !== undefined, 'it to end');
      const ended = await second.client.get(sandboxId);
      assert.equal(ended.endedReason, 'max_lifetime');
      assert.deepEqual(ended.metadata, { b: '2', c: '3' });
      assert.equal((await patch(sandboxId, { maxLifetimeSeconds: 60 })).status, 410);
      await second.stop();
    } finally {
      service = own;
      await second?.clean();
      await first.clean();
    }
  });

  it('refuses what it does not know, and changes nothing then', LIMIT, async () => {
    await withSandbox({ metadata: { a: '1' } }, async ({ sandboxId }) => {
      for (const body of [
        {},
        { viewport: { width: 800, height: 600 } },
        { maxLifetimeSeconds: 0 },
        { sandboxIdleTimeoutSeconds: '5' },
        { metadata: { a: 1 } },
        { maxLifetimeSeconds: 60, metadata: { 'no such/key': 'x' } },
        { metadata: Object.fromEntries(Array.from({ length: 32 }, (_, i) => [`k${i}`, 'v'])) },
      ]) {
        assert.equal((await patch(sandboxId, body)).status, 400, JSON.stringify(body));
      }
      assert.equal((await patch('nobody', { maxLifetimeSeconds: 60 })).status, 404);
      const { maxLifetimeSeconds, metadata } = await service.client.get(sandboxId);
      assert.deepEqual([maxLifetimeSeconds, metadata], [21_600, { a: '1' }]);
    });
  });

  it('activity: automation lets a sandbox that is only watched be idle', LIMIT, async () => {
    const { sandboxId, vncUrl } = await service.client.create({
      sandboxIdleTimeoutSeconds: 5,
      activity: 'automation',
    });
    const viewer = await openSocket(vncUrl ?? '');
    const reason = await new Promise<string>((resolve) => viewer.once('close', (_code, why) => resolve(String(why))));
    assert.equal(reason, 'sandbox ended: idle_timeout');
    await waitFor(async () => (await service.client.get(sandboxId)).endedReason === 'idle_timeout', 'it to be gone');
  });
});

describe('a runtime that hangs', () => {
  it('is found out, and its sandbox ends as FAILED instead of living for ever', LIMIT, async () => {
    const sandbox = await service.client.create();
    const raw = await Raw.open(sandbox.cdpUrl ?? '');
    await signalPart(service, sandbox.sandboxId, 'runtime', 'SIGSTOP');
    await waitFor(async () => (await service.client.get(sandbox.sandboxId)).endedAt !== undefined, 'it to end');
    const { status, endedReason } = await service.client.get(sandbox.sandboxId);
    assert.equal(status, 'FAILED');
    assert.match(endedReason ?? '', /^failed: the runtime/);
    assert.equal((await raw.closed).code, 1011);
    assert.deepEqual(await processesOf(service, sandbox.sandboxId), []);
  });
});
