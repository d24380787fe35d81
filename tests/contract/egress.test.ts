/** The way out, spoken to by hand: what no browser would send. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { EgressServer } from '../../src/egress/server.ts';
import { type Inner, type Listener, MACHINE, PUBLIC, serveBoth, serveDns } from '../e2e/egress-fixtures.ts';

const LIMIT = { timeout: 60_000 };
const MIB = 1024 * 1024;

let folder: string;
let path: string;
let egress: EgressServer;
let site: Listener;
let inner: Inner;
let dns: Awaited<ReturnType<typeof serveDns>>;
/** Told of each request that the open site got. */
const seen: { method: string; url: string; headers: Readonly<Record<string, unknown>>; connection: unknown }[] = [];

const handler: RequestListener = (req, res) => {
  const { method = '', url = '', headers, socket } = req;
  seen.push({ method, url, headers, connection: socket });
  if (url === '/slow') setTimeout(() => res.end('slow'), 2500);
  else req.resume().once('end', () => res.end(`public ${url}`));
};

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bt-egress-'));
  path = join(folder, 's');
  ({ site, inner } = await serveBoth(handler));
  dns = await serveDns((name) => ({ 'a.public': PUBLIC, 'a.inner': '127.0.0.1', 'a.machine': MACHINE })[name]);
  const doors = [{ port: 1, hosts: ['berth.public'] }];
  egress = new EgressServer({ allow: [PUBLIC], deny: [], dns: [`127.0.0.1:${dns.port}`], doors });
  await egress.open(path, {});
});
after(() => {
  egress?.close(path);
  for (const one of [site, inner, dns]) one?.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Sends this and reads until the other side ends or, with a pattern, until that is there. */
async function say(text: string, until?: RegExp, socket = connect(path)): Promise<string> {
  let answer = '';
  socket.setEncoding('latin1');
  socket.write(text.replaceAll('~', '\r\n'));
  for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<string>) {
    answer += chunk;
    if (until?.test(answer)) break;
  }
  if (!until) socket.destroy();
  return answer;
}

async function tunnel(target: string): Promise<Socket> {
  const socket = connect({ path, allowHalfOpen: true });
  assert.match(await say(`CONNECT ${target} HTTP/1.1~host: x~~`, /\r\n\r\n/, socket), /^HTTP\/1.1 200/);
  socket.setEncoding();
  return socket;
}

describe('a target', () => {
  const closed = (): string[] => [
    ...[
      '127.0.0.1',
      '127.1',
      '0x7f.1',
      '2130706433',
      '017700000001',
      '0.0.0.0',
      'a.inner',
      'a.inner.',
      'A.INNER',
      'a.machine',
    ],
    ...['[::1]', '[::]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[0:0:0:0:0:ffff:127.0.0.1]', '[64:ff9b::7f00:1]'],
    ...['127。0。0。1', '%31%32%37.0.0.1', '127.0.0.1.'],
  ];

  it('that is closed is closed in every form of address, to CONNECT and to plain requests', LIMIT, async () => {
    for (const host of closed()) {
      const sent = Buffer.from(host).toString('latin1');
      const asked = await say(`CONNECT ${sent}:${site.port} HTTP/1.1~host: x~~`);
      assert.match(asked, /^HTTP\/1.1 (403|400)/, `CONNECT ${host}: ${asked}`);
      const got = await say(`GET http://${sent}:${site.port}/ HTTP/1.1~host: x~connection: close~~`);
      assert.match(got, /^HTTP\/1.1 (403|400)/, `GET ${host}: ${got}`);
    }
    assert.deepEqual(inner.heard, []);
  });

  it('is what a URL says, whatever stands around it or in other headers', LIMIT, async () => {
    const port = site.port;
    const forms: [string, RegExp][] = [
      [`http://${PUBLIC}@127.0.0.1:${port}/`, /^HTTP\/1.1 403/],
      [`http://a.public:80@127.0.0.1:${port}/`, /^HTTP\/1.1 403/],
      [`http://127.0.0.1:${port}\\@a.public/`, /^HTTP\/1.1 40[03]/],
      [`http://127.0.0.1:${port}#@a.public/`, /^HTTP\/1.1 40[03]/],
      [`http:127.0.0.1:${port}/`, /^HTTP\/1.1 (403|400)/],
      [`HTTP://127.0.0.1:${port}/`, /^HTTP\/1.1 403/],
      [`https://a.public:${port}/`, /^HTTP\/1.1 400/],
      [`ftp://a.public:${port}/`, /^HTTP\/1.1 400/],
      ['/', /^HTTP\/1.1 400/],
      ['*', /^HTTP\/1.1 400/],
      ['http://', /^HTTP\/1.1 400/],
      [`http://a.public:${port}/x`, /^HTTP\/1.1 200 [\s\S]*public \/x/],
    ];
    for (const [url, answer] of forms) {
      const got = await say(
        `GET ${url} HTTP/1.1~host: 127.0.0.1:${port}~x-forwarded-host: 127.0.0.1~connection: close~~`,
      );
      assert.match(got, answer, url);
    }
    assert.deepEqual(inner.heard, []);
  });

  it('of CONNECT is a host and a port, and nothing else', LIMIT, async () => {
    const { port } = site;
    for (const target of [
      'a.public',
      ':80',
      'a.public:',
      `a.public:${port}/`,
      `u@a.public:${port}`,
      `a.public:${port}:1`,
      'a.public:0',
      'a.public:65536',
      'a.public:99999',
      '[::1]',
      '[a]:1',
      `http://a.public:${port}`,
      `a.public:${port}?x`,
    ]) {
      assert.match(await say(`CONNECT ${target} HTTP/1.1~host: x~~`), /^HTTP\/1.1 400/, target);
    }
    assert.match(await say('CONNECT berth.public:1 HTTP/1.1~host: x~~'), /403 [\s\S]*Berth's own/);
    assert.match(await say('CONNECT nowhere.public:1 HTTP/1.1~host: x~~'), /^HTTP\/1.1 502 [\s\S]*was not found/);
    assert.match(await say(`CONNECT ${PUBLIC}:9 HTTP/1.1~host: x~~`), /^HTTP\/1.1 502 [\s\S]*ECONNREFUSED/);
  });

  it('is looked at for each request of a connection', LIMIT, async () => {
    const get = (host: string, more = ''): string => `GET http://${host}:${site.port}/p HTTP/1.1~host: x~${more}~`;
    const got = await say(get('a.public') + get('127.0.0.1') + get('a.public', 'connection: close~'));
    assert.deepEqual(
      [...got.matchAll(/HTTP\/1.1 (\d+)/g)].map(([, status]) => status),
      ['200', '403', '200'],
    );
    assert.deepEqual(inner.heard, []);
  });

  it('is not told apart from another by a request that hides in the body of one', LIMIT, async () => {
    const hidden = `GET http://127.0.0.1:${site.port}/hidden HTTP/1.1~host: x~~`;
    const bodies = [
      `content-length: ${hidden.replaceAll('~', '\r\n').length}~transfer-encoding: chunked~~0~~${hidden}`,
      `content-length: 0~content-length: 5~~${hidden}`,
      `transfer-encoding: xchunked~~${hidden}`,
    ];
    for (const body of bodies) {
      const got = await say(`POST http://a.public:${site.port}/ HTTP/1.1~host: x~connection: close~${body}`);
      assert.match(got, /^HTTP\/1.1 (400|403|501)/, got);
    }
    assert.deepEqual(inner.heard, []);
    assert.ok(!seen.some(({ url }) => url.includes('hidden')));
  });
});

describe('what goes through', () => {
  it('uses connections again, but not for what must not come twice, and tells nobody of the proxy', LIMIT, async () => {
    seen.length = 0;
    for (const method of ['GET', 'GET', 'POST', 'POST']) {
      await say(
        `${method} http://a.public:${site.port}/ HTTP/1.1~host: x~proxy-connection: keep-alive~content-length: 0~connection: close~~`,
      );
    }
    const [first, second, third, fourth] = seen.map(({ connection }) => connection);
    assert.equal(first, second);
    assert.equal(new Set([first, third, fourth]).size, 3);
    for (const { headers } of seen)
      assert.deepEqual(
        Object.keys(headers).filter((name) => /proxy|via|forwarded/.test(name)),
        [],
      );
  });

  it('may take longer than an idle connection is kept', LIMIT, async () => {
    const got = await say(`GET http://a.public:${site.port}/slow HTTP/1.1~host: x~connection: close~~`);
    assert.match(got, /200 OK[\s\S]*slow/);
  });

  it('is every byte, both ways, under back-pressure, also behind the end of the other side', LIMIT, async () => {
    const echo = createServer({ allowHalfOpen: true }, (socket) => {
      let size = 0;
      socket.on('data', (chunk) => {
        size += chunk.length;
      });
      socket.on('end', () => {
        socket.write(`${size};`);
        socket.end(Buffer.alloc(32 * MIB, 'x'));
      });
    });
    await new Promise<void>((listening) => echo.listen(0, PUBLIC, listening));
    const socket = await tunnel(`a.public:${(echo.address() as AddressInfo).port}`);
    socket.end(Buffer.alloc(32 * MIB, 'y'));
    let got = '';
    for await (const chunk of socket) {
      got += chunk;
      if (got.length < 5 * MIB) await sleep(1);
    }
    assert.equal(got.length, 32 * MIB + `${32 * MIB};`.length);
    assert.ok(got.startsWith(`${32 * MIB};`));
    echo.close();
  });

  it('ends when either side goes, without an error for others', LIMIT, async () => {
    const target = createServer((socket) => socket.on('error', () => {}));
    const arrived = async (): Promise<Socket> => (await once(target, 'connection'))[0];
    await new Promise<void>((listening) => target.listen(0, PUBLIC, listening));
    const { port } = target.address() as AddressInfo;
    const [first, there] = await Promise.all([tunnel(`a.public:${port}`), arrived()]);
    there.resetAndDestroy();
    first.resume().on('error', () => {});
    await once(first, 'end');
    first.destroy();
    const [second, other] = await Promise.all([tunnel(`a.public:${port}`), arrived()]);
    other.resume();
    second.destroy();
    await once(other, 'close');
    target.close();
  });

  it('ends when the rules change, and goes by the new ones', LIMIT, async () => {
    const open = await tunnel(`a.public:${site.port}`);
    await egress.open(path, { deny: ['a.public'] });
    open.resume();
    await once(open, 'end');
    open.destroy();
    assert.match(await say(`CONNECT a.public:${site.port} HTTP/1.1~host: x~~`), /403 [\s\S]*egress\.deny/);
    await egress.open(path, {});
    assert.equal((await tunnel(`a.public:${site.port}`)).destroyed, false);
  });

  it('is counted', LIMIT, async () => {
    egress.counts();
    await say(`CONNECT 127.0.0.1:${site.port} HTTP/1.1~host: x~~`);
    await sleep(50);
    const { denied, sent, received } = egress.counts();
    assert.deepEqual(denied, { berth: 0, private: 1, operator: 0, deny: 0, allow: 0 });
    assert.ok(sent > 10 && received > 10);
    assert.equal(egress.counts().sent, 0);
  });
});
