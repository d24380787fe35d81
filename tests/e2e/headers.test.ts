import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { type IncomingHttpHeaders, request as plainly } from 'node:http';
import { request as secretly } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { makeCertificate } from './certificates.ts';
import { LIMIT, withService } from './service.ts';

const KEY = 'key-of-the-header-tests';

interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
}

function ask(url: string, headers: Readonly<Record<string, string>> = {}, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const send = url.startsWith('https') ? secretly : plainly;
    const req = send(url, { headers, method, agent: false, rejectUnauthorized: false }, (res) => {
      res.resume();
      res.once('end', () => resolve({ status: res.statusCode, headers: res.headers }));
    });
    req.once('error', reject);
    req.end();
  });
}

const UPGRADE = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
};

/** By the name that they have in the answers. */
const SAFE: Readonly<Record<string, RegExp>> = {
  'x-content-type-options': /^nosniff$/,
  'referrer-policy': /^no-referrer$/,
  'content-security-policy': /^default-src 'none'; frame-ancestors 'none'$/,
  'cross-origin-resource-policy': /^same-origin$/,
  'cross-origin-opener-policy': /^same-origin$/,
  'cache-control': /^no-store$/,
};

function assertSafe({ headers }: Answer, what: string, but: Readonly<Record<string, RegExp>> = {}): void {
  for (const [name, wanted] of Object.entries({ ...SAFE, ...but }))
    assert.match(String(headers[name]), wanted, `${name} of ${what}`);
  for (const name of Object.keys(headers)) assert.doesNotMatch(name, /^access-control-/, what);
}

describe('Security headers', () => {
  it(
    'are on every answer, refusals included; the live view may be framed by this machine while no keys are set',
    LIMIT,
    async () => {
      await withService({}, async ({ url, client }) => {
        await client.create({ sandboxId: 'seen', recording: 'off' });
        for (const [status, path] of [
          [200, '/health'],
          [200, '/sandboxes'],
          [200, '/sandboxes/seen'],
          [200, '/sandboxes/seen/json/version'],
          [200, '/openapi.yaml'],
          [200, '/metrics'],
          [200, '/recordings/'],
          [404, '/nowhere'],
          [405, '/sandboxes/seen/stop'],
          [426, '/sandboxes/seen/ws/automation'],
        ] as const) {
          const answer = await ask(url + path, { origin: url });
          assert.equal(answer.status, status, path);
          assertSafe(answer, path);
          assert.equal(answer.headers['strict-transport-security'], undefined);
        }
        assertSafe(await ask(`${url}/sandboxes/nope/ws/automation`, UPGRADE), 'a refused upgrade');
        assertSafe(await ask(`${url}/sandboxes`, { host: 'evil.example' }), 'a foreign name');
        assertSafe(await ask(`${url}/novnc/core/rfb.js`), 'a script', { 'cache-control': /max-age/ });
        const live = await ask(`${url}/sandboxes/seen/live`);
        assertSafe(live, 'the live view', {
          'content-security-policy': /; frame-ancestors 'self' http:\/\/localhost:\* /,
          'cache-control': /^no-cache$/, // the page is the same for everybody; what it asks for has the ticket
        });
        await client.delete('seen');
      });
    },
  );

  it('with TLS tell browsers to come back by TLS only; who may frame the live view is a setting', LIMIT, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bt-headers-'));
    try {
      const { cert, key } = makeCertificate(folder, 'one');
      const env = { BERTH_TLS_CERT: cert, BERTH_TLS_KEY: key, BERTH_API_KEYS: `a:${KEY}` };
      for (const [setting, wanted] of [
        ['', /; frame-ancestors \*$/],
        ["'self' https://app.example.com", /; frame-ancestors 'self' https:\/\/app\.example\.com$/],
      ] as const) {
        await withService({ env: { ...env, BERTH_FRAME_ANCESTORS: setting } }, async ({ url }) => {
          const { headers } = await ask(`${url}/health`, { host: 'berth.example.com' });
          assert.match(headers['strict-transport-security'] ?? '', /^max-age=\d{8}$/);
          const own = await ask(`${url}/health`, { host: 'localhost' });
          assert.equal(own.headers['strict-transport-security'], undefined);
          const made = await ask(`${url}/sandboxes`, { 'x-api-key': KEY, 'content-type': 'application/json' }, 'POST');
          assert.equal(made.status, 201);
          assertSafe(made, 'a create');
          const { data } = JSON.parse(await body(`${url}/sandboxes`, { 'x-api-key': KEY }));
          const live = await ask(data.sandboxes[0].liveViewUrl);
          assert.equal(live.status, 200);
          assertSafe(live, 'the live view', { 'content-security-policy': wanted, 'cache-control': /^no-cache$/ });
          await ask(`${url}/sandboxes/${data.sandboxes[0].sandboxId}`, { 'x-api-key': KEY }, 'DELETE');
        });
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

function body(url: string, headers: Readonly<Record<string, string>>): Promise<string> {
  return new Promise((resolve, reject) => {
    const req = secretly(url, { headers, agent: false, rejectUnauthorized: false }, (res) => {
      let text = '';
      res.on('data', (chunk) => (text += chunk));
      res.once('end', () => resolve(text));
    });
    req.once('error', reject);
    req.end();
  });
}
