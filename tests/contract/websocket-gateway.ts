import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { Counters } from '../../src/core/counters.ts';
import { AppError } from '../../src/core/errors.ts';
import { Presence } from '../../src/core/presence.ts';
import type { Sandboxes } from '../../src/core/sandboxes.ts';
import type { Front, GatewayOptions } from '../../src/gateway/connect.ts';
import { noAudit, openAccess } from '../unit/doors.ts';
import { PATIENCE_MS, Peer, turn } from './websocket-peer.ts';

/** Makes the front that is to be tested. */
export type OpenFront = (options: GatewayOptions) => Front;

/** What the stand-in for the browser does with a handshake; `accept` is the right answer to its key. */
export type Answer = (socket: Socket, accept: string, request: string) => void;

/** Both ends of one connection through the gateway. */
export interface Pair {
  readonly client: Peer;
  readonly browser: Peer;
}

/** The answer of a browser that takes the connection. */
export function accepted(accept: string): string {
  return `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`;
}

/** The HTTP answer to a client's handshake, and the peer that is behind a 101. */
export interface Upgraded {
  readonly status: number;
  /** Of a refusal, parsed. */
  readonly body: { code?: number; message?: string };
  readonly client: Peer | undefined;
}

/** The real gateway between a client and a browser that are both bare TCP sockets of ours. */
export class Harness {
  readonly #front: Front;
  readonly #upstream: Server;
  readonly #sockets = new Set<Socket>();
  /** By the number of the DevTools page, which is how the two ends of a connection are told from others. */
  readonly #answers = new Map<string, Answer>();
  readonly #browsers = new Map<string, (peer: Peer) => void>();
  #port = 0;
  #count = 0;

  private constructor(openFront: OpenFront) {
    this.#upstream = createServer((socket) => this.#onUpstream(socket));
    const presence = new Presence('suite', () => {});
    const join = () => {
      const { port } = this.#upstream.address() as AddressInfo;
      return presence.join('client', { endpoint: { host: '127.0.0.1', port }, prefix: '' }, '/', () => 'restart');
    };
    const sandboxes = {
      find: () => ({ spec: {} }),
      attach: async (_id: string, _record: boolean, _signal: AbortSignal, not?: string) => {
        // As of a sandbox whose browser is not followed by another in time.
        if (not !== undefined) throw new AppError('BROWSER_UNREACHABLE', 'its browser is down');
        return join();
      },
    } as unknown as Sandboxes;
    const log = { info() {}, warn() {}, error: console.error };
    const access = openAccess();
    this.#front = openFront({
      access,
      sandboxes,
      apiSocket: '/nowhere',
      counters: new Counters(),
      audit: noAudit,
      log,
    });
  }

  static async open(openFront: OpenFront): Promise<Harness> {
    const harness = new Harness(openFront);
    await new Promise<void>((resolve) => harness.#upstream.listen(0, '127.0.0.1', resolve));
    harness.#port = await harness.#front.listen('127.0.0.1', 0);
    return harness;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#front.close();
    await new Promise((resolve) => this.#upstream.close(resolve));
  }

  /** Gives a test a connection, and looks at the end whether either side was sent what it never should be. */
  async with(use: (pair: Pair) => Promise<void>, answer?: Answer): Promise<void> {
    const pair = await this.pair(answer);
    try {
      await use(pair);
      assert.deepEqual([pair.client.faults, pair.browser.faults], [[], []], `${pair.client}; ${pair.browser}`);
    } finally {
      pair.client.socket.destroy();
      pair.browser.socket.destroy();
    }
  }

  async pair(answer?: Answer): Promise<Pair> {
    const page = `p${++this.#count}`;
    const browser = new Promise<Peer>((resolve) => this.#browsers.set(page, resolve));
    const { client, status, body } = await this.upgrade(answer, page);
    return { client: client ?? assert.fail(`${status} ${body.message}`), browser: await browser };
  }

  /** A client's handshake, whatever comes of it. */
  async upgrade(answer?: Answer, page = `p${++this.#count}`): Promise<Upgraded> {
    if (answer) this.#answers.set(page, answer);
    const socket = connect(this.#port, '127.0.0.1');
    this.#keep(socket);
    const key = randomBytes(16).toString('base64');
    socket.write(
      `GET /sandboxes/suite/devtools/page/${page} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n` +
        `Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`,
    );
    socket.setTimeout(PATIENCE_MS, () => socket.destroy());
    const { head, rest } = await readHead(socket);
    socket.setTimeout(0);
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]);
    if (status === 101) {
      assert.match(head, new RegExp(`sec-websocket-accept: ${escaped(acceptOf(key))}\r\n`, 'i'));
      return { status, body: {}, client: this.#peer(socket, true, rest) };
    }
    const text = await readBody(socket, head, rest);
    socket.destroy();
    return { status, body: JSON.parse(text), client: undefined };
  }

  async #onUpstream(socket: Socket): Promise<void> {
    this.#keep(socket);
    const { head, rest } = await readHead(socket).catch(() => ({ head: '', rest: Buffer.alloc(0) }));
    const page = /^GET \/devtools\/page\/(\w+) /.exec(head)?.[1] ?? '';
    const accept = acceptOf(/^sec-websocket-key: (\S+)\r$/im.exec(head)?.[1] ?? '');
    const answer = this.#answers.get(page) ?? ((to) => to.write(accepted(accept)));
    const peer = this.#peer(socket, false, rest);
    answer(socket, accept, head);
    this.#browsers.get(page)?.(peer);
  }

  #peer(socket: Socket, isClient: boolean, early: Buffer): Peer {
    const peer = new Peer(socket, isClient);
    if (early.length > 0) socket.emit('data', early);
    return peer;
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    // A peer sees errors as an end; without one they are nothing.
    socket.on('error', () => {});
    socket.once('close', () => this.#sockets.delete(socket));
  }
}

function acceptOf(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
}

function escaped(text: string): string {
  return text.replace(/[+/=]/g, '\\$&');
}

/** Reads up to the blank line, and what came behind it in the same read. */
function readHead(socket: Socket): Promise<{ head: string; rest: Buffer }> {
  return new Promise((resolve, reject) => {
    let all = Buffer.alloc(0);
    const onEnd = (): void => reject(new Error(`ended within the head: ${all}`));
    const onData = (data: Buffer): void => {
      all = Buffer.concat([all, data]);
      const end = all.indexOf('\r\n\r\n');
      if (end < 0) return;
      socket.off('data', onData);
      socket.off('close', onEnd);
      resolve({ head: all.subarray(0, end + 4).toString('latin1'), rest: all.subarray(end + 4) });
    };
    socket.on('data', onData);
    socket.once('close', onEnd);
  });
}

async function readBody(socket: Socket, head: string, early: Buffer): Promise<string> {
  const length = Number(/^content-length: (\d+)\r$/im.exec(head)?.[1]);
  let body = early;
  socket.on('data', (data: Buffer) => {
    body = Buffer.concat([body, data]);
  });
  while (body.length < length && !socket.destroyed) await turn();
  return body.toString();
}
