import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { chromium, type Browser as PlaywrightBrowser } from 'playwright-core';
import puppeteer, { type Page, type Browser as PuppeteerBrowser } from 'puppeteer-core';
import type { Sandbox } from '../../src/client/client.ts';
import { goesFirst, type Site, serveSite, signalPart } from './drivers.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { nextMessage, openSocket, Raw, refusal, withRaw } from './sockets.ts';

const MIB = 1024 * 1024;

let service: Service;
let site: Site;
/** The sandbox of all cases that leave it as it was. */
let box: Sandbox;

before(async () => {
  service = await startService();
  site = await startSite();
  box = await service.client.create();
}, LIMIT);

after(async () => {
  site?.close();
  await service.end();
}, LIMIT);

describe('Unmodified clients', () => {
  it('Puppeteer connects by browserWSEndpoint, opens a page and reads it.', LIMIT, async () => {
    await withPuppeteer(cdp(box), async (browser) => {
      const page = await browser.newPage();
      await page.goto(`${site.url}/first`);
      assert.equal(await page.$eval('h1', (h) => h.textContent), '/first');
      await page.close();
    });
  });

  for (const suffix of ['', '/', '?tenantId=123', '/?tenantId=123', '?tenantId=123&anything=else%20at+all']) {
    it(`Puppeteer connects to ws/automation${suffix}.`, LIMIT, async () => {
      await withPuppeteer(`${cdp(box)}${suffix}`, async (browser) =>
        assert.match(await browser.version(), /^Chrome\//),
      );
    });

    it(`Playwright connects to ws/automation${suffix}.`, LIMIT, async () => {
      await withPlaywright(`${cdp(box)}${suffix}`, assertPlaywrightWorks);
    });
  }

  for (const suffix of ['', '/', '?tenantId=123', '/?tenantId=123']) {
    it(`Playwright connects to the sandbox's http address with "${suffix}" behind it.`, LIMIT, async () => {
      await withPlaywright(`${service.url}/sandboxes/${box.sandboxId}${suffix}`, assertPlaywrightWorks);
    });
  }

  it('A plain WebSocket gets an answer to a raw Browser.getVersion.', LIMIT, async () => {
    const socket = await openSocket(cdp(box));
    socket.send('{"id":1,"method":"Browser.getVersion"}');
    const answer = await nextMessage(socket);
    assert.equal(answer.binary, false);
    const { id, result } = JSON.parse(answer.data.toString());
    assert.equal(id, 1);
    assert.match(result.product, /^Chrome\/\d+/);
    socket.close();
  });
});

describe('DevTools discovery', () => {
  for (const suffix of ['', '/', '?tenantId=123', '/?tenantId=123']) {
    it(`json/version${suffix} names the public WebSocket address, which works.`, LIMIT, async () => {
      const address = `${service.url}/sandboxes/${box.sandboxId}/json/version${suffix}`;
      assert.equal((await fetch(address, { method: 'HEAD' })).status, 200);
      const answer = await fetch(address);
      assert.equal(answer.status, 200);
      const version = (await answer.json()) as Record<string, string>;
      assert.match(version.Browser ?? '', /^Chrome\//);
      assert.equal(version['Protocol-Version'], '1.3');
      assert.equal(version.webSocketDebuggerUrl, cdp(box));
      await withRaw(version.webSocketDebuggerUrl, async (raw) => {
        assert.equal((await raw.send('Browser.getVersion')).product, version.Browser);
      });
    });
  }

  it("A page's own address from json/list drives that page and no other.", LIMIT, async () => {
    await withRaw(cdp(box), async (raw) => {
      const { targetId } = await raw.send('Target.createTarget', { url: `${site.url}/by-its-own-address` });
      const listed = await waitForTarget(targetId, (target) => target.title === '/by-its-own-address');
      assert.equal(listed.webSocketDebuggerUrl, `${wsUrl()}/sandboxes/${box.sandboxId}/devtools/page/${targetId}`);
      await withRaw(listed.webSocketDebuggerUrl, async (page) => {
        assert.equal(await page.evaluate('location.pathname'), '/by-its-own-address');
        // A page's endpoint is below the browser: it does not know the Target domain's browser-wide calls of others.
        assert.equal(await page.evaluate('document.title = "changed"'), 'changed');
      });
      await waitForTarget(targetId, (target) => target.title === 'changed');
      await raw.send('Target.closeTarget', { targetId });
    });
  });

  it('A target that does not exist is refused with a readable 404 before the 101.', LIMIT, async () => {
    const { status, body } = await refusal(`${wsUrl()}/sandboxes/${box.sandboxId}/devtools/page/0123456789ABCDEF`);
    assert.equal(status, 404);
    assert.match(body.message, /no such DevTools target/);
  });
});

describe('The handshake', () => {
  it('permessage-deflate is offered by the client and not taken.', LIMIT, async () => {
    const socket = await openSocket(cdp(box), [], { perMessageDeflate: true });
    assert.equal(socket.extensions, '');
    socket.send('{"id":1,"method":"Browser.getVersion"}');
    assert.match((await nextMessage(socket)).data.toString(), /Chrome/);
    socket.close();
  });

  for (const protocols of [['binary'], ['cdp'], ['base64', 'binary']]) {
    it(
      `A client that offers the subprotocol ${protocols.join(' or ')} gets a connection that works.`,
      LIMIT,
      async () => {
        // Like a browser, this client refuses an answer that takes none of its offers.
        const socket = await openSocket(cdp(box), protocols);
        assert.ok(protocols.includes(socket.protocol), `the answer took "${socket.protocol}"`);
        socket.send('{"id":1,"method":"Browser.getVersion"}');
        assert.match((await nextMessage(socket)).data.toString(), /Chrome/);
        socket.close();
      },
    );
  }

  it('Without an offer no subprotocol is taken.', LIMIT, async () => {
    const socket = await openSocket(cdp(box));
    assert.equal(socket.protocol, '');
    socket.close();
  });
});

describe('Several clients on one sandbox', () => {
  it('Three of Puppeteer, two of Playwright and two raw ones work at once, each on its own page.', LIMIT, async () => {
    const everyoneIsIn = barrier(7);
    const work = async (name: string, evaluate: (expression: string) => Promise<unknown>): Promise<void> => {
      await everyoneIsIn();
      for (let i = 0; i < 30; i += 1) {
        assert.equal(await evaluate(`window.seen = (window.seen ?? '') + '${i};', location.pathname`), `/${name}`);
      }
      // Nobody else was on this page.
      assert.equal(await evaluate('window.seen'), [...Array(30).keys()].map((i) => `${i};`).join(''));
    };
    const withPuppeteerPage = (name: string): Promise<void> =>
      withPuppeteer(cdp(box), async (browser) => {
        const page = await browser.newPage();
        await page.goto(`${site.url}/${name}`);
        await work(name, (expression) => page.evaluate(expression));
        await page.close();
      });
    const withPlaywrightPage = (name: string): Promise<void> =>
      withPlaywright(cdp(box), async (browser) => {
        const page = await (browser.contexts()[0] ?? (await browser.newContext())).newPage();
        await page.goto(`${site.url}/${name}`);
        await work(name, (expression) => page.evaluate(expression));
        await page.close();
      });
    const withRawPage = (name: string): Promise<void> =>
      withRaw(cdp(box), async (raw) => {
        const { targetId } = await raw.send('Target.createTarget', { url: `${site.url}/${name}` });
        const { sessionId } = await raw.send('Target.attachToTarget', { targetId, flatten: true });
        await waitFor(async () => (await raw.evaluate('document.title', sessionId)) === `/${name}`, `the page ${name}`);
        await work(name, (expression) => raw.evaluate(expression, sessionId));
        await raw.send('Target.closeTarget', { targetId });
      });
    const counted = waitFor(
      async () => (await service.client.get(box.sandboxId)).clients === 7,
      'seven clients to be counted',
    );
    await Promise.all([
      ...['puppeteer-1', 'puppeteer-2', 'puppeteer-3'].map(withPuppeteerPage),
      ...['playwright-1', 'playwright-2'].map(withPlaywrightPage),
      ...['raw-1', 'raw-2'].map(withRawPage),
      counted,
    ]);
    await waitFor(
      async () => (await service.client.get(box.sandboxId)).clients === 0,
      'the clients to be gone from the count',
    );
  });

  it(
    'The browser context of a client that drops is gone, and the page in the default context stays.',
    LIMIT,
    async () => {
      await withRaw(cdp(box), async (observer) => {
        const dropping = await Raw.open(cdp(box));
        const { browserContextId } = await dropping.send('Target.createBrowserContext', { disposeOnDetach: true });
        const inContext = await dropping.send('Target.createTarget', {
          url: `${site.url}/in-context`,
          browserContextId,
        });
        const inDefault = await dropping.send('Target.createTarget', { url: `${site.url}/in-default` });
        const both = await observer.pageIds();
        assert.ok(
          both.includes(inContext.targetId) && both.includes(inDefault.targetId),
          'the observer sees both pages',
        );

        dropping.socket.terminate();
        await waitFor(
          async () => !(await observer.pageIds()).includes(inContext.targetId),
          "the dropped client's page to be gone",
        );
        const { browserContextIds } = await observer.send('Target.getBrowserContexts');
        assert.ok(!browserContextIds.includes(browserContextId), 'the context is gone too');
        assert.ok((await observer.pageIds()).includes(inDefault.targetId), 'the page of the default context stays');
        await observer.send('Target.closeTarget', { targetId: inDefault.targetId });
      });
    },
  );

  it('The context of a Playwright process that is killed -9 is gone.', LIMIT, async () => {
    const program = `
      const { chromium } = (await import(${JSON.stringify(import.meta.resolve('playwright-core'))})).default;
      const browser = await chromium.connectOverCDP(${JSON.stringify(cdp(box))});
      const page = await (await browser.newContext()).newPage();
      await page.goto(${JSON.stringify(`${site.url}/of-the-killed`)});
      console.log('opened');
      setInterval(() => {}, 1000);`;
    await withRaw(cdp(box), async (observer) => {
      const before = (await observer.send('Target.getBrowserContexts')).browserContextIds;
      // What Playwright leaves when it is killed shall not stay.
      const TMPDIR = mkdtempSync(join(tmpdir(), 'bt-killed-'));
      const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: { ...process.env, TMPDIR },
      });
      try {
        await new Promise<void>((resolve, reject) => {
          child.stdout.once('data', () => resolve());
          child.once('exit', () => reject(new Error('the Playwright process ended early')));
        });
        const during = (await observer.send('Target.getBrowserContexts')).browserContextIds;
        assert.equal(during.length, before.length + 1);
      } finally {
        const gone = new Promise((resolve) => child.once('close', resolve));
        if (child.kill('SIGKILL')) await gone;
        rmSync(TMPDIR, { recursive: true, force: true });
      }
      await waitFor(
        async () => !(await observer.pageUrls()).includes(`${site.url}/of-the-killed`),
        "the killed client's page to be gone",
      );
      assert.deepEqual((await observer.send('Target.getBrowserContexts')).browserContextIds, before);
    });
  });
});

describe('Large messages', () => {
  // While it writes one, Chromium does nothing else, and after 10 s it is taken for hung.
  before(() => goesFirst(service, box.sandboxId));

  it('A reply of 110 MiB arrives byte by byte as the page made it.', LIMIT, async () => {
    await withPuppeteer(cdp(box), async (browser) => {
      const page = await openSecurePage(browser);
      const text = await page.evaluate(async (size) => {
        const bytes = new Uint8Array(size);
        for (let i = 0; i < size; i += 65_536) crypto.getRandomValues(bytes.subarray(i, i + 65_536));
        for (let i = 0; i < size; i += 1) bytes[i] = 48 + ((bytes[i] as number) & 31);
        const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
        (globalThis as { digest?: string }).digest = [...digest].map((b) => b.toString(16).padStart(2, '0')).join('');
        return new TextDecoder('ascii').decode(bytes);
      }, 110 * MIB);
      assert.equal(text.length, 110 * MIB);
      const inPage = await page.evaluate(() => (globalThis as { digest?: string }).digest);
      assert.equal(createHash('sha256').update(text, 'latin1').digest('hex'), inPage);
      await page.close();
    });
  });

  it('A call with a 20 MiB argument arrives byte by byte as the client sent it.', LIMIT, async () => {
    await withPuppeteer(cdp(box), async (browser) => {
      const page = await openSecurePage(browser);
      const text = randomBytes(15 * MIB).toString('base64');
      assert.equal(text.length, 20 * MIB);
      const [length, digest] = await page.evaluate(async (received) => {
        const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(received)));
        return [received.length, [...hash].map((b) => b.toString(16).padStart(2, '0')).join('')] as const;
      }, text);
      assert.equal(length, 20 * MIB);
      assert.equal(digest, createHash('sha256').update(text).digest('hex'));
      await page.close();
    });
  });
});

describe('The end of a connection', () => {
  it('Deleting the sandbox closes its clients with 1001 and a sentence that says so.', LIMIT, async () => {
    const mine = await service.client.create();
    const raw = await Raw.open(cdp(mine));
    const browser = await puppeteer.connect({ browserWSEndpoint: cdp(mine) });
    const disconnected = new Promise<void>((resolve) => browser.once('disconnected', () => resolve()));
    const ended = await service.client.delete(mine.sandboxId);
    assert.equal(ended.endedReason, 'deleted');
    const { code, reason } = await raw.closed;
    assert.deepEqual(
      { code, says: /deleted/.test(reason) },
      { code: 1001, says: true },
      `closed with ${code} "${reason}"`,
    );
    await disconnected;
    const { status, body } = await refusal(cdp(mine));
    assert.equal(status, 410);
    assert.match(body.message, /deleted/);
  });

  it('Killing Chromium closes its clients with 1011 at once, and a new browser takes its place.', LIMIT, async () => {
    const mine = await service.client.create();
    const raw = await Raw.open(cdp(mine));
    await signalPart(service, mine.sandboxId, 'chromium');
    const { code, reason } = await raw.closed;
    // Whoever waits until it does not answer has another reason to give.
    assert.equal(code, 1011, `closed with ${code} "${reason}"`);
    assert.match(reason, /^the browser has gone/);
    await waitFor(async () => (await service.client.get(mine.sandboxId)).browserRestarts === 1, 'the restart to count');
    await assertBrowses(mine, '/after-the-kill');
    assert.equal((await service.client.get(mine.sandboxId)).status, 'READY');
    await service.client.delete(mine.sandboxId);
  });

  it('A client that comes back at once after a crash waits for the new browser.', LIMIT, async () => {
    const mine = await service.client.create();
    const raw = await Raw.open(cdp(mine));
    await signalPart(service, mine.sandboxId, 'chromium');
    await raw.closed;
    await assertBrowses(mine, '/back-at-once');
    await service.client.delete(mine.sandboxId);
  });

  it(
    "A client's own close code and the other clients are not mixed up: one leaves, the other works on.",
    LIMIT,
    async () => {
      const leaving = await Raw.open(cdp(box));
      await withRaw(cdp(box), async (staying) => {
        leaving.socket.close(1000, 'done');
        assert.equal((await leaving.closed).code, 1000);
        assert.match((await staying.send('Browser.getVersion')).product, /^Chrome\//);
      });
    },
  );
});

/** Pages whose title and heading are their path. */
function startSite(): Promise<Site> {
  return serveSite((req, res) => {
    const path = new URL(req.url ?? '/', 'http://site').pathname;
    res.setHeader('content-type', 'text/html; charset=utf-8');
    res.end(`<!doctype html><title>${path}</title><h1>${path}</h1>`);
  });
}

/** An empty page that may use crypto.subtle: one of https, whatever the sandbox's way to the test's own site is. */
async function openSecurePage(browser: PuppeteerBrowser): Promise<Page> {
  const page = await browser.newPage();
  await page.setRequestInterception(true);
  page.on('request', (request) => void request.respond({ contentType: 'text/html', body: '<!doctype html>' }));
  await page.goto('https://secure.test/');
  return page;
}

function cdp(sandbox: Sandbox): string {
  return sandbox.cdpUrl as string;
}

function wsUrl(): string {
  return service.url.replace(/^http/, 'ws');
}

async function withPuppeteer(
  browserWSEndpoint: string,
  use: (browser: PuppeteerBrowser) => Promise<void>,
): Promise<void> {
  const browser = await puppeteer.connect({ browserWSEndpoint });
  try {
    await use(browser);
  } finally {
    await browser.disconnect();
  }
}

async function assertBrowses(sandbox: Sandbox, path: string): Promise<void> {
  await withPuppeteer(cdp(sandbox), async (browser) => {
    const page = await browser.newPage();
    await page.goto(`${site.url}${path}`);
    assert.equal(await page.title(), path);
  });
}

async function withPlaywright(endpoint: string, use: (browser: PlaywrightBrowser) => Promise<void>): Promise<void> {
  const browser = await chromium.connectOverCDP(endpoint, LIMIT);
  try {
    await use(browser);
  } finally {
    await browser.close();
  }
}

async function assertPlaywrightWorks(browser: PlaywrightBrowser): Promise<void> {
  const context = browser.contexts()[0];
  assert.ok(context, 'the default context is there');
  const page = await context.newPage();
  await page.goto(`${site.url}/playwright`);
  assert.equal(await page.textContent('h1'), '/playwright');
  await page.close();
}

/** Each call resolves when `n` of them were made. */
function barrier(n: number): () => Promise<void> {
  let open = (): void => {};
  const all = new Promise<void>((resolve) => {
    open = resolve;
  });
  let count = 0;
  return () => {
    count += 1;
    if (count === n) open();
    return all;
  };
}

interface Target {
  readonly id: string;
  readonly title: string;
  readonly webSocketDebuggerUrl: string;
}

async function waitForTarget(id: string, condition: (target: Target) => boolean): Promise<Target> {
  let found: Target | undefined;
  await waitFor(async () => {
    const answer = await fetch(`${service.url}/sandboxes/${box.sandboxId}/json/list`);
    found = ((await answer.json()) as Target[]).find((target) => target.id === id);
    return found !== undefined && condition(found);
  }, `target ${id} in json/list`);
  return found as Target;
}
