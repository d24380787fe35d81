import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { envWithBrowser, FRONT } from './drivers.ts';
import { assertNothingLeft, LIMIT, type Service, startService, waitFor } from './service.ts';

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: whatever JSON the service answered
  readonly json: any;
}

interface Ask {
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as it is; anything but text and bytes as JSON. */
  readonly body?: unknown;
  readonly chunked?: boolean;
}

/** A request exactly as written: fetch would tidy up the path. */
function ask({ url }: Service, method: string, path: string, given: Ask = {}): Promise<Answer> {
  const { headers = {}, body, chunked = false } = given;
  const bytes = body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    const length = bytes === undefined || chunked ? {} : { 'content-length': Buffer.byteLength(bytes) };
    const req = request({ hostname, port, method, path, headers: { ...length, ...headers }, agent: false });
    req.setTimeout(LIMIT.timeout, () => req.destroy(new Error(`${method} ${path} was not answered`)));
    req.once('error', reject);
    req.once('upgrade', (_res, socket) => {
      socket.destroy();
      reject(new Error(`${path} was upgraded`));
    });
    req.once('response', (res) => {
      const chunks: Buffer[] = [];
      res.on('data', (chunk: Buffer) => chunks.push(chunk));
      res.once('error', reject);
      res.once('end', () => {
        const text = Buffer.concat(chunks).toString();
        const isJson = text !== '' && String(res.headers['content-type']).startsWith('application/json');
        const json = isJson ? JSON.parse(text) : undefined;
        resolve({ status: res.statusCode ?? 0, headers: res.headers, text, json });
      });
    });
    if (chunked && bytes !== undefined) {
      const all = Buffer.from(bytes);
      for (let i = 0; i < all.length; i += 65_536) req.write(all.subarray(i, i + 65_536));
    } else if (bytes !== undefined) req.write(bytes);
    req.end();
  });
}

const SOCKETS = ['ws/automation', 'ws/automation/', 'ws/livestream', 'ws/liveview', 'devtools/page/ABC'];

const UPGRADE = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
};

/** What a WebSocket upgrade is answered with when it is refused; rejects when it is not. */
function askUpgrade(service: Service, path: string, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
  return ask(service, 'GET', path, { headers: { ...UPGRADE, ...headers } });
}

/** Bytes that no proper HTTP client would send; answers whatever comes back until the connection ends. */
function raw(service: Service, bytes: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(service.url);
    const socket = connect(Number(port), hostname);
    let text = '';
    socket.setTimeout(LIMIT.timeout, () => socket.destroy(new Error('no answer')));
    socket.on('data', (chunk) => (text += chunk));
    socket.once('error', reject);
    socket.once('close', () => resolve(text));
    socket.write(bytes);
  });
}

/** Code, status and words are a contract, so they stand here a second time. */
const FAILURES = {
  INVALID: [400, 1001, 'invalid request'],
  FORBIDDEN: [403, 1003, 'forbidden'],
  NO_PATH: [404, 1004, 'not found'],
  NO_METHOD: [405, 1005, 'method not allowed'],
  TOO_LARGE: [413, 1006, 'payload too large'],
  UPGRADE: [426, 1007, 'upgrade required'],
  UNKNOWN: [404, 2001, 'sandbox not found'],
  TAKEN: [409, 2002, 'sandbox exists'],
  ENDED: [410, 2003, 'sandbox ended'],
  NO_TEMPLATE: [404, 2005, 'template not found'],
  NO_START: [503, 2007, 'sandbox did not start'],
  NO_RECORDING: [404, 3002, 'recording not found'],
} as const;

/** A failure in the house's shape. */
function assertRefused(answer: Answer, failure: keyof typeof FAILURES, message: RegExp): void {
  const [status, code, error] = FAILURES[failure];
  assert.equal(answer.status, status, answer.text);
  assert.match(String(answer.headers['content-type']), /^application\/json/);
  assert.deepEqual(Object.keys(answer.json).sort(), ['code', 'error', 'message', 'requestId']);
  assert.deepEqual([answer.json.code, answer.json.error], [code, error]);
  assert.match(answer.json.message, message);
  assert.match(answer.json.requestId, /^[\w.-]+$/);
  assert.equal(answer.json.requestId, answer.headers['x-request-id']);
}

async function total(service: Service): Promise<number> {
  return (await ask(service, 'GET', '/sandboxes')).json.data.total;
}

describe('a service that is asked for nonsense', () => {
  let service: Service;
  before(async () => {
    service = await startService();
    await Promise.all([service.client.create({ sandboxId: 'busy' }), service.client.create({ sandboxId: 'over' })]);
    await service.client.delete('over');
  });
  after(async () => {
    await service.end();
  });

  /** Nothing was made, and nothing is being made. */
  async function assertNothingMade(check: () => Promise<void>): Promise<void> {
    const before = [await total(service), readdirSync(service.runDir)];
    await check();
    assert.deepEqual([await total(service), readdirSync(service.runDir)], before);
  }

  // biome-ignore format: a table
  const BAD_BODIES: readonly (readonly [what: string, body: unknown, message: RegExp])[] = [
    ['half an object', '{"sandboxId":', /^body: not JSON/],
    ['plain text', 'sandboxId=x', /^body: not JSON/],
    ['blanks', '   ', /^body: not JSON/],
    ['bytes that are not UTF-8', Buffer.from([0x7b, 0xff, 0xfe, 0x7d]), /^body: not JSON/],
    ['an array', '[]', /^body: must be object/],
    ['a string', '"default"', /^body: must be object/],
    ['null', 'null', /^body: must be object/],
    ['a number', '5', /^body: must be object/],
    ['a boolean', 'true', /^body: must be object/],
    ['an unknown field', { sandboxID: 'x' }, /^sandboxID: unknown field$/],
    ['an unknown field in viewport', { viewport: { width: 800, height: 600, depth: 24 } }, /^viewport\.depth: unknown field$/],
    ['__proto__', '{"__proto__":{"sandboxId":"x"}}', /^__proto__: unknown field$/],
    ['two faults at once', { a: 1, maxLifetimeSeconds: 0 }, /(?=.*\ba: unknown field)(?=.*maxLifetimeSeconds: must be >= 1)/],
    ['a viewport without height', { viewport: { width: 800 } }, /^viewport\.height: is missing$/],
    ['a viewport of null', { viewport: null }, /^viewport: must be object$/],
    ['a viewport too small', { viewport: { width: 319, height: 240 } }, /^viewport\.width: must be >= 320$/],
    ['a viewport too large', { viewport: { width: 800, height: 2161 } }, /^viewport\.height: must be <= 2160$/],
    ['a timeout as text', { sandboxIdleTimeoutSeconds: '60' }, /^sandboxIdleTimeoutSeconds: must be integer$/],
    ['a lifetime of true', { maxLifetimeSeconds: true }, /^maxLifetimeSeconds: must be integer$/],
    ['a sandboxId that is a number', { sandboxId: 7 }, /^sandboxId: must be string$/],
    ['a template that is a list', { templateName: ['default'] }, /^templateName: must be string$/],
    ['metadata that is a list', { metadata: [] }, /^metadata: must be object$/],
    ['metadata with a number', { metadata: { n: 1 } }, /^metadata\.n: must be string$/],
    ['metadata with blanks in a name', { metadata: { 'a b': '1' } }, /^metadata: .*property name must be valid/],
    ['metadata too long', { metadata: { a: 'x'.repeat(513) } }, /^metadata\.a: must NOT have more than 512 characters$/],
    ['too much metadata', { metadata: Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`k${i}`, ''])) }, /^metadata: .*32/],
    ['an unknown recording mode', { recording: 'yes' }, /^recording: must be one of off, manual, always$/],
    ['31 frames per second', { recordingFps: 31 }, /^recordingFps: must be <= 30$/],
    ['segments of 4 s', { recordingSegmentSeconds: 4 }, /^recordingSegmentSeconds: must be >= 5$/],
    ['an empty template name', { templateName: '' }, /^templateName: /],
    ...['sandboxIdleTimeoutSeconds', 'maxLifetimeSeconds'].flatMap((field) => [
      [`a negative ${field}`, { [field]: -1 }, new RegExp(`^${field}: must be >= 1$`)] as const,
      [`a ${field} of zero`, { [field]: 0 }, new RegExp(`^${field}: must be >= 1$`)] as const,
      [`a ${field} of more than a week`, { [field]: 604_801 }, new RegExp(`^${field}: must be <= 604800$`)] as const,
      [`a huge ${field}`, `{"${field}":1e300}`, new RegExp(`^${field}: must be <= 604800$`)] as const,
      [`an infinite ${field}`, `{"${field}":1e999}`, new RegExp(`^${field}: must be`)] as const,
      [`a fraction as ${field}`, { [field]: 1.5 }, new RegExp(`^${field}: must be integer$`)] as const,
    ]),
    ...Object.entries({
      'of a path': '../x', 'with a slash': 'a/b', 'that is empty': '', 'of 65 characters': 'a'.repeat(65),
      'with blanks': 'a b', 'with an umlaut': 'bär', 'with a full-width letter': 'ａ', 'with NUL': 'a\0',
      'that ends in a line feed': 'a\n', 'that starts with a dash': '-a', 'with a dot': 'a.b',
    }).map(([what, id]) => [`a sandboxId ${what}`, { sandboxId: id }, /^sandboxId: must match pattern/] as const),
  ];
  for (const [what, body, message] of BAD_BODIES) {
    it(`refuses to create a sandbox from ${what}`, () =>
      assertNothingMade(async () => {
        assertRefused(await ask(service, 'POST', '/sandboxes', { body }), 'INVALID', message);
      }));
  }

  it('refuses a template that it does not know', () =>
    assertNothingMade(async () => {
      const answer = await ask(service, 'POST', '/sandboxes', { body: { templateName: 'nope' } });
      assertRefused(answer, 'NO_TEMPLATE', /^templateName: .*"nope"/);
    }));

  it('refuses a sandboxId that is taken, and leaves its sandbox alone', () =>
    assertNothingMade(async () => {
      const body = { sandboxId: 'busy', metadata: { mine: 'now' } };
      const answer = await ask(service, 'POST', '/sandboxes', { body });
      assertRefused(answer, 'TAKEN', /^sandboxId: "busy" is taken/);
      const busy = await service.client.get('busy');
      assert.equal(busy.status, 'READY');
      assert.deepEqual(busy.metadata, {});
    }));

  it('refuses a wait that is neither true nor false', () =>
    assertNothingMade(async () => {
      for (const wait of ['maybe', '', '1']) {
        assertRefused(await ask(service, 'POST', `/sandboxes?wait=${wait}`), 'INVALID', /^wait: must be boolean$/);
      }
    }));

  for (const chunked of [false, true]) {
    it(`refuses a body over 1 MiB sent ${chunked ? 'in chunks' : 'with Content-Length'}, and serves on`, () =>
      assertNothingMade(async () => {
        for (const bytes of [1024 * 1024 + 1, 8 * 1024 * 1024]) {
          const answer = await ask(service, 'POST', '/sandboxes', { body: Buffer.alloc(bytes, ' '), chunked });
          assertRefused(answer, 'TOO_LARGE', /1048576 bytes/);
        }
        const whole = await ask(service, 'POST', '/sandboxes', { body: Buffer.alloc(1024 * 1024, ' '), chunked });
        assertRefused(whole, 'INVALID', /^body: not JSON/);
        assert.deepEqual((await ask(service, 'GET', '/health')).json, { status: 'ok' });
      }));
  }

  it('keeps no connection busy with the rest of bodies that it refused, neither its own nor the client’s', async () => {
    const sockets = (): number =>
      readFileSync(`/proc/${service.process.pid}/net/unix`, 'utf8')
        .split('\n')
        .filter((line) => line.endsWith(`${service.runDir}/api`)).length;
    const before = sockets();
    for (let i = 0; i < 30; i++) {
      // fetch keeps its connections, so what one request leaves behind meets the next one.
      const path = i % 3 === 0 ? '/nowhere' : '/sandboxes';
      const body = Buffer.alloc(i % 2 === 0 ? 1_100_000 : 3_000_000, ' ');
      const signal = AbortSignal.timeout(LIMIT.timeout);
      const answer = await fetch(service.url + path, { method: 'POST', body, signal });
      assert.equal(answer.status, path === '/nowhere' ? 404 : 413);
      await answer.text();
    }
    await waitFor(
      () => sockets() <= before + 4,
      () => `connections to the API to go: ${sockets()}, before ${before}`,
    );
  });

  it('refuses pages and page sizes out of range on sandboxes and on recordings, and states that none has', async () => {
    for (const base of ['/sandboxes', '/recordings/', '/sandboxes/busy/recordings']) {
      for (const query of 'page=0 page=-1 page=abc page=1.5 page= page_size=0 page_size=101 page_size=x'.split(' ')) {
        const answer = await ask(service, 'GET', `${base}?${query}`);
        assertRefused(answer, 'INVALID', new RegExp(`^${query.split('=')[0]}: must be `));
      }
    }
    const answer = await ask(service, 'GET', '/sandboxes?status=ready');
    assertRefused(answer, 'INVALID', /^status: must be one of CREATING, READY, TERMINATED, FAILED$/);
  });

  const USES = ['GET /health', 'GET /json/version', 'GET /live', 'POST /recordings/start'];
  const WELL_FORMED = 'vnc_busy_20251116_103022_seg000.mkv';
  // biome-ignore format: a table
  const BAD_NAMES = {
    'another format': 'x.mp4', 'a way out of the folder': '..%2f..%2fetc%2fpasswd', 'a backslash': '..%5c..%5cx.mkv',
    'a way out with a right ending': `..%2f..%2f${WELL_FORMED}`, 'a sandbox that is a way out': 'vnc_..%2f_20251116_103022_seg000.mkv',
    '300 letters': 'a'.repeat(300), '300 characters': `vnc_${'a'.repeat(269)}_20251116_103022_seg000.mkv`, 'a blank': '%20',
    'NUL at the end': `${WELL_FORMED}%00`, 'NUL in the middle': 'vnc_busy%00_20251116_103022_seg000.mkv', 'a line feed': `${WELL_FORMED}%0a`,
    'a malformed percent': '%zz', 'a percent alone': '%', 'a percent and a right ending': 'vnc_busy_20251116_103022_seg000%.mkv',
    'bytes that are not UTF-8': '%ff%fe.mkv',
  };
  for (const [what, name] of Object.entries(BAD_NAMES)) {
    it(`calls a recording name invalid that is ${what}`, async () => {
      for (const base of ['/recordings', '/sandboxes/busy/recordings']) {
        for (const method of ['GET', 'DELETE']) {
          const answer = await ask(service, method, `${base}/${name}`);
          assert.equal(answer.status, 400, `${method} ${base}: ${answer.text}`);
          assert.deepEqual(answer.json, { error: 'Invalid filename' });
        }
      }
    });
  }

  it('finds no recording that is not there, and never one of another sandbox below a sandbox', async () => {
    for (const method of ['GET', 'DELETE']) {
      for (const path of [`/recordings/${WELL_FORMED}`, `/sandboxes/over/recordings/${WELL_FORMED}`]) {
        assertRefused(await ask(service, method, path), 'NO_RECORDING', /vnc_busy_20251116_103022_seg000\.mkv/);
      }
    }
  });

  it('answers requests for sandboxes that it never had with 404', async () => {
    for (const id of ['nope', '%zz', '..%2f..%2fetc', 'a'.repeat(300)]) {
      for (const use of ['GET ', 'DELETE ', 'POST /stop', ...USES]) {
        const [method = '', rest = ''] = use.split(' ');
        const answer = await ask(service, method, `/sandboxes/${id}${rest}`);
        assertRefused(answer, 'UNKNOWN', /^sandbox not found: /);
      }
    }
  });

  it('answers uses of a sandbox that has ended with 410', async () => {
    for (const use of USES) {
      const [method = '', rest = ''] = use.split(' ');
      const answer = await ask(service, method, `/sandboxes/over${rest}`);
      assertRefused(answer, 'ENDED', /over has ended: deleted/);
    }
  });

  it('refuses WebSockets to a sandbox that it never had or that has ended, readably and before the 101', async () => {
    for (const path of [...SOCKETS, 'devtools/browser/x']) {
      assertRefused(await askUpgrade(service, `/sandboxes/nope/${path}`), 'UNKNOWN', /^sandbox not found: nope$/);
      const over = await askUpgrade(service, `/sandboxes/over/${path}?tenantId=1`);
      assertRefused(over, 'ENDED', /over has ended: deleted/);
    }
    assertRefused(await askUpgrade(service, '/sandboxes/%2e%2e/ws/automation'), 'UNKNOWN', /not found/);
  });

  it('refuses WebSockets to DevTools targets that the browser has not, and detaches', async () => {
    const answer = await askUpgrade(service, '/sandboxes/busy/devtools/page/0123456789ABCDEF0123456789ABCDEF');
    assertRefused(answer, 'NO_PATH', /no such DevTools target/);
    await waitFor(async () => (await service.client.get('busy')).clients === 0, 'the client to be gone');
  });

  it('refuses WebSockets to paths that are none', async () => {
    for (const path of '/ /health /sandboxes/busy /sandboxes/busy/ws /sandboxes/busy/ws/else /sandboxes/busy/devtools/page/a%2fb'.split(
      ' ',
    )) {
      assertRefused(await askUpgrade(service, path), 'NO_PATH', /^There is no WebSocket at /);
    }
  });

  it('answers plain HTTP on a WebSocket path with 426 and the protocol to use', async () => {
    for (const path of SOCKETS) {
      for (const method of ['GET', 'POST']) {
        const answer = await ask(service, method, `/sandboxes/busy/${path}`);
        assertRefused(answer, 'UPGRADE', /WebSocket/);
        assert.equal(answer.headers.upgrade, 'websocket');
      }
    }
  });

  it('answers unknown paths with 404', async () => {
    for (const path of '/ /nope /sandboxes/busy/nope /recordings/a/b /novnc/..%2fpackage.json /novnc/package.json /%zz'.split(
      ' ',
    )) {
      assertRefused(await ask(service, 'GET', path), 'NO_PATH', /^There is nothing at /);
    }
  });

  it('answers wrong methods with 405 and the right ones', async () => {
    for (const [method, path, allow] of [
      ['DELETE', '/sandboxes', 'GET, HEAD, POST'],
      ['PUT', '/sandboxes/busy', 'DELETE, GET, HEAD, PATCH'],
      ['GET', '/sandboxes/busy/stop', 'POST'],
      ['POST', '/sandboxes/busy/health', 'GET, HEAD'],
      ['DELETE', '/recordings/', 'GET, HEAD'],
      ['POST', `/recordings/${WELL_FORMED}`, 'DELETE, GET, HEAD'],
      ['POST', '/health', 'GET, HEAD'],
      ['TRACE', '/health', 'GET, HEAD'],
      ['PROPFIND', '/sandboxes', 'GET, HEAD, POST'],
    ] as const) {
      const answer = await ask(service, method, path);
      assertRefused(answer, 'NO_METHOD', /does not take/);
      assert.equal(answer.headers.allow?.split(', ').sort().join(', '), allow, `${method} ${path}`);
    }
    assert.equal((await service.client.get('busy')).status, 'READY');
  });

  it('answers OPTIONS with the methods of the path, and HEAD like GET without its body', async () => {
    const options = await ask(service, 'OPTIONS', '/sandboxes');
    assert.equal(options.status, 200);
    assert.deepEqual(options.headers.allow?.split(', ').sort(), ['GET', 'HEAD', 'POST']);
    assertRefused(await ask(service, 'OPTIONS', '/nope'), 'NO_PATH', /nothing at/);
    for (const [path, status] of [
      ['/health', 200],
      ['/sandboxes/busy/health', 200],
      ['/openapi.yaml', 200],
      ['/nope', 404],
      ['/recordings/x.mp4', 400],
    ] as const) {
      const [head, get] = await Promise.all([ask(service, 'HEAD', path), ask(service, 'GET', path)]);
      assert.equal(head.status, status, path);
      assert.equal(head.text, '');
      assert.equal(get.status, status);
      assert.equal(head.headers['content-type'], get.headers['content-type']);
      assert.equal(head.headers['content-length'], get.headers['content-length']);
    }
  });

  it('survives requests that a proper client cannot send', async () => {
    const { host } = new URL(service.url);
    const close = `\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
    const LINES: readonly (readonly [status: number, line: string | Buffer])[] = [
      [400, 'GET /sandboxes/\u20ac HTTP/1.1'],
      [400, Buffer.from('GET /sandboxes/\xe4 HTTP/1.1', 'latin1')],
      [400, 'GET /recordings/\u20ac.mkv HTTP/1.1'],
      [400, 'GET /sandboxes?metadata.a=\u20ac HTTP/1.1'],
      [405, 'FOO /sandboxes HTTP/1.1'],
      [405, 'F@O /sandboxes HTTP/1.1'],
      [405, 'CONNECT /health HTTP/1.1'],
      [FRONT === 'ws' ? 400 : 426, 'GET /sandboxes/\u20ac/ws/automation HTTP/1.1'], // Node's server does not read on
      [200, 'GET /health HTTP/1.1\r\nX-Name: \u20ac'],
      [200, 'GET /health HTTP/1.1\r\nX-Request-Id: a b"c'],
    ];
    for (const [status, line] of LINES) {
      const answer = await raw(service, Buffer.concat([Buffer.from(line as string), Buffer.from(close)]));
      assert.ok(answer.startsWith(`HTTP/1.1 ${status} `), `${line} was answered with ${answer}`);
      if (status !== 200)
        assert.match(answer, /\r\n\r\n\{"code":\d{4},"error":"[a-z ]+","message":".+","requestId":"[\w-]+"\}$/);
    }
    await raw(service, Buffer.from('GET /sandboxes/\0 HTTP/1.1\r\n\r\n'));
    assert.deepEqual((await ask(service, 'GET', '/health')).json, { status: 'ok' });
    assert.equal(service.process.exitCode, null);
  });

  it('passes a harmless request id through, and makes its own in place of another', async () => {
    const given = await ask(service, 'GET', '/nope', { headers: { 'x-request-id': 'mine-1.2_3' } });
    assert.equal(given.json.requestId, 'mine-1.2_3');
    for (const bad of ['a b', '"', 'x'.repeat(65)]) {
      const answer = await ask(service, 'GET', '/nope', { headers: { 'x-request-id': bad } });
      assertRefused(answer, 'NO_PATH', /nope/);
      assert.notEqual(answer.json.requestId, bad);
    }
  });

  it('answers, while it has no keys, to names and pages of this machine only', async () => {
    const { port } = new URL(service.url);
    const foreign = [
      'evil.example',
      `evil.example:${port}`,
      '127.0.0.1.evil.example',
      'localhost.evil.example',
      '10.0.0.1',
      'a b',
    ];
    for (const host of foreign) {
      assertRefused(await ask(service, 'GET', '/sandboxes', { headers: { host } }), 'FORBIDDEN', /loopback names/);
      const upgrade = await askUpgrade(service, '/sandboxes/busy/ws/automation', { host });
      assertRefused(upgrade, 'FORBIDDEN', /loopback names/);
    }
    for (const origin of ['http://evil.example', 'https://127.0.0.1.evil.example', 'null', 'chrome-extension://abc']) {
      await assertNothingMade(async () => {
        const create = await ask(service, 'POST', '/sandboxes', { headers: { origin } });
        assertRefused(create, 'FORBIDDEN', /pages of this machine/);
      });
      for (const path of ['ws/automation', 'ws/livestream']) {
        const upgrade = await askUpgrade(service, `/sandboxes/busy/${path}`, { origin });
        assertRefused(upgrade, 'FORBIDDEN', /pages of this machine/);
      }
    }
    for (const name of [`localhost:${port}`, `127.0.0.1:${port}`, `[::1]:${port}`, 'berth.localhost']) {
      const answer = await ask(service, 'GET', '/sandboxes', { headers: { host: name, origin: `http://${name}` } });
      assert.equal(answer.status, 200, name);
    }
  });

  it('has all its wits about it in the end', async () => {
    assert.deepEqual((await ask(service, 'GET', '/sandboxes/busy/health')).json, { status: 'ok' });
    assert.equal(await total(service), 2);
    assert.doesNotMatch(service.log(), /unhandled rejection|"level":60/);
  });
});

describe('a service whose browser does not start', () => {
  let service: Service;
  before(async () => {
    service = await startService({ env: await envWithBrowser('exit 1') });
  });
  after(async () => {
    await service.end();
  });

  it('says so to the caller, by name, and leaves nothing of the sandbox', async () => {
    const answer = await ask(service, 'POST', '/sandboxes', { body: { sandboxId: 'broken', recording: 'always' } });
    assertRefused(answer, 'NO_START', /Chromium exited with code 1/);
    await assertNothingLeft(service);
  });

  it('remembers it as FAILED and why, also after somebody has it stopped', async () => {
    for (const broken of [await service.client.get('broken'), await service.client.delete('broken')]) {
      assert.equal(broken.status, 'FAILED');
      assert.match(broken.endedReason ?? '', /^failed: Chromium exited/);
      assert.ok(broken.endedAt);
      assert.equal(broken.cdpUrl, undefined);
    }
  });

  it('refuses its WebSockets readably and before the 101', async () => {
    for (const path of SOCKETS) {
      const answer = await askUpgrade(service, `/sandboxes/broken/${path}`);
      assertRefused(answer, 'ENDED', /broken has ended: failed: Chromium exited/);
    }
  });

  it('gives its id to the next one that asks', async () => {
    const answer = await ask(service, 'POST', '/sandboxes?wait=false', { body: { sandboxId: 'broken' } });
    assert.equal(answer.status, 202, answer.text);
    await waitFor(async () => (await service.client.get('broken')).status === 'FAILED', 'the second one to fail too');
    assert.equal(await total(service), 1);
  });
});
