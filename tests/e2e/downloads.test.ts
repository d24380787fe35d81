import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';
import type { Sandbox } from '../../src/client/client.ts';
import { folderOf } from '../../src/drivers/folders.ts';
import { DRIVER, inside, type Site, serveSite } from './drivers.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { Raw } from './sockets.ts';

const KEYS = { a: 'key-of-tenant-a-1', b: 'key-of-tenant-b-1', eye: 'key-of-a-viewer-1' } as const;
const LIMIT_MB = 20;
const ENV = {
  BERTH_API_KEYS: `a:${KEYS.a},b:${KEYS.b},a:${KEYS.eye}:viewer`,
  BERTH_DOWNLOADS_MB: String(LIMIT_MB),
};
const BYTES = Buffer.alloc(1_000_000, 'every byte of it counts; ');

let service: Service;
let site: Site;
let box: Sandbox;
/** Answers that the site has not finished. */
const held: ServerResponse[] = [];

before(async () => {
  site = await serveSite(serve);
  service = await startService({ env: ENV, apiKey: KEYS.a });
  box = await service.client.create({ sandboxId: 'box' });
}, LIMIT);

after(async () => {
  site?.close();
  await service.end();
}, LIMIT);

describe('What a page offers for download', () => {
  it('lands whole, without a question to anybody, of whatever kind and however many.', LIMIT, async () => {
    const names = ['report.pdf', 'set-up.exe', 'run.sh', 'page.html', 'naïve ☃ (1).tar.gz'];
    for (const name of names) await offer(box, name);
    await waitFor(async () => (await whole(box)).length === names.length, `${names.length} files`);
    assert.deepEqual((await whole(box)).sort(), [...names].sort());
    for (const file of await service.client.downloads('box')) {
      assert.equal(file.size, BYTES.length);
      assert.ok(Math.abs(Date.parse(file.modifiedAt) - Date.now()) < 60_000);
      assert.equal(hash((await get('box', file.name)).body), hash(BYTES), file.name);
    }
  });

  it('is answered as an attachment that no browser takes for a page, by HEAD and in ranges too.', LIMIT, async () => {
    const { status, headers } = await get('box', 'naïve ☃ (1).tar.gz', { method: 'HEAD' });
    assert.equal(status, 200);
    assert.equal(headers['content-type'], 'application/octet-stream');
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert.equal(headers['content-length'], String(BYTES.length));
    assert.equal(
      headers['content-disposition'],
      `attachment; filename="na_ve _ (1).tar.gz"; filename*=UTF-8''na%C3%AFve%20%E2%98%83%20%281%29.tar.gz`,
    );
    const part = await get('box', 'run.sh', { headers: { Range: 'bytes=5-14' } });
    assert.equal(part.status, 206);
    assert.deepEqual(part.body, BYTES.subarray(5, 15));
    assert.equal((await get('box', 'run.sh', { headers: { Range: `bytes=${BYTES.length}-` } })).status, 416);
  });

  it('is listed while it is being written, and whole when the site has sent all of it.', LIMIT, async () => {
    await offer(box, 'slow.bin', 'slow');
    let part: Buffer | undefined;
    await waitFor(async () => {
      const growing = (await service.client.downloads('box')).find((file) => !file.complete && file.size > 0);
      // Chromium changes the temporary name once, which may be right now.
      const answer = growing && (await get('box', growing.name));
      if (answer?.status === 200) part = answer.body;
      return part !== undefined;
    }, 'the unfinished file');
    assert.ok(part && part.length > 0 && part.equals(BYTES.subarray(0, part.length)));
    for (const answer of held.splice(0)) answer.end(BYTES.subarray(BYTES.length / 2));
    await arrival(box, 'slow.bin');
    assert.equal(hash((await get('box', 'slow.bin')).body), hash(BYTES));
    assert.ok((await service.client.downloads('box')).every((file) => file.complete));
  });

  it('is deleted by name, once.', LIMIT, async () => {
    assert.equal((await get('box', 'run.sh', { method: 'DELETE' })).status, 200);
    assert.ok(!(await whole(box)).includes('run.sh'));
    for (const method of ['DELETE', 'GET']) await assertNoDownload('box', 'run.sh', method);
  });

  it("belongs to the sandbox's own user, and nobody else looks in.", LIMIT, async () => {
    const root = join(service.dataDir, 'downloads');
    const folder = statSync(join(root, 'box'));
    assert.equal(folder.mode & 0o777, 0o700);
    assert.equal(statSync(root).mode & 0o066, 0);
    for (const name of readdirSync(join(root, 'box'))) assert.equal(statSync(join(root, 'box', name)).uid, folder.uid);
    if (process.getuid?.() === 0) assert.notEqual(folder.uid, 0);
    assert.match(await asItself('console.log(fs.readdirSync(dir).length)'), /^\d+\n$/, 'its user may');
    if (DRIVER === 'local' && process.getuid?.() === 0) {
      const above = 'for (const d of ["..", "../.."]) try { fs.readdirSync(dir + "/" + d); console.log(d) } catch {}';
      assert.equal(await asItself(above), '', 'and lists nothing above it');
    }
  });

  it("is another tenant's to neither list, read nor delete; a viewer may look.", LIMIT, async () => {
    for (const [method, name] of [
      ['GET', undefined],
      ['GET', 'slow.bin'],
      ['DELETE', 'slow.bin'],
    ] as const) {
      const { status, body } = await get('box', name, { method, key: KEYS.b });
      assert.deepEqual({ status, code: JSON.parse(body.toString()).code }, { status: 404, code: 2001 });
    }
    assert.equal((await get('box', 'slow.bin', { key: KEYS.eye })).status, 200);
    assert.equal((await get('box', 'slow.bin', { key: KEYS.eye, method: 'DELETE' })).status, 403);
  });
});

describe('Clients', () => {
  it('Playwright with noDefaults leaves downloads where they are kept.', LIMIT, async () => {
    const browser = await chromium.connectOverCDP(box.cdpUrl as string, { noDefaults: true });
    const page = await browser.contexts()[0]?.newPage();
    await page?.goto(site.url);
    await page?.evaluate((url) => Object.assign(document.createElement('a'), { href: url }).click(), at('kept.bin'));
    await arrival(box, 'kept.bin');
    await browser.close();
  });

  it('Playwright without it redirects them, and one call turns that back and keeps its event.', LIMIT, async () => {
    const browser = await chromium.connectOverCDP(box.cdpUrl as string);
    const session = await browser.newBrowserCDPSession();
    await session.send('Browser.setDownloadBehavior', { behavior: 'default', eventsEnabled: true });
    const page = await browser.contexts()[0]?.newPage();
    await page?.goto(site.url);
    const told = page?.waitForEvent('download');
    await page?.evaluate((url) => Object.assign(document.createElement('a'), { href: url }).click(), at('told.bin'));
    const download = await told;
    assert.equal(await download?.failure(), null);
    assert.equal(hash((await get('box', download?.suggestedFilename())).body), hash(BYTES));
    await browser.close();
  });
});

describe('Names and files that the sandbox chose itself', () => {
  const NAMES = [
    'a"b\'c;d%41\\e.txt',
    'two\nlines\r\nX-Header: 1',
    '.hidden',
    `${'é'.repeat(127)}x`,
    '%2Fetc%2Fpasswd',
    '..%2f..%2fmaster.key',
    '...',
    ' ',
    '\u202Etxt.exe',
    '😀',
  ];

  it('are listed, answered and deleted whatever they are.', LIMIT, async () => {
    await asItself(`for (const name of ${JSON.stringify(NAMES)}) fs.writeFileSync(dir + '/' + name, 'of ' + name);
      fs.writeFileSync(Buffer.concat([Buffer.from(dir + '/'), Buffer.from([0x66, 0xff])]), 'not UTF-8')`);
    const listed = await whole(box);
    for (const name of NAMES) {
      assert.ok(listed.includes(name), JSON.stringify(name));
      const { status, headers, body } = await get('box', name);
      assert.deepEqual({ status, text: body.toString() }, { status: 200, text: `of ${name}` });
      assert.match(headers['content-disposition'] ?? '', /^attachment; filename="[ !#-[\]-~]+"; filename\*=UTF-8''/);
      assert.equal(headers['x-header'], undefined);
      assert.equal((await get('box', name, { method: 'DELETE' })).status, 200, JSON.stringify(name));
    }
    assert.ok(!listed.some((name) => name.startsWith('f') && name.length === 2), 'a name that nobody could ask for');
  });

  it('Links, FIFOs, sockets and folders are not followed, waited for, listed or removed.', LIMIT, async () => {
    await asItself(`fs.symlinkSync('/etc/passwd', dir + '/link'); fs.symlinkSync('slow.bin', dir + '/near');
      fs.symlinkSync('..', dir + '/up'); fs.mkdirSync(dir + '/folder'); fs.writeFileSync(dir + '/folder/file', 'x');
      require('net').createServer().listen(dir + '/socket', () => process.exit())`);
    const planted = ['link', 'near', 'up', 'folder', 'socket'];
    // A container may make none.
    if (DRIVER === 'local') {
      await asItself(`require('child_process').execFileSync('mkfifo', [dir + '/fifo'])`);
      planted.push('fifo');
    }
    const listed = (await service.client.downloads('box')).map((file) => file.name);
    for (const name of planted) {
      assert.ok(!listed.includes(name), name);
      for (const method of ['GET', 'HEAD', 'DELETE']) await assertNoDownload('box', name, method);
    }
    for (const raw of ['link%2f', 'up%2fbox%2fslow.bin', 'folder%2Ffile'])
      await assertNoDownload('box', { raw }, 'GET');
    const there = (await asItself('console.log(fs.readdirSync(dir).join("/"))')).trim().split('/');
    for (const name of planted) assert.ok(there.includes(name), name);
  });

  it('No path leads out of the folder.', LIMIT, async () => {
    writeFileSync(join(service.dataDir, 'downloads', 'beside'), 'not of a sandbox');
    const ways = ['..', '%2e%2e', '.', '%2e', '%00', 'slow.bin%00', '%2e%2e%2fbeside', '..%2f..%2fmaster.key', '%ff'];
    for (const raw of [...ways, '%2Fetc%2Fpasswd', 'x'.repeat(256), '%C3%A9'.repeat(128), '*', '%']) {
      for (const method of ['GET', 'DELETE']) await assertNoDownload('box', { raw }, method);
    }
    assert.ok(existsSync(join(service.dataDir, 'master.key')));
    const file = await get('..%2fdownloads%2fbox', 'slow.bin');
    assert.equal(file.status, 404);
  });

  it('A file that is cut while it is read breaks the answer off, and the next one is whole.', LIMIT, async () => {
    const size = 64 * 1024 * 1024;
    await asItself(`fs.truncateSync((fs.writeFileSync(dir + '/cut', ''), dir + '/cut'), ${size})`);
    const answer = await open('box', 'cut');
    assert.equal(answer.headers['content-length'], String(size));
    await asItself(`fs.truncateSync(dir + '/cut', 10)`);
    await assert.rejects(collect(answer));
    assert.equal((await get('box', 'cut')).body.length, 10);
    await get('box', 'cut', { method: 'DELETE' });
  });
});

describe('Over the limit', () => {
  it(
    'the browser is ended with the reason, the file is gone, what was there stays, and a fresh browser comes.',
    LIMIT,
    async () => {
      const before = await whole(box);
      const raw = await Raw.open(box.cdpUrl as string);
      await offer(box, 'endless.bin', 'endless');
      assert.deepEqual(await raw.closed, { code: 1011, reason: `downloads exceed the limit of ${LIMIT_MB} MB` });
      await waitFor(async () => (await service.client.get('box')).browserRestarts === 1, 'a fresh browser');
      assert.deepEqual((await service.client.downloads('box')).map((file) => file.name).sort(), before.sort());
      const next = await Raw.open(box.cdpUrl as string);
      assert.ok((await next.pageIds()).length > 0);
      next.socket.close();
      assert.equal((await service.client.get('box')).status, 'READY');
    },
  );

  it('of whole files the newest goes, and the browser that is started next is left in peace.', LIMIT, async () => {
    const before = await whole(box);
    const raw = await Raw.open(box.cdpUrl as string);
    await asItself(`fs.writeFileSync(dir + '/much', Buffer.alloc(${LIMIT_MB} * 1024 * 1024))`);
    assert.equal((await raw.closed).code, 1011);
    await waitFor(async () => (await service.client.get('box')).browserRestarts === 2, 'a fresh browser');
    assert.deepEqual((await whole(box)).sort(), before.sort());
    const next = await Raw.open(box.cdpUrl as string);
    // Longer than the time between two looks at the folder.
    const ended = await Promise.race([next.closed, sleep(2500, 'it lives')]);
    assert.equal(ended, 'it lives');
    next.socket.close();
  });
});

describe('A third time within a minute', () => {
  it('fails the sandbox, and the reason is the same.', LIMIT, async () => {
    await asItself(`fs.writeFileSync(dir + '/much', Buffer.alloc(${LIMIT_MB} * 1024 * 1024))`);
    await waitFor(async () => (await service.client.get('box')).status === 'FAILED', 'the end');
    const { endedReason } = await service.client.get('box');
    assert.match(
      endedReason ?? '',
      /^failed: downloads exceed the limit of 20 MB; Chromium was killed by SIGKILL, 3 times/,
    );
  });
});

describe('Downloads outlive', () => {
  it('their sandbox and the service, killed or not; a folder of nobody is removed.', LIMIT, async () => {
    const alive = await service.client.create({ sandboxId: 'alive' });
    await offer(alive, 'early.bin');
    await arrival(alive, 'early.bin');
    assert.equal(hash((await get('box', 'slow.bin')).body), hash(BYTES), 'after the end');

    await service.kill();
    const root = join(service.dataDir, 'downloads');
    mkdirSync(join(root, 'nobody'));
    writeFileSync(join(root, 'nobody', 'file'), 'x');
    service = await startService({ on: service, env: ENV, apiKey: KEYS.a });
    assert.ok(!existsSync(join(root, 'nobody')), 'the folder of a sandbox that nobody remembers is removed');
    assert.equal(hash((await get('box', 'slow.bin')).body), hash(BYTES), 'after a restart');
    assert.equal((await get('box', 'slow.bin', { method: 'DELETE' })).status, 200);
    assert.ok(!(await whole(box)).includes('slow.bin'));

    const { cdpUrl } = await service.client.get('alive');
    await offer({ ...alive, cdpUrl: cdpUrl as string }, 'late.bin');
    await arrival(alive, 'late.bin');
    assert.equal(hash((await get('alive', 'early.bin')).body), hash(BYTES));
  });

  it('not a new sandbox of the same id.', LIMIT, async () => {
    await service.client.delete('alive');
    assert.ok((await whole({ sandboxId: 'alive' })).length > 0);
    await service.client.create({ sandboxId: 'alive' });
    assert.deepEqual(await service.client.downloads('alive'), []);
  });
});

// A container gets its folder as a mount, wherever it lies.
const describeLocal = DRIVER === 'local' ? describe : () => {};
describeLocal("Where a sandbox's own user cannot get to the data folder", () => {
  const skip = process.getuid?.() === 0 ? false : 'needs root';
  it('sandboxes run, a line of the log says that downloads end with them, and none is listed.', {
    ...LIMIT,
    skip,
  }, async () => {
    const closed = mkdtempSync(join(tmpdir(), 'bt-closed-'));
    const other = await startService({ env: { BERTH_DATA_DIR: join(closed, 'd') } });
    try {
      const sandbox = await other.client.create();
      await offer(sandbox, 'file.bin');
      const own = join(folderOf(other.runDir, sandbox.sandboxId), 'h', 'Downloads', 'file.bin');
      await waitFor(() => existsSync(own), 'the file in the folder that ends with the sandbox');
      assert.deepEqual(await other.client.downloads(sandbox.sandboxId), []);
      assert.ok(other.log().includes(`Downloads end with their sandbox: its user cannot enter ${closed}.`));
      assert.equal(statSync(join(closed, 'd')).mode & 0o777, 0o700);
    } finally {
      await other.end().finally(() => rmSync(closed, { recursive: true, force: true }));
    }
  });
});

function serve({ url = '' }: IncomingMessage, res: ServerResponse): void {
  const { pathname, searchParams } = new URL(url, 'http://site');
  if (pathname === '/') {
    res.setHeader('Content-Type', 'text/html');
    res.end('<!doctype html><title>page</title>');
    return;
  }
  res.setHeader('Content-Type', 'application/octet-stream');
  res.setHeader('Content-Disposition', `attachment; filename*=UTF-8''${pathname.slice(1)}`);
  if (searchParams.has('slow')) {
    res.write(BYTES.subarray(0, BYTES.length / 2));
    held.push(res);
  } else if (searchParams.has('endless')) {
    const more = (): void => {
      while (!res.destroyed && res.write(BYTES));
      res.once('drain', more);
    };
    more();
  } else res.end(BYTES);
}

const at = (name: string, how = ''): string => `${site.url}/${encodeURIComponent(name)}?${how}`;

/** Clicks a link to the file in a page of the sandbox. */
async function offer(sandbox: Sandbox, name: string, how = ''): Promise<void> {
  const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl as string, defaultViewport: null });
  const page = (await browser.pages())[0] ?? (await browser.newPage());
  if (!page.url().startsWith(site.url)) await page.goto(site.url);
  await page.evaluate((url) => Object.assign(document.createElement('a'), { href: url }).click(), at(name, how));
  await browser.disconnect();
}

/** Names of the finished files. */
async function whole({ sandboxId }: { sandboxId: string }): Promise<string[]> {
  return (await service.client.downloads(sandboxId)).filter((file) => file.complete).map((file) => file.name);
}

/** Waits until the file is whole; the error says what there is instead. */
async function arrival({ sandboxId }: { sandboxId: string }, name: string): Promise<void> {
  let seen: object[] = [];
  const there = async (): Promise<boolean> => {
    const found = await service.client.downloads(sandboxId);
    seen = found;
    return found.some((file) => file.complete && file.name === name);
  };
  await waitFor(there, () => `${name}, and there is ${JSON.stringify(seen)}`);
}

interface Asked {
  readonly method?: string;
  readonly key?: string;
  readonly headers?: Record<string, string>;
}

/** A name, or what stands for it in the path as it is; fetch would tidy that up. */
type Name = string | { readonly raw: string } | undefined;

function open(id: string, name: Name, { method = 'GET', key = KEYS.a, headers = {} }: Asked = {}) {
  const last = name === undefined ? '' : `/${typeof name === 'string' ? encodeURIComponent(name) : name.raw}`;
  return new Promise<IncomingMessage>((resolve, reject) => {
    const { hostname, port } = new URL(service.url);
    const path = `/sandboxes/${id}/downloads${last}`;
    request({ hostname, port, path, method, headers: { ...headers, 'X-API-Key': key }, agent: false }, resolve)
      .once('error', reject)
      .end();
  });
}

async function collect(answer: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of answer) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function get(id: string, name: Name, asked: Asked = {}) {
  const answer = await open(id, name, asked);
  return { status: answer.statusCode, headers: answer.headers, body: await collect(answer) };
}

async function assertNoDownload(id: string, name: Name, method: string): Promise<void> {
  const { status, body } = await get(id, name, { method });
  assert.equal(status, 404, `${method} ${JSON.stringify(name)}: ${body}`);
  if (method !== 'HEAD') assert.equal(JSON.parse(body.toString()).code, 3004, JSON.stringify(name));
}

function hash(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Runs JavaScript as the sandbox's own user, with its folder of downloads as `dir`; answers what it prints. */
async function asItself(script: string): Promise<string> {
  const folder = DRIVER === 'docker' ? '/downloads' : join(service.dataDir, 'downloads', 'box');
  const code = Buffer.from(`const fs = require('fs'); const dir = ${JSON.stringify(folder)}; ${script}`);
  const line = `node -e 'eval(Buffer.from("${code.toString('base64')}", "base64").toString())'`;
  if (DRIVER === 'docker') {
    const { ok, text } = await inside('box', line);
    assert.ok(ok, text);
    return text;
  }
  const { uid } = statSync(folder);
  const as = uid === process.getuid?.() ? [] : ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
  const [command = '', ...args] = [...as, 'sh', '-c', line.replace(/^node/, `'${process.execPath}'`)];
  return (await promisify(execFile)(command, args, { timeout: 30_000, cwd: '/' })).stdout;
}
