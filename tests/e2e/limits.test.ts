import assert from 'node:assert/strict';
import { type IncomingMessage, request } from 'node:http';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { LIMIT, type Service, startService, withService } from './service.ts';
import { openSocket } from './sockets.ts';

const KEY = 'key-of-the-limits-tests';
const OTHER = 'other-key-of-the-limits-tests';

interface Answer {
  readonly status: number | undefined;
  readonly retryAfter: number;
  readonly body: { readonly code?: number; readonly message?: string; readonly data?: Record<string, unknown> };
}

interface Ask {
  readonly key?: string;
  /** Said by a trusted proxy. */
  readonly from?: string;
  readonly method?: string;
  readonly upgrade?: boolean;
  readonly body?: string;
}

function ask(
  { url }: Service,
  path: string,
  { key, from, method = 'GET', upgrade = false, body }: Ask = {},
): Promise<Answer> {
  const headers = {
    ...(key === undefined ? {} : { 'x-api-key': key }),
    ...(from === undefined ? {} : { 'x-forwarded-for': from }),
    ...(upgrade ? UPGRADE : {}),
    ...(body === undefined ? {} : { 'content-type': 'application/json' }),
  };
  return new Promise((resolve, reject) => {
    const req = request(url + path, { method, headers, agent: false }, (res: IncomingMessage) => {
      let text = '';
      res.on('data', (chunk) => (text += chunk));
      res.once('end', () => {
        const retryAfter = Number(res.headers['retry-after']);
        resolve({ status: res.statusCode, retryAfter, body: text === '' ? {} : JSON.parse(text) });
      });
    });
    req.once('upgrade', (_res, socket) => {
      socket.destroy();
      reject(new Error(`${path} was upgraded`));
    });
    req.once('error', reject);
    req.end(body);
  });
}

const UPGRADE = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
};

function assertTooMany({ status, retryAfter, body }: Answer, code: number, setting: string): void {
  assert.equal(status, 429, JSON.stringify(body));
  assert.equal(body.code, code);
  assert.ok(retryAfter >= 1, `Retry-After: ${retryAfter}`);
  assert.match(body.message ?? '', new RegExp(`\\(${setting}\\)`));
}

/** Repeats what is answered with `status` until it is too much; not before `limit` times, and soon afterwards, since some time passes. */
async function untilTooMany(limit: number, status: number, call: (i: number) => Promise<Answer>): Promise<Answer> {
  for (let i = 0; ; i++) {
    const answer = await call(i);
    if (answer.status === 429 && i >= limit) return answer;
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    assert.ok(i < 3 * limit, 'too many were let in');
  }
}

describe('Limits', () => {
  let service: Service;
  before(async () => {
    service = await startService({
      env: {
        BERTH_API_KEYS: `a:${KEY},b:${OTHER}`,
        BERTH_TRUSTED_PROXIES: '127.0.0.1',
        BERTH_TENANT_SANDBOXES: '1',
        BERTH_TENANT_CREATES_PER_MINUTE: '4',
        BERTH_TENANT_TICKETS_PER_MINUTE: '3',
        BERTH_SANDBOX_CLIENTS: '2',
        BERTH_ADDRESS_FAILURES_PER_MINUTE: '3',
        BERTH_ADDRESS_REQUESTS_PER_MINUTE: '50',
        BERTH_ADDRESS_UPGRADES_PER_MINUTE: '10',
      },
    });
  });
  after(() => service.end());

  it(
    'of wrong keys hold on HTTP and on WebSockets together, for the address that a trusted proxy names',
    LIMIT,
    async () => {
      const wrong = { key: 'wrong-key-of-somebody', from: '198.51.100.1' };
      const tries = [
        () => ask(service, '/sandboxes', wrong),
        () => ask(service, '/sandboxes/x/ws/automation', { ...wrong, upgrade: true }),
        () => ask(service, '/sandboxes/x/live?ticket=a.b', { from: wrong.from }),
      ];
      await untilTooMany(3, 401, (i) => (tries[i % 3] as () => Promise<Answer>)());
      for (const right of [wrong.key, KEY]) {
        const from = wrong.from;
        assertTooMany(
          await ask(service, '/sandboxes', { key: right, from }),
          1009,
          'BERTH_ADDRESS_FAILURES_PER_MINUTE',
        );
        const upgrade = await ask(service, '/sandboxes/x/ws/automation', { key: right, from, upgrade: true });
        assertTooMany(upgrade, 1009, 'BERTH_ADDRESS_FAILURES_PER_MINUTE');
      }
      assert.equal((await ask(service, '/health', { from: wrong.from })).status, 200, 'what takes no key');
      assert.equal((await ask(service, '/sandboxes', { key: KEY, from: '198.51.100.2' })).status, 200);
    },
  );

  it('of requests and of WebSockets hold for each address', LIMIT, async () => {
    const from = '2001:db8::1';
    // All of one /64.
    const health = (i: number) => ask(service, '/health', { from: i % 2 ? from : '2001:db8::2:3' });
    const last = await untilTooMany(50, 200, health);
    assertTooMany(last, 1009, 'BERTH_ADDRESS_REQUESTS_PER_MINUTE');
    assert.equal((await ask(service, '/health', { from: '2001:db8:0:1::1' })).status, 200);
    const wanted = { key: KEY, from, upgrade: true };
    const more = await untilTooMany(10, 404, () => ask(service, '/sandboxes/x/ws/automation', wanted));
    assertTooMany(more, 1009, 'BERTH_ADDRESS_UPGRADES_PER_MINUTE');
  });

  it('of sandboxes, creates, tickets and clients hold for each tenant and sandbox', LIMIT, async () => {
    const post = { method: 'POST', key: KEY };
    const made = await ask(service, '/sandboxes', post);
    assert.equal(made.status, 201, JSON.stringify(made.body));
    const { sandboxId, cdpUrl, vncUrl } = made.body.data as Record<string, string>;
    assertTooMany(await ask(service, '/sandboxes', post), 2006, 'BERTH_TENANT_SANDBOXES');
    let refused = await ask(service, '/sandboxes', post);
    for (let i = 0; i < 10 && refused.body.code === 2006; i++) refused = await ask(service, '/sandboxes', post);
    assertTooMany(refused, 1009, 'BERTH_TENANT_CREATES_PER_MINUTE');

    const ticket = { ...post, body: '{"role":"view"}' };
    for (let i = 0; i < 3; i++)
      assert.equal((await ask(service, `/sandboxes/${sandboxId}/tickets`, ticket)).status, 201);
    const fourth = await ask(service, `/sandboxes/${sandboxId}/tickets`, ticket);
    assertTooMany(fourth, 1009, 'BERTH_TENANT_TICKETS_PER_MINUTE');

    const [client, viewer] = [await openSocket(cdpUrl as string), await openSocket(vncUrl as string)];
    const third = await ask(service, `/sandboxes/${sandboxId}/ws/automation`, { key: KEY, upgrade: true });
    assertTooMany(third, 2009, 'BERTH_SANDBOX_CLIENTS');
    viewer.terminate();
    for (let left = 100; ; left--) {
      const next = await openSocket(cdpUrl as string).catch(() => undefined);
      next?.terminate();
      if (next) break;
      assert.ok(left > 0, 'the place of the viewer that has gone');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    client.terminate();
    await ask(service, `/sandboxes/${sandboxId}`, { method: 'DELETE', key: KEY });
    const others = await ask(service, '/sandboxes?wait=false', { method: 'POST', key: OTHER });
    assert.equal(others.status, 202, JSON.stringify(others.body));
  });

  it('of connections end what is over them at once, and proxies that are trusted have none', LIMIT, async () => {
    const opened = async (url: string): Promise<number> => {
      let closed = 0;
      const sockets = Array.from({ length: 30 }, () => {
        const socket = connect(Number(new URL(url).port), '127.0.0.1');
        socket.on('error', () => {});
        socket.on('close', () => closed++);
        return socket.resume();
      });
      await new Promise((resolve) => setTimeout(resolve, 1000));
      for (const socket of sockets) socket.destroy();
      return 30 - closed;
    };
    const BERTH_ADDRESS_CONNECTIONS = '10';
    await withService({ env: { BERTH_ADDRESS_CONNECTIONS } }, async ({ url }) => assert.equal(await opened(url), 10));
    const env = { BERTH_ADDRESS_CONNECTIONS, BERTH_API_KEYS: `a:${KEY}`, BERTH_TRUSTED_PROXIES: '127.0.0.0/8' };
    await withService({ env }, async ({ url }) => assert.equal(await opened(url), 30));
  });

  it('of headers are the same in one piece and in many', LIMIT, async () => {
    await withService({}, async ({ url }) => {
      const { port, host } = new URL(url);
      const send = (size: number, piece: number): Promise<string> =>
        new Promise((resolve, reject) => {
          const text = `GET /health HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\nX-Long: ${'x'.repeat(size)}\r\n\r\n`;
          const socket = connect(Number(port), '127.0.0.1').setNoDelay();
          let answer = '';
          socket.on('data', (data) => (answer += data));
          socket.on('error', reject);
          socket.on('close', () => resolve(answer.split('\r\n', 1)[0] as string));
          let at = 0;
          const next = (): void => {
            if (!socket.writable || at >= text.length) return;
            socket.write(text.slice(at, at + piece));
            at += piece;
            setImmediate(next);
          };
          socket.on('connect', next);
        });
      for (const piece of [1400, 1_000_000]) {
        assert.match(await send(15_000, piece), / 200 /);
        assert.match(await send(17_000, piece), / 431 /);
      }
    });
  });
});
