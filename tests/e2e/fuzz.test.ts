/**
 * Nonsense for every operation of openapi.yaml: names, queries, headers, bodies and methods that nobody should send. Whatever comes,
 * the answer is a refusal as the document promises it, and nothing has changed. `BERTH_FUZZ_SECONDS` (8) says for how
 * long, `BERTH_SEED` which nonsense.
 */
import assert from 'node:assert/strict';
import { type IncomingHttpHeaders, request } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { parse } from 'yaml';
import { Random } from '../contract/random.ts';
import { contract } from './contract.ts';
import { LIMIT, type Service, startService, UNLIMITED } from './service.ts';

const SECONDS = Number(process.env.BERTH_FUZZ_SECONDS ?? 8);
const SEED = Number(process.env.BERTH_SEED ?? Date.now() % 1_000_000);
const KEY = 'key-fuzz-1679091c5a880fa';

// biome-ignore lint/suspicious/noExplicitAny: whatever JSON there is
type Json = any;

interface Sent {
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: Buffer;
}

const NAMES = [
  '..',
  '%2e%2e',
  '%2e%2e%2fetc%2fpasswd',
  '%00',
  'a%00b',
  '%ff%fe',
  '%',
  '%zz',
  '%25',
  '__proto__',
  'constructor',
  'toString',
  'x'.repeat(65),
  'x'.repeat(5000),
  '%F0%9F%98%80',
  '%E2%80%AE',
  '-',
  '_',
  '.',
  '*',
  '$(id)',
  "';--",
  '%0d%0aX-Injected:%201',
  '<script>',
  'vnc_x_20260101_000000_seg000.mkv',
  'vnc_%2e%2e_20260101_000000_seg000.mkv',
  'vnc_x_99999999_999999_seg999.mkv',
  '~root',
  'con',
  '-rf',
];

const VALUES: readonly Json[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e308,
  -1e308,
  2 ** 53,
  '',
  ' ',
  '0',
  'true',
  '\u0000',
  '\ud800',
  '😀'.repeat(100),
  'x'.repeat(100_000),
  [],
  [[]],
  [null],
  {},
  { a: 1 },
  { __proto__: null, constructor: 1 },
  { $ref: '#/components/schemas/Sandbox' },
  { toString: 1 },
];

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'LOCK', 'SEARCH', 'TRACE'];

/** Makes one request after the other out of the document, none of which is right. */
class Nonsense {
  readonly #random: Random;
  readonly #operations = [...contract.operations];
  readonly #schemas = new Map<string, { readonly valid: ValidateFunction; readonly fields: readonly string[] }>();

  constructor(random: Random) {
    this.#random = random;
    const ajv = new Ajv2020({ strict: false });
    (addFormats as unknown as (ajv: Ajv2020) => void)(ajv);
    const document = parse(contract.text) as Json;
    ajv.addSchema(document, 'openapi');
    for (const [id, { method, path }] of this.#operations) {
      const ref: string | undefined = document.paths[path][method].requestBody?.content['application/json'].schema.$ref;
      if (ref === undefined) continue;
      const fields = Object.keys(document.components.schemas[ref.split('/').pop() as string].properties);
      this.#schemas.set(id, { valid: ajv.compile({ $ref: `openapi${ref}` }), fields });
    }
  }

  next(): Sent {
    const random = this.#random;
    const [id, { method, path }] = random.pick(this.#operations);
    const schema = this.#schemas.get(id);
    const names = path.replace(/{[a-zA-Z]+}/g, () => (random.chance(0.3) ? 'live' : random.pick(NAMES)));
    const query = random.chance(0.5) ? `?${this.#query()}` : '';
    const wrongMethod = random.chance(0.15) || (!schema && !/{/.test(path));
    const body = schema ? this.#body(schema) : random.chance(0.3) ? random.bytes(random.below(2000)) : Buffer.alloc(0);
    return {
      method: wrongMethod ? random.pick(METHODS) : method.toUpperCase(),
      path: names + query,
      headers: this.#headers(),
      body,
    };
  }

  #query(): string {
    const known = 'page page_size limit after since until status format wait recordings metadata.x tenantId role'.split(
      ' ',
    );
    const one = (): string => {
      const value = this.#random.pick(VALUES);
      const text = typeof value === 'string' ? value.slice(0, 2000) : JSON.stringify(value);
      return `${this.#random.pick(known)}=${encodeURIComponent(Buffer.from(text).toString())}`;
    };
    return Array.from({ length: 1 + this.#random.below(4) }, one).join('&');
  }

  #headers(): Record<string, string> {
    const random = this.#random;
    const some: Record<string, readonly string[]> = {
      'content-type': ['text/plain', 'application/xml', 'application/json; charset=utf-7', 'multipart/form-data'],
      accept: ['text/event-stream, application/json;q=2', '*/*;q=nonsense', ''],
      range: ['bytes=-', 'bytes=9-1', 'bytes=0-0,5-9', 'lines=1-2', `bytes=${'9'.repeat(400)}-`],
      'if-range': ['"x"', 'W/"x"', 'Thu, 99 Foo'],
      'idempotency-key': ['', 'x'.repeat(256), 'a b'],
      'last-event-id': ['x', '1-', '-1', '9'.repeat(40)],
      'x-request-id': ['x'.repeat(500), '<b>', '1'],
      expect: ['nonsense'],
      cookie: ['berth_session=', 'berth_session=a.b.c', `berth_session=${'x'.repeat(3000)}`],
      'sec-fetch-site': ['cross-site'],
      te: ['trailers'],
    };
    const headers: Record<string, string> = { 'x-api-key': KEY };
    for (const [name, values] of Object.entries(some)) if (random.chance(0.15)) headers[name] = random.pick(values);
    return headers;
  }

  /** A body that is not what the schema says. */
  #body({ valid, fields }: { readonly valid: ValidateFunction; readonly fields: readonly string[] }): Buffer {
    const random = this.#random;
    const kind = random.next();
    if (kind < 0.05) return Buffer.from('{"a":'.repeat(20_000));
    if (kind < 0.1) return Buffer.from(`\ufeff${JSON.stringify({ a: 1 })}`);
    if (kind < 0.15) return Buffer.concat([Buffer.from('{"'), random.bytes(50), Buffer.from('":1}')]);
    if (kind < 0.2) return Buffer.from(random.pick(['{', '}', 'null', '[]', '1', '"x"', 'NaN', "{'a':1}", '{"a":1,}']));
    for (;;) {
      const body: Record<string, Json> = {};
      for (let i = 0; i <= random.below(3); i++) {
        body[random.chance(0.8) ? random.pick(fields) : random.pick(NAMES)] = random.pick(VALUES);
      }
      if (!valid(body)) return Buffer.from(JSON.stringify(body));
    }
  }
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

describe(`nonsense (BERTH_SEED=${SEED})`, { timeout: LIMIT.timeout + SECONDS * 1000 }, () => {
  let service: Service;
  before(async () => {
    service = await startService({ env: { ...UNLIMITED, BERTH_API_KEYS: `a:${KEY}:admin` } });
    const made = await send({
      method: 'POST',
      path: '/sandboxes',
      headers: { 'x-api-key': KEY },
      body: Buffer.from('{"sandboxId":"live"}'),
    });
    assert.equal(made.status, 201, made.text);
  });
  after(() => service.end());

  function send({ method, path, headers, body }: Sent): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const { hostname, port } = new URL(service.url);
      const req = request(
        { hostname, port, method, path, headers: { ...headers, 'content-length': body.length } },
        (res) => {
          let text = '';
          res.on('data', (chunk) => {
            text += chunk;
            // A stream of events has no end.
            if (res.headers['content-type']?.startsWith('text/event-stream')) req.destroy();
          });
          res.on('close', () => resolve({ status: res.statusCode ?? 0, headers: res.headers, text }));
          if (res.headers['content-type']?.startsWith('text/event-stream')) req.destroy();
        },
      );
      req.setTimeout(LIMIT.timeout, () => req.destroy(new Error('no answer')));
      req.on('error', reject);
      req.end(body);
    });
  }

  const view = async (): Promise<Json> => {
    const { data } = JSON.parse(
      (await send({ method: 'GET', path: '/sandboxes/live', headers: { 'x-api-key': KEY }, body: Buffer.alloc(0) }))
        .text,
    );
    const { status, metadata, maxLifetimeSeconds, sandboxIdleTimeoutSeconds, activity, browserRestarts } = data;
    return { status, metadata, maxLifetimeSeconds, sandboxIdleTimeoutSeconds, activity, browserRestarts };
  };

  it('is refused as the document promises, and changes nothing', async () => {
    const nonsense = new Nonsense(new Random(SEED));
    const was = await view();
    const until = Date.now() + SECONDS * 1000;
    const statuses = new Map<number, number>();
    while (Date.now() < until) {
      const sent = nonsense.next();
      // These would be right, or end what the rest is asked of.
      if (
        /^(POST|DELETE) \/sandboxes\/live(\/(stop|tickets|recordings\/st.*))?(\?|$)/.test(`${sent.method} ${sent.path}`)
      )
        continue;
      const shown = `${sent.method} ${sent.path.slice(0, 300)} ${JSON.stringify(sent.headers).slice(0, 600)} ${sent.body.subarray(0, 300)}`;
      const { status, headers, text } = await send(sent).catch((err: Error) => assert.fail(`${err.message}: ${shown}`));
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      assert.ok(status < 500 || status === 501, `${status}: ${shown}\n${text.slice(0, 500)}`);
      assert.equal(headers['x-injected'], undefined, shown);
      if (status < 400 || sent.method === 'HEAD' || text === '') continue;
      if (text === '{"error":"Invalid filename"}') continue;
      const body = JSON.parse(text) as Json;
      assert.deepEqual(Object.keys(body), ['code', 'error', 'message', 'requestId'], `${shown}\n${text}`);
      assert.doesNotMatch(body.message, /\n\s+at |node:|\/src\/|\.ts:\d/, shown);
    }
    assert.deepEqual(await view(), was);
    const counts = [...statuses].sort().map(([status, count]) => `${status}: ${count}`);
    assert.ok(
      statuses.has(400) && statuses.has(404) && statuses.has(405),
      `all kinds of refusal: ${counts.join(', ')}`,
    );
    assert.equal(service.process.exitCode, null);
    assert.doesNotMatch(service.log(), /"level":50/, 'nothing that the service took for its own fault');
  });
});
