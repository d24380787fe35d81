import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import puppeteer from 'puppeteer-core';
import { LIMIT, type Service, startService, UNLIMITED, waitFor, withService } from './service.ts';
import { openSocket, socketOf, upgrade } from './sockets.ts';

const KEYS = { a: 'key-a-4e07408562bedb', b: 'key-b-7902699be42c8a', ops: 'key-ops-2c624232cc5d' };

// biome-ignore lint/suspicious/noExplicitAny: whatever JSON the service answered
type Json = any;

/** Asks, and holds the status. */
async function ask(
  service: Service,
  status: number,
  method: string,
  path: string,
  given: { key?: string; body?: object; headers?: Record<string, string> } = {},
): Promise<Json> {
  const { key, body, headers = {} } = given;
  const answer = await fetch(`${service.url}${path}`, {
    method,
    headers: { ...(key === undefined ? {} : { 'x-api-key': key }), ...headers },
    ...(body ? { body: JSON.stringify(body) } : {}),
    signal: AbortSignal.timeout(LIMIT.timeout),
  });
  const text = await answer.text();
  assert.equal(answer.status, status, `${method} ${path}: ${text}`);
  return text === '' ? { headers: answer.headers } : { ...JSON.parse(text), headers: answer.headers };
}

describe('tickets', LIMIT, () => {
  let service: Service;
  before(async () => {
    service = await startService({ env: { BERTH_API_KEYS: `a:${KEYS.a},b:${KEYS.b},ops:${KEYS.ops}:admin` } });
    await ask(service, 201, 'POST', '/sandboxes', { key: KEYS.a, body: { sandboxId: 's1' } });
  });
  after(() => service.end());

  const make = async (body: object): Promise<Json> =>
    (await ask(service, 201, 'POST', '/sandboxes/s1/tickets', { key: KEYS.a, body })).data;

  it('open the WebSocket of their role and no other, and are refused before the 101 with a reason', async () => {
    const at = (path: string, ticket: string): string =>
      `${socketOf(service.url)}/sandboxes/s1/${path}?ticket=${ticket}`;
    const [automation, control, view] = await Promise.all(
      ['automation', 'control', 'view'].map((role) => make({ role })),
    );
    const paths: readonly (readonly [string, readonly string[]])[] = [
      ['ws/automation', ['automation']],
      ['devtools/page/ABC', ['automation']],
      ['ws/livestream', ['control', 'view']],
      ['ws/liveview', ['control', 'view']],
    ];
    for (const [path, roles] of paths) {
      for (const { role, ticket } of [automation, control, view]) {
        const status = await upgrade(at(path, ticket));
        // A page that does not exist: the ticket was good, the page was not.
        if (roles.includes(role))
          assert.ok(status === 101 || path.startsWith('devtools'), `${role} at ${path}: ${status}`);
        else assert.equal(status, 403, `${role} at ${path}`);
      }
    }
    for (const wrong of ['', 'x', `${control.ticket}x`, control.ticket.slice(0, -1), KEYS.a]) {
      assert.equal(await upgrade(at('ws/livestream', wrong)), 401, wrong);
    }
    const refusal = await fetch(`${service.url}/sandboxes/s1/live?ticket=${automation.ticket}`);
    assert.equal(refusal.status, 403);
    assert.match(((await refusal.json()) as Json).message, /is for automation, and this needs control or view/);
  });

  it('say where they lead: Puppeteer connects with the address, discovery hands on the same ticket', async () => {
    const { url, ticket } = await make({ role: 'automation', ttlSeconds: 60 });
    const browser = await puppeteer.connect({ browserWSEndpoint: url });
    assert.match(await browser.version(), /^Chrome\//);
    await browser.disconnect();
    const version = await ask(service, 200, 'GET', `/sandboxes/s1/json/version?ticket=${ticket}`);
    assert.equal(new URL(version.webSocketDebuggerUrl).searchParams.get('ticket'), ticket);
    const { liveViewUrl } = await make({ role: 'view' });
    assert.equal((await fetch(liveViewUrl)).status, 200);
  });

  it('for one use are used up by a WebSocket, and by nothing before it', async () => {
    const { url, ticket, ticketId } = await make({ role: 'automation', oneTime: true });
    await ask(service, 200, 'GET', `/sandboxes/s1/json/version?ticket=${ticket}`);
    const statuses = await Promise.all(Array.from({ length: 10 }, () => upgrade(url)));
    assert.deepEqual(statuses.sort(), [101, ...Array(9).fill(401)]);
    const { tickets } = (await ask(service, 200, 'GET', '/sandboxes/s1/tickets', { key: KEYS.a })).data;
    assert.equal(tickets.find((listed: Json) => listed.ticketId === ticketId).used, true);
  });

  it('end with their time', async () => {
    const { url } = await make({ role: 'automation', ttlSeconds: 1 });
    assert.equal(await upgrade(url), 101);
    await waitFor(async () => (await upgrade(url)) === 401, 'the ticket to expire');
  });

  it('that are revoked open nothing more, and end what they had opened', async () => {
    const [one, other] = await Promise.all([make({ role: 'automation' }), make({ role: 'control' })]);
    const sockets = await Promise.all([openSocket(one.url), openSocket(other.url, ['binary'])]);
    const ends = sockets.map(
      (socket) => new Promise<string>((resolve) => socket.once('close', (code, why) => resolve(`${code} ${why}`))),
    );
    await ask(service, 404, 'DELETE', `/sandboxes/s1/tickets/${one.ticketId}`, { key: KEYS.b });
    await ask(service, 204, 'DELETE', `/sandboxes/s1/tickets/${one.ticketId}`, { key: KEYS.a });
    assert.equal(await ends[0], '1008 the ticket was revoked');
    assert.equal(await upgrade(one.url), 401);
    assert.equal(await upgrade(other.url), 101);
    // Those in addresses that answers carried, too.
    const { cdpUrl } = (await ask(service, 200, 'GET', '/sandboxes/s1', { key: KEYS.a })).data;
    assert.equal(await upgrade(cdpUrl), 101);
    await ask(service, 204, 'DELETE', '/sandboxes/s1/tickets', { key: KEYS.a });
    assert.equal(await ends[1], '1008 the ticket was revoked');
    for (const url of [cdpUrl, other.url]) assert.equal(await upgrade(url), 401);
    const fresh = (await ask(service, 200, 'GET', '/sandboxes/s1', { key: KEYS.a })).data.cdpUrl;
    assert.equal(await upgrade(fresh), 101);
  });

  it('outlive a service that was killed, and so does their revocation and their use', async () => {
    const [good, revoked, used] = await Promise.all([
      make({ role: 'automation' }),
      make({ role: 'automation' }),
      make({ role: 'automation', oneTime: true }),
    ]);
    assert.equal(await upgrade(used.url), 101);
    await ask(service, 204, 'DELETE', `/sandboxes/s1/tickets/${revoked.ticketId}`, { key: KEYS.a });
    await service.kill();
    service = await startService({ on: service, env: { BERTH_API_KEYS: `a:${KEYS.a},ops:${KEYS.ops}:admin` } });
    const here = (url: string): string => `${socketOf(service.url)}${new URL(url).pathname}${new URL(url).search}`;
    assert.deepEqual(await Promise.all([good, revoked, used].map(({ url }) => upgrade(here(url)))), [101, 401, 401]);
  });

  it('and keys are in no log line, and the audit log has who came', async () => {
    const { ticket, url, ticketId } = await make({ role: 'automation' });
    assert.equal(await upgrade(url), 101);
    await ask(service, 401, 'GET', '/sandboxes?token=key-of-a-stranger-0000');
    const audit = (query: string, key = KEYS.ops): Promise<Json> =>
      ask(service, 200, 'GET', `/audit?${query}`, { key });
    const entries = (await audit('sandboxId=s1&limit=1000')).data.entries as Json[];
    const connect = entries.find((entry) => entry.action === 'client.connect');
    assert.deepEqual([connect.ticketId, connect.sandboxId], [ticketId, 's1']);
    assert.match(connect.address, /127\.0\.0\.1$/);
    const created = entries.find((entry) => entry.action === 'sandbox.create');
    assert.equal(created.tenant, 'a');
    assert.equal(created.keyId, createHash('sha256').update(KEYS.a).digest('hex').slice(0, 12));
    const refusals = (await audit('action=access.refused')).data.entries as Json[];
    assert.ok(
      refusals.some((entry) => entry.detail.to === 'GET /sandboxes'),
      'a stranger is on record',
    );
    await ask(service, 403, 'GET', '/audit', { key: KEYS.a });
    const written = readdirSync(service.dataDir).filter((name) => /\.jsonl?$/.test(name));
    const texts = [service.log(), ...written.map((name) => readFileSync(join(service.dataDir, name), 'utf8'))];
    assert.ok(written.includes('audit.jsonl') && written.includes('tickets.jsonl'));
    for (const secret of [...Object.values(KEYS), 'key-of-a-stranger-0000', ticket, ticket.split('.')[1]]) {
      for (const text of texts) assert.ok(!text.includes(secret), 'a secret was written down');
    }
  });
});

describe('the keys file', LIMIT, () => {
  const folder = mkdtempSync(join(tmpdir(), 'bt-keys-'));
  after(() => rmSync(folder, { recursive: true, force: true }));
  const digest = (key: string): string => `sha256=${createHash('sha256').update(key).digest('hex')}`;
  const status = async (service: Service, key?: string): Promise<number> =>
    (await fetch(`${service.url}/sandboxes`, { headers: key === undefined ? {} : { 'x-api-key': key } })).status;

  it('is read again when it changes: keys come and go without a restart', async () => {
    const file = join(folder, 'keys');
    writeFileSync(file, `a:${digest(KEYS.a)}:user # laptop\n`);
    await withService(
      { env: { ...UNLIMITED, BERTH_API_KEYS_FILE: file, BERTH_API_KEYS: `ops:${KEYS.ops}:admin` } },
      async (service) => {
        assert.deepEqual(
          await Promise.all([KEYS.a, KEYS.b, KEYS.ops].map((key) => status(service, key))),
          [200, 401, 200],
        );
        writeFileSync(file, `b:${digest(KEYS.b)}\n`);
        await waitFor(async () => (await status(service, KEYS.b)) === 200, 'the new key to count');
        assert.equal(await status(service, KEYS.a), 401);
        writeFileSync(file, `b:${digest(KEYS.b)}\nno key at all\n`);
        await waitFor(() => service.log().includes('stay as they were'), 'the file to be refused');
        assert.equal(await status(service, KEYS.b), 200);
        rmSync(file);
        await waitFor(async () => (await status(service, KEYS.b)) === 401, 'the key to go with its file');
        assert.equal(await status(service), 401);
      },
    );
  });

  it('closes the door of an open service for good', async () => {
    await withService({}, async (service) => {
      assert.equal(await status(service), 200);
      writeFileSync(join(service.dataDir, 'keys'), `a:${digest(KEYS.a)}\n`);
      await waitFor(async () => (await status(service)) === 401, 'the door to close');
      assert.equal(await status(service, KEYS.a), 200);
      rmSync(join(service.dataDir, 'keys'));
      await waitFor(async () => (await status(service, KEYS.a)) === 401, 'the key to go');
      assert.equal(await status(service), 401, 'nobody is let in by taking keys away');
    });
  });

  it('that is wrong stops the start with its line', async () => {
    const file = join(folder, 'wrong');
    writeFileSync(file, `a:${digest(KEYS.a)}\na:${KEYS.b}:chief\n`);
    const failure = startService({ env: { BERTH_API_KEYS_FILE: file } });
    await assert.rejects(failure, (err: Error) => {
      return err.message.includes(`The keys file ${file} has in line 2 a role`) && !err.message.includes(KEYS.b);
    });
  });
});

describe('the master key', LIMIT, () => {
  it('of the settings is written nowhere, and another one than before stops the start', async () => {
    const hex = randomBytes(32).toString('hex');
    const first = await startService({ env: { BERTH_MASTER_KEY: hex } });
    try {
      assert.ok(!existsSync(join(first.dataDir, 'master.key')));
      await first.kill();
      for (const env of [{ BERTH_MASTER_KEY: randomBytes(32).toString('base64') }, {}]) {
        await assert.rejects(startService({ on: first, env }), /The master key is not the one/);
      }
      const again = await startService({ on: first, env: { BERTH_MASTER_KEY: hex } });
      for (const entry of readdirSync(first.dataDir, { withFileTypes: true })) {
        if (!entry.isFile()) continue;
        const bytes = readFileSync(join(first.dataDir, entry.name));
        assert.ok(!bytes.includes(hex) && !bytes.includes(Buffer.from(hex, 'hex')), entry.name);
      }
      await again.stop();
    } finally {
      await first.clean();
    }
  });
});

describe('a browser that signs in', LIMIT, () => {
  let service: Service;
  before(async () => {
    service = await startService({ env: { BERTH_API_KEYS: `a:${KEYS.a}` } });
  });
  after(() => service.end());

  it('is known by a cookie that scripts cannot read, for requests and WebSockets of its own origin', async () => {
    await ask(service, 401, 'GET', '/session');
    await ask(service, 401, 'POST', '/session', { key: 'key-of-a-stranger-0000' });
    const { headers, data } = await ask(service, 200, 'POST', '/session', { key: KEYS.a });
    assert.deepEqual([data.tenant, data.role, data.open], ['a', 'user', false]);
    const set: string = headers.get('set-cookie');
    assert.match(set, /^berth_session=[^;]+; Path=\/; Expires=[^;]+; HttpOnly; SameSite=Strict$/);
    assert.ok(!set.includes(KEYS.a));
    const cookie = set.split(';', 1)[0] as string;
    assert.equal((await ask(service, 200, 'GET', '/session', { headers: { cookie } })).data.tenant, 'a');
    const origin = service.url;
    const body = { sandboxId: 'mine' };
    await ask(service, 403, 'POST', '/sandboxes', { headers: { cookie }, body });
    await ask(service, 403, 'POST', '/sandboxes', { headers: { cookie, origin: 'http://127.0.0.1:1' }, body });
    await ask(service, 201, 'POST', '/sandboxes', { headers: { cookie, origin }, body });
    const socket = `${socketOf(service.url)}/sandboxes/mine/ws/automation`;
    assert.equal(await upgrade(socket, { cookie, origin }), 101);
    assert.equal(await upgrade(socket, { cookie }), 403);
    assert.equal(await upgrade(socket, { cookie, origin: 'http://127.0.0.1:1' }), 403);
    assert.equal(await upgrade(socket, { cookie, origin, 'sec-fetch-site': 'same-site' }), 403);
    const out = await ask(service, 204, 'DELETE', '/session', { headers: { cookie, origin } });
    assert.match(out.headers.get('set-cookie'), /^berth_session=; Path=\/; Expires=Thu, 01 Jan 1970/);
  });
});
