import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { Access, assertMayChange, sees } from '../../src/core/access.ts';
import { AppError } from '../../src/core/errors.ts';

const KEYS = [
  { tenant: 'a', key: 'key-of-tenant-a-000000', role: 'user' },
  { tenant: 'ops', key: 'key-of-operators-00000', role: 'admin' },
] as const;
const master = randomBytes(32);

function from(
  headers: Record<string, string> = {},
  query = '',
): { headers: Record<string, string>; query: URLSearchParams } {
  return { headers, query: new URLSearchParams(query) };
}

function refused(name: string): (err: unknown) => boolean {
  return (err) => err instanceof AppError && err.errorName === name;
}

describe('Access with keys', () => {
  const access = new Access(KEYS, master);
  const key = KEYS[0].key;
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
      assert.deepEqual(access.authenticate(credentials), { tenant: 'a', role: 'user' });
    });
  }

  it('refuses no key and a wrong key', () => {
    assert.throws(() => access.authenticate(from()), refused('UNAUTHORIZED'));
    assert.throws(() => access.authenticate(from({ 'x-api-key': `${key}x` })), refused('UNAUTHORIZED'));
    assert.throws(() => access.authenticate(from({ 'x-api-key': '' })), refused('UNAUTHORIZED'));
  });

  it('lets a ticket in for its sandbox and role alone', () => {
    const ticket = access.ticket('s1', 'automation', Date.now() + 1000);
    assert.equal(access.authenticateFor(from({}, `ticket=${ticket}`), 's1', 'automation'), undefined);
    assert.throws(() => access.authenticateFor(from({}, `ticket=${ticket}`), 's2', 'automation'), refused('FORBIDDEN'));
    assert.throws(() => access.authenticateFor(from({}, `ticket=${ticket}`), 's1', 'control'), refused('FORBIDDEN'));
  });

  it('refuses a ticket that expired, was changed, or was signed by another service', () => {
    let now = 1000;
    const clocked = new Access(KEYS, master, () => now);
    const ticket = clocked.ticket('s1', 'control', 2000) as string;
    now = 3000;
    assert.throws(
      () => clocked.authenticateFor(from({}, `ticket=${ticket}`), 's1', 'control'),
      refused('UNAUTHORIZED'),
    );
    now = 1000;
    const [payload = '', signature = ''] = ticket.split('.');
    const forged = Buffer.from(Buffer.from(payload, 'base64url').toString().replace('2000', '9000')).toString(
      'base64url',
    );
    const strange = new Access(KEYS, randomBytes(32)).ticket('s1', 'control', 2000);
    for (const bad of [`${forged}.${signature}`, `${payload}.`, payload, '', '.', `.${signature}`, strange]) {
      assert.throws(
        () => clocked.authenticateFor(from({}, `ticket=${bad}`), 's1', 'control'),
        refused('UNAUTHORIZED'),
        `ticket ${bad}`,
      );
    }
  });

  it('does not look at Host or Origin: whoever has a key may come from anywhere', () => {
    const headers = { 'x-api-key': key, host: 'berth.example.com', origin: 'https://elsewhere.example' };
    assert.equal(access.authenticate(from(headers)).tenant, 'a');
  });
});

describe('Access without keys', () => {
  const open = new Access([], master);

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

  it('hands out no tickets, since none are needed', () => {
    assert.equal(open.ticket('s1', 'control', 2000), undefined);
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
