import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { it, mock } from 'node:test';
import { type Answer, accepted, type Harness } from './websocket-gateway.ts';
import { content, passes, type Suite, same, text } from './websocket-legs.ts';
import { closePayload, encode, eventually, type Frame, OP, turn } from './websocket-peer.ts';

/** A frame of the browser's. */
const frame = (of: Frame): Buffer => encode(of, false);

/** A right answer, and what comes in the same read. */
function answerWith(accept: string, ...frames: Buffer[]): Buffer {
  return Buffer.concat([Buffer.from(accepted(accept)), ...frames]);
}

/** Writes in pieces of so many bytes, each in a read of its own. */
async function drip(socket: Socket, bytes: Buffer | string, length = 1): Promise<void> {
  const all = Buffer.from(bytes as string);
  for (let at = 0; at < all.length && socket.writable; at += length) {
    socket.write(all.subarray(at, at + length));
    await turn();
  }
}

export function handshakes(suite: Suite): void {
  const { harness } = suite;
  for (const length of [1, 2, 50, 128]) {
    it(`an answer in pieces of ${length} bytes is understood`, () =>
      harness().with(
        ({ browser, client }) => passes(browser, client, Buffer.alloc(0), []),
        (socket, accept) => void drip(socket, accepted(accept), length),
      ));
  }
  it('the header names of the answer may be in any case', () =>
    harness().with(
      ({ browser, client }) => passes(browser, client, Buffer.alloc(0), []),
      (socket, accept) => socket.write(accepted(accept).replace(/^[A-Z].*?:/gim, (name) => name.toLowerCase())),
    ));

  const early = [content(300, true), content(70_000, true), Buffer.alloc(0), content(5, true)];
  const frames = Buffer.concat(early.map((payload) => frame({ opcode: OP.binary, payload })));
  const wanted = early.map((data) => ({ binary: true, data }));
  it('messages in the same read as the answer arrive', () =>
    harness().with(
      async ({ client }) => same(await client.received(4), wanted),
      (socket, accept) => socket.write(answerWith(accept, frames)),
    ));
  for (const cut of [1, 2, 3, 200]) {
    it(`so does a message of which ${cut} bytes were in it`, () =>
      harness().with(
        async ({ client }) => same(await client.received(4), wanted),
        async (socket, accept) => {
          socket.write(answerWith(accept, frames.subarray(0, cut)));
          await turn();
          socket.write(frames.subarray(cut));
        },
      ));
  }
  it('a ping in the same read as the answer is answered', () =>
    harness().with(
      async ({ browser, client }) => {
        await browser.until(() => browser.pongs.length > 0, 'the pong');
        await passes(browser, client, Buffer.alloc(0), []);
      },
      (socket, accept) => socket.write(answerWith(accept, frame({ opcode: OP.ping, payload: 'x' }))),
    ));
  it('a message and a close in the same read as the answer arrive, and nothing behind them', () =>
    harness().with(
      async ({ client }) => {
        await client.atEnd();
        same(client.messages, [text('first')]);
        assert.deepEqual(client.close, { code: 1001, reason: 'gone' });
      },
      (socket, accept) => {
        const close = frame({ opcode: OP.close, payload: closePayload(1001, 'gone') });
        const [first, late] = ['first', 'late'].map((payload) => frame({ opcode: OP.text, payload })) as [
          Buffer,
          Buffer,
        ];
        socket.write(answerWith(accept, first, close, late));
      },
    ));
  it('a broken frame in the same read as the answer ends the client with 1002 and a reason', () =>
    harness().with(
      async ({ client }) => {
        await client.atEnd();
        assert.equal(client.close?.code, 1002);
        assert.match(client.close?.reason ?? '', /the browser sent/);
      },
      (socket, accept) => socket.write(answerWith(accept, frame({ opcode: 3 }))),
    ));
  it('an end in the same read as the answer ends the client with 1011 and a reason', () =>
    harness().with(
      async ({ client }) => {
        await client.atEnd();
        assert.equal(client.close?.code, 1011);
        assert.match(client.close?.reason ?? '', /browser has gone/);
      },
      (socket, accept) => socket.end(accepted(accept)),
    ));
  refusals(harness);
}

function refusals(harness: () => Harness): void {
  const GONE = { status: 404, message: /no such DevTools target/ };
  const REFUSED = (status: string) => ({ status: 502, message: new RegExp(`refused .* status ${status}`) });
  const head = (status: string, more = ''): string => `HTTP/1.1 ${status}\r\nContent-Length: 0\r\n${more}\r\n`;
  const cases: [string, Answer, { status: number; message: RegExp }][] = [
    [
      'a wrong accept',
      (to) => to.write(accepted('AAAAAAAAAAAAAAAAAAAAAAAAAAA=')),
      { status: 502, message: /wrong|Accept/ },
    ],
    ['no accept', (to) => to.write(head('101 Switching')), { status: 502, message: /wrong|Accept/ }],
    ['404', (to) => to.write(head('404 Not Found')), GONE],
    ['404 byte by byte', (to) => void drip(to, head('404 Not Found')), GONE],
    ['500', (to) => to.write(head('500 Internal Server Error')), GONE],
    ['302', (to) => to.write(head('302 Found', 'Location: http://elsewhere/\r\n')), REFUSED('302')],
    ['200 with the right accept', (to, accept) => to.write(accepted(accept).replace('101', '200')), REFUSED('200')],
    ['no HTTP at all', (to) => to.write('RFB 003.008\n\r\n\r\n'), REFUSED('unknown')],
    [
      'a header without end',
      (to) => void drip(to, `HTTP/1.1 101 X\r\nX: ${'a'.repeat(200_000)}`, 4096),
      { status: 502, message: /something else/ },
    ],
    [
      'lines without end',
      (to) => void drip(to, `HTTP/1.1 101 X\r\n${'a: b\r\n'.repeat(40_000)}`, 4096),
      { status: 502, message: /something else/ },
    ],
    ['an end without an answer', (to) => to.end(), { status: 502, message: /closed the connection/ }],
    ['an end within the answer', (to) => to.end('HTTP/1.1 101 Swi'), { status: 502, message: /closed the connection/ }],
    ['a reset', (to) => to.resetAndDestroy(), { status: 502, message: /cannot connect|closed the connection/ }],
  ];
  for (const [what, answer, { status, message }] of cases) {
    it(`${what} is refused readably before the client's 101`, async () => {
      const refusal = await harness().upgrade(answer);
      assert.equal(refusal.status, status);
      assert.match(refusal.body.message ?? '', message);
    });
  }
  it('silence is refused readably after a time', async () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      let isAsked = false;
      const refusal = harness().upgrade(() => {
        isAsked = true;
      });
      await eventually(() => isAsked, 'the question');
      mock.timers.tick(60_000);
      const { status, body } = await refusal;
      assert.equal(status, 502);
      assert.match(body.message ?? '', /did not answer in time/);
    } finally {
      mock.timers.reset();
    }
  });
}
