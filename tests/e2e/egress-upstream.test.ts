/** Upstream proxies with credentials: that they are used, and that nobody gets to read what they are asked with. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Server } from 'proxy-chain';
import puppeteer, { type Page } from 'puppeteer-core';
import { docker } from '../contract/engine.ts';
import { containerOf, DRIVER, inside } from './drivers.ts';
import { type Inner, type Listener, PUBLIC, serveBoth, serveDns, serveSocks } from './egress-fixtures.ts';
import { LIMIT, type Service, startService } from './service.ts';

const USER = 'berth-user';
/** With letters that mean something in URLs. */
const PASSWORD = 'hunter2@s3cr3t:/%';
/** Any form that it might be written in: as it is, in a URL, in a header, in JSON. */
const FORMS = [PASSWORD, encodeURIComponent(PASSWORD), Buffer.from(`${USER}:${PASSWORD}`).toString('base64'), 's3cr3t'];

let service: Service;
let site: Listener;
let inner: Inner;
let dns: Awaited<ReturnType<typeof serveDns>>;
let socks: Awaited<ReturnType<typeof serveSocks>>;
let upstream: Server;
/** What went through the http proxy with the right credentials. */
const passed: string[] = [];

before(async () => {
  const handler: RequestListener = (req, res) =>
    res.setHeader('content-type', 'text/html').end(`via ${req.headers.host}`);
  ({ site, inner } = await serveBoth(handler));
  dns = await serveDns((name) =>
    name.endsWith('.public') ? PUBLIC : name.endsWith('.inner') ? '127.0.0.1' : undefined,
  );
  socks = await serveSocks(USER, PASSWORD, site.port);
  upstream = new Server({
    host: PUBLIC,
    port: 0,
    prepareRequestFunction({ username, password, hostname }) {
      const right = username === USER && password === PASSWORD;
      if (right) passed.push(hostname);
      // It resolves names as it likes; here all lead to the site.
      const dnsLookup = ((_: string, options: { all?: boolean }, done: (...found: unknown[]) => void) =>
        options.all ? done(null, [{ address: PUBLIC, family: 4 }]) : done(null, PUBLIC, 4)) as never;
      return { requestAuthentication: !right, dnsLookup };
    },
  });
  await upstream.listen();
  const env = { BERTH_EGRESS_ALLOW: PUBLIC, BERTH_EGRESS_DNS: `127.0.0.1:${dns.port}`, BERTH_LOG_LEVEL: 'trace' };
  service = await startService({ env });
}, LIMIT);
after(async () => {
  await service?.end();
  await upstream?.close(true);
  for (const one of [site, inner, dns, socks]) one?.close();
}, LIMIT);

/** A page in a sandbox of its own with this proxy. */
async function withProxy(
  proxy: { url: string; username?: string; password?: string },
  use: (page: Page, id: string) => Promise<void>,
): Promise<void> {
  const sandbox = await service.client.create({ egress: { proxy } });
  assert.deepEqual(sandbox.egress, { proxy: { url: proxy.url } }, 'the answer has no credentials');
  const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl ?? '', defaultViewport: null });
  try {
    await use(await browser.newPage(), sandbox.sandboxId);
  } finally {
    await browser.disconnect();
    await service.client.delete(sandbox.sandboxId);
  }
}

async function visit(page: Page, url: string): Promise<string> {
  const answer = await page.goto(url);
  return `${answer?.status()} ${await page.evaluate(() => document.body.innerText)}`;
}

/** Chromium's own questions, of which there would be a dozen, began 3 s after its start. */
const SILENCE_MS = 15_000;

it('a browser that nobody drives asks nobody', LIMIT, async () => {
  const heard: string[] = [];
  const listening = new Server({
    host: PUBLIC,
    port: 0,
    prepareRequestFunction({ hostname, request }) {
      heard.push(`${hostname} ${request.url}`);
      return undefined;
    },
  });
  await listening.listen();
  try {
    const { sandboxId } = await service.client.create({
      egress: { proxy: { url: `http://${PUBLIC}:${listening.port}` } },
    });
    await sleep(SILENCE_MS);
    assert.deepEqual(heard, []);
    await service.client.delete(sandboxId);
  } finally {
    await listening.close(true);
  }
});

describe('an upstream proxy', () => {
  it('gets everything, names that only it can resolve included, and nothing that is closed', LIMIT, async () => {
    const url = `http://${PUBLIC}:${upstream.port}`;
    await withProxy({ url, username: USER, password: PASSWORD }, async (page, id) => {
      assert.match(await visit(page, `http://www.public:${site.port}/`), /^200 via www\.public/);
      assert.match(await visit(page, `http://only-upstream.example:${site.port}/`), /^200 via only-upstream/);
      const socket = await page.evaluate(
        (target) =>
          new Promise((done) => {
            const one = new WebSocket(`ws://${target}/`);
            one.onerror = () => done('refused');
          }),
        `tunnel.example:${site.port}`,
      );
      assert.equal(socket, 'refused', 'by the site, which speaks no WebSocket');
      assert.deepEqual([...new Set(passed)], ['www.public', 'only-upstream.example', 'tunnel.example']);
      passed.length = 0;
      const { port } = new URL(service.url);
      for (const target of [`127.0.0.1:${site.port}`, `a.inner:${site.port}`, `[::1]:${port}`, '169.254.169.254']) {
        assert.match(await visit(page, `http://${target}/`), /^403 /, target);
      }
      assert.deepEqual([passed, inner.heard], [[], []]);
      await assertUnread(id);
    });
  });

  it('may be SOCKS5', LIMIT, async () => {
    await withProxy(
      { url: `socks5://${PUBLIC}:${socks.port}`, username: USER, password: PASSWORD },
      async (page, id) => {
        assert.match(await visit(page, `http://only-upstream.example:${site.port}/`), /^200 via only-upstream/);
        await page.evaluate((target) => {
          return new Promise((done) => {
            new WebSocket(`ws://${target}/`).onerror = done;
          });
        }, `tunnel.example:${site.port}`);
        assert.deepEqual(
          [...new Set(socks.heard)],
          ['only-upstream.example', 'tunnel.example'],
          'names are its to resolve',
        );
        await assertUnread(id);
      },
    );
  });

  it('that asks for other credentials is no way out, and the page is not asked for them', LIMIT, async () => {
    for (const url of [`http://${PUBLIC}:${upstream.port}`, `socks5://${PUBLIC}:${socks.port}`]) {
      await withProxy({ url, username: USER, password: 'wrong' }, async (page) => {
        const answer = await page.goto(`http://www.public:${site.port}/`);
        assert.ok((answer?.status() ?? 0) >= 500, `${answer?.status()}`);
      });
    }
  });

  it('may not be a door to what is closed', LIMIT, async () => {
    const { port } = new URL(service.url);
    for (const url of [
      `http://127.0.0.1:${inner.port}`,
      `http://a.inner:${inner.port}`,
      `socks5://127.0.0.1:${inner.port}`,
      `http://127.0.0.1:${port}`,
    ]) {
      await withProxy({ url }, async (page) => {
        assert.match(
          await visit(page, `http://www.public:${site.port}/`),
          /^403 The upstream proxy|^403 [\s\S]*upstream proxy/i,
        );
      });
    }
    assert.deepEqual(inner.heard, []);
  });

  it('is refused with a sentence that repeats no password', LIMIT, async () => {
    const refused = await service.client
      .create({ egress: { proxy: { url: `http://u:${encodeURIComponent(PASSWORD)}@p.example` } } })
      .then(
        () => '',
        (err: Error) => err.message,
      );
    assert.match(refused, /egress\.proxy\.url: must have no user and password/);
    for (const form of FORMS) assert.ok(!refused.includes(form));
  });

  it('is known again by the next service, with its credentials', LIMIT, async () => {
    const env = { BERTH_EGRESS_ALLOW: PUBLIC, BERTH_EGRESS_DNS: `127.0.0.1:${dns.port}` };
    const first = await startService({ env });
    let second: Service | undefined;
    try {
      const proxy = { url: `http://${PUBLIC}:${upstream.port}`, username: USER, password: PASSWORD };
      const { sandboxId } = await first.client.create({ egress: { proxy } });
      await first.kill();
      second = await startService({ on: first, env });
      const { cdpUrl = '' } = await second.client.get(sandboxId);
      const browser = await puppeteer.connect({ browserWSEndpoint: cdpUrl });
      assert.match(await visit(await browser.newPage(), `http://only-upstream.example:${site.port}/`), /^200/);
      await browser.disconnect();
      await second.client.delete(sandboxId);
      assertNotIn(first.dataDir, first.runDir);
      await second.stop();
    } finally {
      await second?.clean();
      await first.clean();
    }
  });

  it('leaves no trace of its credentials in the history', LIMIT, async () => {
    const history = readFileSync(join(service.dataDir, 'history.jsonl'), 'utf8');
    assert.match(history, /"credentials":"sealed:/);
    assertNotIn(service.dataDir, service.runDir);
    assert.match(service.log(), /READY|sandbox/);
  });
});

/** Command lines, environments, logs, folders, the container and what a program in it can read. */
async function assertUnread(id: string): Promise<void> {
  const read: [string, string][] = [['log', service.log()]];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    for (const file of ['cmdline', 'environ']) {
      try {
        read.push([`${file} of ${pid}`, readFileSync(`/proc/${pid}/${file}`, 'latin1')]);
      } catch {
        // Gone meanwhile, or not ours to read.
      }
    }
  }
  if (DRIVER === 'docker') {
    read.push(['inspect', JSON.stringify(await docker.getContainer(await containerOf(id)).inspect())]);
    const { text } = await inside(
      id,
      'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ /run/berth/* /sandbox/box/* 2>/dev/null',
    );
    assert.ok(text.includes('--type=renderer'), 'command lines were read');
    assert.ok(!text.includes(`${PUBLIC}:${upstream.port}`), 'not even where the proxy is');
    read.push(['inside', text]);
  }
  for (const path of ['', `/${id}`, `/${id}/events`]) {
    read.push([`GET ${path}`, await (await fetch(`${service.url}/sandboxes${path}`)).text()]);
  }
  for (const [where, text] of read) for (const form of FORMS) assert.ok(!text.includes(form), `${form} in ${where}`);
  assertNotIn(service.dataDir, service.runDir);
}

/** No file below these folders has it. */
function assertNotIn(...folders: string[]): void {
  for (const folder of folders) {
    for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
      const path = join(folder, name);
      const text = statSync(path, { throwIfNoEntry: false })?.isFile() ? readFileSync(path, 'latin1') : '';
      for (const form of FORMS) assert.ok(!text.includes(form), `${form} in ${path}`);
    }
  }
}
