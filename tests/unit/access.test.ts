import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { Access, type AccessOptions, assertMayChange, sees } from '../../src/core/access.ts';
import { AppError } from '../../src/core/errors.ts';
import { KeyRing, parseKey, parseKeysFile } from '../../src/core/keys.ts';
import { noTickets, openAccess } from './doors.ts';

const KEY = 'key-of-tenant-a-000000';
const ENTRIES = [`a:${KEY}`, 'ops:key-of-operators-00000:admin', 'a:key-of-a-viewer-000000:viewer'];
const master = randomBytes(32);

function from(
  headers: Record<string, string> = {},
  query = '',
  method = 'GET',
): { headers: Record<string, string>; query: URLSearchParams; method: string } {
  return { headers, query: new URLSearchParams(query), method };
}

function refused(name: string, why = /./): (err: unknown) => boolean {
  return (err) => err instanceof AppError && err.errorName === name && why.test(err.message);
}

function accessWith(entries: readonly string[], more: Partial<AccessOptions> = {}): Access {
  return new Access({ keys: new KeyRing(entries.map(parseKey)), masterKey: master, tickets: noTickets, ...more });
}

describe('Access with keys', () => {
  const access = accessWith(ENTRIES);
  const key = KEY;
  const { id } = parseKey(ENTRIES[0] as string);
  const forms: [string, ReturnType<typeof from>][] = [
    ['Authorization: Bearer', from({ authorization: `Bearer ${key}` })],
    [
      'Authorization: Basic token:key',
      from({ authorization: `Basic ${Buffer.from(`token:${key}`).toString('base64')}` }),
    ],
    ['Authorization: Basic key:', from({ authorization: `Basic ${Buffer.from(`${key}:`).toString('base64')}` })],
    ['X-API-Key', from({ 'x-api-key': key })],
    ['Agentrun-Access-Token', from({ 'agentrun-access-token': key })],
    ['?token=', from({}, `token=${key}`)],
    ['?api_key=', from({}, `api_key=${key}`)],
    ['?apiKey=', from({}, `apiKey=${key}`)],
  ];
  for (const [name, credentials] of forms) {
    it(`knows a key in ${name}`, () => {
      assert.deepEqual(access.authenticate(credentials), { tenant: 'a', role: 'user', keyId: id });
    });
  }

  it('refuses no key and a wrong key', () => {
    assert.throws(() => access.authenticate(from()), refused('UNAUTHORIZED'));
    assert.throws(() => access.authenticate(from({ 'x-api-key': `${key}x` })), refused('UNAUTHORIZED'));
    assert.throws(() => access.authenticate(from({ 'x-api-key': '' })), refused('UNAUTHORIZED'));
  });

  it("takes a tenantId that is the key's own, and any from an admin", () => {
    const asked = (key: string, tenantId: string) =>
      access.authenticate(from({ 'x-api-key': key }, `tenantId=${tenantId}`));
    assert.equal(asked(KEY, 'a').tenant, 'a');
    assert.throws(() => asked(KEY, 'b'), refused('FORBIDDEN', /tenantId/));
    assert.throws(() => asked(KEY, ''), refused('FORBIDDEN', /tenantId/));
    assert.equal(asked('key-of-operators-00000', 'b').tenant, 'ops');
  });

  it('knows a key by its digest', () => {
    const digest = createHash('sha256').update('another-key-of-a-00000').digest('hex');
    const hashed = accessWith([`a:sha256=${digest}:viewer`]);
    assert.equal(hashed.authenticate(from({ 'x-api-key': 'another-key-of-a-00000' })).role, 'viewer');
    for (const wrong of [digest, `sha256=${digest}`]) {
      assert.throws(() => hashed.authenticate(from({ 'x-api-key': wrong })), refused('UNAUTHORIZED'), wrong);
    }
  });

  it('does not look at Host or Origin: whoever has a key may come from anywhere', () => {
    const headers = { 'x-api-key': key, host: 'berth.example.com', origin: 'https://elsewhere.example' };
    assert.equal(access.authenticate(from(headers)).tenant, 'a');
  });
});

describe('a session', () => {
  const access = accessWith(ENTRIES);
  const principal = access.authenticate(from({ 'x-api-key': KEY }));
  const cookie = `x=1; berth_session=${access.session(principal)?.value}; y=2`;
  const host = 'berth.example.com:3000';

  it('counts as its key for a page of ours, and not elsewhere', () => {
    const own = { cookie, host, 'sec-fetch-site': 'same-origin' };
    assert.deepEqual(access.authenticate(from(own)), principal);
    assert.deepEqual(access.authenticate(from({ cookie, host, 'sec-fetch-site': 'none' })), principal);
    assert.deepEqual(access.authenticate(from({ ...own, origin: `https://${host}` }, '', 'POST')), principal);
    for (const site of ['same-site', 'cross-site']) {
      assert.throws(() => access.authenticate(from({ cookie, host, 'sec-fetch-site': site })), refused('FORBIDDEN'));
    }
    // Another port is the same site: SameSite=Strict lets its cookie through.
    const other = { cookie, host, origin: 'http://berth.example.com:8080' };
    assert.throws(() => access.authenticate(from(other)), refused('FORBIDDEN'));
    assert.throws(() => access.authenticate(from(own, '', 'POST')), refused('FORBIDDEN'));
    assert.throws(() => access.authenticate(from({ ...own, upgrade: 'websocket' })), refused('FORBIDDEN'));
    assert.throws(() => access.authenticate(from({ ...own, origin: 'null' }, '', 'DELETE')), refused('FORBIDDEN'));
  });

  it('counts for the public address, whatever a proxy makes of Host', () => {
    const behind = accessWith(ENTRIES, { publicOrigin: 'https://berth.example.com' });
    const headers = { cookie, host: '10.0.0.7:3000', origin: 'https://berth.example.com' };
    assert.deepEqual(behind.authenticate(from(headers, '', 'POST')), principal);
  });

  it('ends with its time, with its key, and when a part of it is changed', () => {
    let now = Date.now();
    const keys = new KeyRing([]);
    keys.setFiled(ENTRIES.map(parseKey));
    const clocked = accessWith([], { keys, now: () => now });
    assert.equal(clocked.authenticate(from({ cookie, host })).tenant, 'a');
    now += 13 * 3600 * 1000;
    assert.throws(() => clocked.authenticate(from({ cookie, host })), refused('UNAUTHORIZED'));
    now -= 13 * 3600 * 1000;
    const [id = '', expires = '', signature = ''] = access.session(principal)?.value.split('.') ?? [];
    for (const bad of [
      `${id}.${Number(expires) + 1}.${signature}`,
      `${parseKey(ENTRIES[1] as string).id}.${expires}.${signature}`,
      `${id}.${expires}.`,
      `${id}.${expires}`,
      id,
      '',
    ]) {
      const changed = from({ cookie: `berth_session=${bad}`, host });
      assert.throws(() => clocked.authenticate(changed), refused('UNAUTHORIZED'), bad);
    }
    keys.setFiled(ENTRIES.slice(1).map(parseKey));
    assert.throws(() => clocked.authenticate(from({ cookie, host })), refused('UNAUTHORIZED'));
  });
});

describe('a ring of keys', () => {
  it('opens the door to nobody when the last key is taken away', () => {
    const keys = new KeyRing([]);
    const access = accessWith([], { keys });
    assert.equal(access.authenticate(from({ host: 'localhost' })).role, 'admin');
    keys.setFiled([parseKey(ENTRIES[0] as string)]);
    assert.throws(() => access.authenticate(from({ host: 'localhost' })), refused('UNAUTHORIZED'));
    keys.setFiled([]);
    assert.throws(() => access.authenticate(from({ host: 'localhost' })), refused('UNAUTHORIZED'));
    assert.throws(() => access.authenticate(from({ 'x-api-key': KEY, host: 'localhost' })), refused('UNAUTHORIZED'));
  });

  it('looks at every key, wherever the right one stands, so that the time taken tells nothing of it', () => {
    const looks: number[] = [];
    const keys = ENTRIES.map(parseKey).map((key, index) => ({
      ...key,
      get digest() {
        looks.push(index);
        return key.digest;
      },
    }));
    const ring = new KeyRing(keys.slice(0, 2));
    ring.setFiled(keys.slice(2));
    for (const key of [KEY, 'key-of-operators-00000', 'key-of-a-viewer-000000', 'key-of-nobody-at-all-0']) {
      looks.length = 0;
      ring.find(createHash('sha256').update(key).digest());
      assert.deepEqual(looks, [0, 1, 2]);
    }
  });

  it('reads a file of one entry a line', () => {
    const keys = parseKeysFile(`# ours\n\n  a:${KEY}  # laptop\n${ENTRIES[1]}\n`);
    assert.deepEqual(
      keys.map(({ tenant, role }) => `${tenant} ${role}`),
      ['a user', 'ops admin'],
    );
    assert.deepEqual(parseKeysFile('\n# none\n'), []);
  });

  it('says which line of a file is wrong, and nothing that is in it', () => {
    const bad = ['a', `a:${KEY}:boss`, 'a:short', `a:${KEY}`, `a b:${KEY}`, 'a:sha256=abcd', `a:${KEY}:user:x`];
    for (const line of bad) {
      const failure = (): unknown => parseKeysFile(`# first\na:${KEY}\n${line}\n`);
      assert.throws(failure, (err: Error) => /^has in line 3 /.test(err.message) && !err.message.includes(KEY), line);
    }
  });
});

describe('Access without keys', () => {
  const open = openAccess();

  for (const host of [
    'localhost:3000',
    '127.0.0.1:3000',
    '127.1.2.3',
    '[::1]:3000',
    'LOCALHOST',
    'berth.localhost:3000',
  ]) {
    it(`answers to ${host}`, () => {
      assert.equal(open.authenticate(from({ host })).role, 'admin');
    });
  }

  for (const host of [
    'evil.example:3000',
    '127.0.0.1.evil.example',
    '192.168.1.5:3000',
    'localhost.evil.example',
    '',
    '0.0.0.0:3000',
  ]) {
    it(`does not answer to ${host || 'no name'} (DNS rebinding)`, () => {
      assert.throws(() => open.authenticate(from({ host })), refused('FORBIDDEN'));
    });
  }

  it('answers to pages of this machine but not to foreign ones (cross-site WebSocket)', () => {
    const host = 'localhost:3000';
    open.authenticate(from({ host, origin: 'http://localhost:8184' }));
    for (const origin of ['https://evil.example', 'null', 'http://127.0.0.1.evil.example', 'file://']) {
      assert.throws(() => open.authenticate(from({ host, origin })), refused('FORBIDDEN'), origin);
    }
  });

  it('gives foreign pages nothing to embed, though those name no origin', () => {
    const page = { host: 'localhost:3000', 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' };
    assert.throws(() => open.authenticate(from(page)), refused('FORBIDDEN'));
    open.authenticate(from({ ...page, 'sec-fetch-site': 'same-site' }));
    open.authenticate(from({ ...page, 'sec-fetch-mode': 'navigate' }));
    open.authenticate(from({ ...page, origin: 'http://127.0.0.1:8184' }));
  });

  it('hands out no tickets, since none are needed', () => {
    assert.equal(open.session(open.authenticate(from({ host: 'localhost' }))), undefined);
  });
});

describe('roles', () => {
  it('show a tenant its own and an admin everything', () => {
    assert.equal(sees({ tenant: 'a', role: 'user' }, 'a'), true);
    assert.equal(sees({ tenant: 'a', role: 'user' }, 'b'), false);
    assert.equal(sees({ tenant: 'a', role: 'admin' }, 'b'), true);
  });

  it('let viewers change nothing', () => {
    assert.throws(() => assertMayChange({ tenant: 'a', role: 'viewer' }), refused('FORBIDDEN'));
    assertMayChange({ tenant: 'a', role: 'user' });
  });
});
