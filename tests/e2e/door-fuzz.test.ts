/**
 * Bytes on the public port that no proper client sends: requests that two servers could read in two ways, broken ones by the
 * thousand, odd handshakes, 10,000 that never end. Beside them a neighbour talks with its browser all the time.
 * `BERTH_FUZZ_SECONDS` (12) says how long the random part takes, `BERTH_SEED` which numbers it has.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Random } from '../contract/random.ts';
import { FRONT } from './drivers.ts';
import { LIMIT, type Service, startService, UNLIMITED, waitFor } from './service.ts';
import { openSocket, Raw } from './sockets.ts';

const SECONDS = Number(process.env.BERTH_FUZZ_SECONDS ?? 12);
const SEED = Number(process.env.BERTH_SEED ?? Date.now() % 1_000_000);
/** Broken requests under way at once. */
const ABREAST = 16;
const HALF_OPEN = 10_000;
/** What the service may have more than before, when everything has ended: V8 and malloc give little back. */
const SPARE_MB = 100;
/** Connections between gateway and API that wait for more. */
const SPARE_FILES = 40;

const UPGRADE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n';

/** Talks with its browser, each time about something else, and knows its own answers. */
class Neighbour {
  readonly #raw: Raw;
  #said = 0;
  #over = false;
  readonly #talk: Promise<void>;

  private constructor(raw: Raw) {
    this.#raw = raw;
    this.#talk = this.#keepTalking();
    this.#talk.catch(() => {}); // told by end()
  }

  static async of(cdpUrl: string): Promise<Neighbour> {
    const raw = await Raw.open(cdpUrl);
    const { targetId } = await raw.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await raw.send('Target.attachToTarget', { targetId, flatten: true });
    const neighbour = new Neighbour(raw);
    neighbour.#session = sessionId;
    return neighbour;
  }

  #session: string | undefined;

  async #keepTalking(): Promise<void> {
    await sleep(0);
    while (!this.#over) {
      const word = `word-${this.#said}-${'x'.repeat(this.#said % 3000)}`;
      assert.equal(await this.#raw.evaluate(JSON.stringify(word), this.#session), word);
      this.#said++;
      await sleep(5);
    }
  }

  /** How often it was answered; rejects when it was disturbed. */
  async end(): Promise<number> {
    this.#over = true;
    await this.#talk;
    this.#raw.socket.terminate();
    return this.#said;
  }
}

function filesOf({ process: { pid } }: Service): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

function megabytesOf({ process: { pid } }: Service): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

/** All that comes back until the connection ends, or `ms` have passed since anything came; `firstMs` until something does. */
function exchange(service: Service, bytes: string | Buffer, ms = 400, firstMs = ms): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(Number(new URL(service.url).port), '127.0.0.1');
    let text = '';
    socket.setTimeout(firstMs, () => socket.destroy());
    socket.on('data', (data) => {
      socket.setTimeout(ms);
      text += data.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
    socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  });
}

describe('The public port', () => {
  let service: Service;
  let neighbour: Neighbour;
  let cdpUrl: string;
  let files = 0;
  let megabytes = 0;

  before(async () => {
    service = await startService({ env: UNLIMITED });
    cdpUrl = (await service.client.create({ sandboxId: 'neighbour' })).cdpUrl as string;
    neighbour = await Neighbour.of(cdpUrl);
    // What is made at the first requests is not the fuzz's.
    for (let i = 0; i < 300; i++) await fetch(`${service.url}/sandboxes`).then((res) => res.text());
    [files, megabytes] = [filesOf(service), megabytesOf(service)];
  });
  after(() => service.end());

  it('reads no request out of the body of another, whatever is said of its length', LIMIT, async () => {
    const { host } = new URL(service.url);
    const inner = (i: number): string => `GET /smuggled-${i} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
    const chunked = (body: string): string => `0\r\n\r\n${body}`;
    const post = `POST /sandboxes/nope/stop HTTP/1.1\r\nHost: ${host}\r\n`;
    const TRICKS: readonly ((body: string) => string)[] = [
      // Of a length and chunked, in either order.
      (body) => `${post}Content-Length: ${chunked(body).length}\r\nTransfer-Encoding: chunked\r\n\r\n${chunked(body)}`,
      (body) => `${post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n${chunked(body)}`,
      // Of two lengths, or one that is none.
      (body) => `${post}Content-Length: 0\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      (body) => `${post}Content-Length: ${body.length}\r\nContent-Length: 0\r\n\r\n${body}`,
      ...[', 0', ',0', ' 0', '\t0', ';', 'e0', '.0', '\u00a0', 'x'].map(
        (more) => (body: string) => `${post}Content-Length: 0${more}\r\n\r\n${body}`,
      ),
      ...['+0', '-0', '-1', '0x0', ' ', '18446744073709551616', '99999999999999999999999', '"0"'].map(
        (length) => (body: string) => `${post}Content-Length: ${length}\r\n\r\n${body}`,
      ),
      // In an encoding that others may not take for chunked.
      ...[
        'xchunked',
        'chunked, identity',
        'identity',
        'identity, chunked',
        'gzip, chunked',
        'chunked, chunked',
        'chunked\u000b',
        '\u000bchunked',
        'x: chunked',
        '"chunked"',
        'chunked;q=1',
        'chunke',
        '',
      ].map((encoding) => (body: string) => `${post}Transfer-Encoding: ${encoding}\r\n\r\n${chunked(body)}`),
      (body) => `${post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n${chunked(body)}`,
      (body) => `${post}Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n${chunked(body)}`,
      (body) => `${post}Transfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n\r\n${chunked(body)}`,
      (body) => `${post}X: a\r\n Transfer-Encoding: chunked\r\n\r\n${chunked(body)}`,
      (body) => `${post}X: a\nTransfer-Encoding: chunked\n\n${chunked(body)}`,
      (body) => `${post} Content-Length: 0\r\n\r\n${body}`,
      // In chunks that are none.
      ...['0x0', '-0', '+0', ' ', 'g', '0;\n', 'ffffffffffffffffff', '0\n\n'].map(
        (size) => (body: string) => `${post}Transfer-Encoding: chunked\r\n\r\n${size}\r\n\r\n${body}`,
      ),
      // In lines that end early.
      (body) => `POST /sandboxes/nope/stop HTTP/1.1\nHost: ${host}\nContent-Length: 0\n\n${body}`,
      (body) => `${post}Content-Length: ${body.length}\r\n\n${body}`,
      (body) => `${post}X: a\0b\r\n\r\n${body}`,
      (body) => `${post}X\0: a\r\n\r\n${body}`,
      // At a host that there are two of, or none.
      (body) => `${post}Host: other\r\nContent-Length: 0\r\n\r\n${body}`,
      (body) => `POST /sandboxes/nope/stop HTTP/1.1\r\nContent-Length: 0\r\n\r\n${body}`,
      (body) => `POST http://other/ HTTP/1.0\r\n\r\n${body}`,
    ];
    const answers = await Promise.all(TRICKS.map((trick, i) => exchange(service, trick(inner(i)))));
    for (const [i, answer] of answers.entries()) {
      const statuses = [...answer.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
      const said = `${JSON.stringify((TRICKS[i] as (body: string) => string)('<body>'))} was answered with ${statuses}`;
      assert.ok(statuses.length <= 1 && statuses.every((status) => status >= 400 && status < 600), said);
      assert.ok(!service.log().includes(`/smuggled-${i}"`), said);
    }
  });

  it('answers requests that come at once one after the other, each as if it had come alone', LIMIT, async () => {
    const { host } = new URL(service.url);
    const one = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
    const answer = await exchange(service, one('/health') + one('/nope') + one('/health'), 1500);
    const statuses = [...answer.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => match[1]);
    // uWebSockets.js ends the connection when a request comes before the answer to another; it never mixes them.
    const wanted = ['200', '404', '200'];
    assert.deepEqual(statuses, FRONT === 'ws' ? wanted : wanted.slice(0, statuses.length));
    // An answer must not come into the middle of the frames of a WebSocket.
    const upgrade = `GET ${new URL(cdpUrl).pathname} HTTP/1.1\r\nHost: ${host}\r\n${UPGRADE}\r\n`;
    assert.doesNotMatch(await exchange(service, one('/sandboxes') + upgrade, 1500), /^HTTP\/1\.1 101 /m);
  });

  it('keeps nothing for those who leave while a request of theirs waits behind another', LIMIT, async () => {
    const { host, port } = new URL(service.url);
    const first = `GET /sandboxes HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
    const second = `PATCH /sandboxes/nope HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{`;
    const before = filesOf(service);
    for (let i = 0; i < 300; i++) {
      const socket = connect(Number(port), '127.0.0.1');
      socket.on('error', () => {});
      socket.write(first + second);
      await sleep(1);
      socket.resetAndDestroy();
    }
    await waitFor(
      () => filesOf(service) <= before + SPARE_FILES,
      () => `${filesOf(service)} files to close, before ${before}`,
    );
  });

  it('takes no compression, one protocol of those that are offered, and no handshake that is none', LIMIT, async () => {
    const { host, pathname } = new URL(cdpUrl);
    const shake = (more: string, base = UPGRADE): Promise<string> =>
      exchange(service, `GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\n${base}${more}\r\n`, 400, LIMIT.timeout / 2);
    const offers = [
      'permessage-deflate',
      'permessage-deflate; client_max_window_bits=99',
      'x, y; z="',
      ',,,',
      'a'.repeat(9000),
    ];
    for (const offer of offers) {
      const answer = await shake(`Sec-WebSocket-Extensions: ${offer}\r\n`);
      assert.match(answer, /^HTTP\/1\.1 (101|400) /, offer);
      assert.doesNotMatch(answer, /sec-websocket-extensions/i, offer);
    }
    const many = Array.from({ length: 3000 }, (_, i) => `p${i}`).join(', ');
    for (const offer of ['binary', 'a, b', 'a,a,a', ', ,', '"x"', 'a b', `${many}`, '\u00ff']) {
      const answer = await shake(`Sec-WebSocket-Protocol: ${offer}\r\n`);
      assert.match(answer, /^HTTP\/1\.1 (101|400|431) /, offer.slice(0, 20));
      const taken = /^sec-websocket-protocol: *([^\r]*)/im.exec(answer)?.[1];
      assert.ok(taken === undefined || offer.split(',').some((one) => one.trim() === taken), taken);
    }
    const whole = `${UPGRADE}`;
    for (const broken of [
      whole.replace('Version: 13', 'Version: 14'),
      whole.replace('Version: 13', 'Version: '),
      whole.replace(/Sec-WebSocket-Key.*\r\n/, ''),
      whole.replace('websocket', 'websock'),
      whole.replace('dGhl', '!!!!'),
      whole.replace('==', ''),
    ]) {
      const answer = await shake('', broken);
      // uWebSockets.js looks at the key's presence alone: it takes some that are wrong, and answers them right.
      assert.match(answer, /^HTTP\/1\.1 (101|4\d\d) /, broken);
    }
    // uWebSockets.js takes a header of five letters for "close"; with more behind it, one such handshake ended the service.
    const more = `GET /health HTTP/1.1\r\nX-Request-Id: ${'x'.repeat(40)}`;
    const connecting = (...lines: string[]): string =>
      whole.replace('Connection: Upgrade\r\n', lines.map((line) => `Connection: ${line}\r\n`).join(''));
    for (const [lines, taken] of [
      [['close'], false],
      [['close, Upgrade'], false],
      [['xxxxx', 'Upgrade'], false],
      [['Upgrade', 'close'], false],
      [['keep-alive'], false],
      [[], false],
      [['keep-alive, Upgrade'], true],
      [['keep-alive', 'upgrade'], true],
    ] as const) {
      for (const rest of ['', more]) {
        const text = `GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\n${connecting(...lines)}\r\n${rest}`;
        const answer = await exchange(service, text, 400, LIMIT.timeout / 2);
        if (!taken) assert.match(answer, /^HTTP\/1\.1 426 /, lines.join('; '));
        else if (rest === '') assert.match(answer, /^HTTP\/1\.1 101 /, lines.join('; '));
      }
    }
    // Frames in the same piece as the handshake, whole and broken ones.
    for (const frames of [
      '\x81\x05hello',
      '\x81\x85\0\0\0\0{"id"',
      '\xff\xff\xff\xff',
      '\x88\x80\0\0\0\0',
      '\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff',
    ]) {
      await exchange(
        service,
        Buffer.from(`GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\n${UPGRADE}\r\n${frames}`, 'latin1'),
        100,
      );
    }
  });

  it(`survives ${SECONDS} s of broken requests (BERTH_SEED=${SEED})`, {
    timeout: SECONDS * 1000 + LIMIT.timeout,
  }, async (t) => {
    const random = new Random(SEED);
    const { host, pathname, port } = new URL(cdpUrl.replace('ws', 'http'));
    // Nothing that makes anything when it loses its end.
    const post = `PATCH /sandboxes/nope HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\n`;
    const BASES = [
      `GET /health HTTP/1.1\r\nHost: ${host}\r\nX-Request-Id: a\r\nAccept: */*\r\n\r\n`,
      `GET /sandboxes?status=READY&metadata.a=b HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer x\r\n\r\n`,
      `${post}Content-Length: 11\r\n\r\n{"a":"bcd"}`,
      `${post}Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n4;x=y\r\n"bc"\r\n1\r\n}\r\n0\r\n\r\n`,
      `${post}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}`,
      `GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\n${UPGRADE}\r\n\x81\x85\0\0\0\0{"id"\x88\x82\0\0\0\0\x03\xe8`,
      `GET /sandboxes/nope/ws/livestream HTTP/1.1\r\nHost: ${host}\r\n${UPGRADE}Sec-WebSocket-Protocol: binary\r\n\r\n`,
    ];
    const JUNK = [
      '\r\n',
      '\n',
      '\r',
      '\0',
      ' ',
      '\t',
      ':',
      '\x7f',
      '\xff',
      '%',
      '\r\n\r\n',
      '\r\n ',
      'HTTP/1.1',
      ', ',
      ';',
      '0',
      '\x16\x03\x01',
    ];
    const broken = (): Buffer => {
      let text = random.pick(BASES);
      for (let changes = 1 + random.below(4); changes > 0; changes--) {
        const at = random.below(text.length);
        const lines = text.split('\r\n');
        const line = random.below(lines.length);
        const kind = random.below(8);
        if (kind === 0) text = text.slice(0, at) + String.fromCharCode(random.below(256)) + text.slice(at + 1);
        else if (kind === 1) text = text.slice(0, at) + random.pick(JUNK) + text.slice(at);
        else if (kind === 2) text = text.slice(0, at) + text.slice(at + 1 + random.below(10));
        else if (kind === 3) text = lines.toSpliced(line, 0, lines[random.below(lines.length)] as string).join('\r\n');
        else if (kind === 4) text = text.slice(0, at);
        else if (kind === 5) text += random.pick(BASES);
        else if (kind === 6)
          text = text.slice(0, at) + 'x'.repeat(random.pick([100, 4000, 17_000, 70_000])) + text.slice(at);
        else text = lines.toSpliced(line, 1).join('\r\n');
        if (text === '') text = 'x';
      }
      return Buffer.from(text, 'latin1');
    };
    const deadline = performance.now() + SECONDS * 1000;
    let sent = 0;
    const worker = async (): Promise<void> => {
      while (performance.now() < deadline && service.process.exitCode === null && service.process.signalCode === null) {
        sent++;
        await send(Number(port), broken(), random);
      }
    };
    await Promise.all(Array.from({ length: ABREAST }, worker));
    t.diagnostic(`${sent} requests`);
    const { exitCode, signalCode } = service.process;
    assert.equal(
      exitCode ?? signalCode,
      null,
      `it ended with ${exitCode ?? signalCode}: ${service.log().slice(-3000)}`,
    );
    assert.equal((await fetch(`${service.url}/health`)).status, 200);
  });

  it(`is open to others while ${HALF_OPEN} upgrades never end, and those are gone soon`, LIMIT, async (t) => {
    const { host, port, pathname } = new URL(cdpUrl);
    const begun = `GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSock`;
    const [filesThen, megabytesThen] = [filesOf(service), megabytesOf(service)];
    const sockets: Socket[] = [];
    let gone = 0;
    const open = (): Promise<void> =>
      new Promise((resolve) => {
        const socket = connect(Number(port), '127.0.0.1', () => {
          socket.write(begun);
          resolve();
        });
        sockets.push(socket);
        socket.on('error', () => resolve());
        socket.on('close', () => gone++);
        socket.resume();
      });
    try {
      // One that writes a byte now and then is no better than one that says nothing.
      const dripping = setInterval(() => {
        for (const socket of sockets.slice(0, 50)) if (socket.writable) socket.write('a');
      }, 1000);
      for (let i = 0; i < HALF_OPEN; i += 200) await Promise.all(Array.from({ length: 200 }, open));
      const held = filesOf(service) - filesThen;
      (await openSocket(cdpUrl)).terminate();
      assert.equal((await fetch(`${service.url}/sandboxes/neighbour/health`)).status, 200);
      await waitFor(
        () => gone === HALF_OPEN,
        () => `the end of ${HALF_OPEN - gone} connections`,
      );
      clearInterval(dripping);
      const more = megabytesOf(service) - megabytesThen;
      t.diagnostic(`${held} were held at once; afterwards ${more.toFixed(1)} MB more`);
      assert.ok(held > HALF_OPEN / 10, `only ${held} were held at once`);
      assert.ok(more < SPARE_MB, `${more} MB more than before`);
    } finally {
      for (const socket of sockets) socket.destroy();
    }
  });

  it('has in the end what it had before, and its neighbour was never disturbed', LIMIT, async (t) => {
    const answered = await neighbour.end();
    assert.ok(answered > 10, `${answered} answers`);
    await waitFor(
      () => filesOf(service) <= files + SPARE_FILES,
      () => `${filesOf(service)} files to close, before ${files}`,
    );
    const more = megabytesOf(service) - megabytes;
    t.diagnostic(
      `${answered} answers to the neighbour; ${filesOf(service) - files} files and ${more.toFixed(1)} MB more`,
    );
    assert.ok(more < SPARE_MB, `${more} MB more than before`);
    await waitFor(async () => (await service.client.get('neighbour')).clients === 0, 'all clients to be gone');
    assert.equal((await service.client.get('neighbour')).browserRestarts, 0);
    assert.equal((await service.client.list()).length, 1, 'nothing was made');
    const bad = service
      .log()
      .split('\n')
      .filter((line) => /"level":[56]0|unhandled|"status":5\d\d/.test(line));
    assert.deepEqual(bad.slice(0, 5), []);
  });
});

/** Writes it in one piece or some, reads for a moment, and goes in one way or another. */
async function send(port: number, bytes: Buffer, random: Random): Promise<void> {
  const pieces = random.chance(0.3) ? 1 + random.below(5) : 1;
  const [wait, how] = [random.below(15), random.below(3)];
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.resume();
  const length = Math.ceil(bytes.length / pieces);
  for (let at = 0; at < bytes.length && socket.writable; at += length) {
    socket.write(bytes.subarray(at, at + length));
    if (pieces > 1) await sleep(1);
  }
  if (how === 0) socket.end();
  await Promise.race([closed, sleep(wait)]);
  if (how === 1) socket.resetAndDestroy();
  else socket.destroy();
  await closed;
}
