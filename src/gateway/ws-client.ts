import type { Socket } from 'node:net';
import { WebSocket } from 'ws';
import type { Bridge, ClientSocket } from './bridge.ts';
import { MAX_HEADER, OPCODE, plainFrame } from './frames.ts';
import { TOO_LARGE } from './pump.ts';

/**
 * Largest frame, and what the socket holds at most besides one. Node tells of a write only when all of it has left, so a slow
 * client's progress shows in steps of this, and a close frame has never more than this before it.
 */
const PIECE = 64 * 1024;

/**
 * Memory of large frames is used again: new memory for each brings the garbage collector in so often that it takes more
 * processor time than everything else together.
 */
const ROOM_BYTES = PIECE + MAX_HEADER;
const MAX_ROOMS = 32;
const rooms: ArrayBuffer[] = [];
/** Smaller frames come out of Node's own pool. */
const SMALL = 4096;

/** What the `ws` package makes for each client; it gives the code for a message that is too large but no reason. */
export class ReasonedWebSocket extends WebSocket {
  override close(code?: number, reason?: string | Buffer): void {
    super.close(code, code === 1009 && reason === undefined ? TOO_LARGE : reason);
  }
}

/**
 * One client of the `ws` front. The `ws` package reads, answers pings and closes; data frames are written past it, straight to
 * the socket: always whole ones in one call, so that both may write.
 */
export class WsClient implements ClientSocket {
  readonly bridge: Bridge;
  readonly #ws: WebSocket;
  readonly #socket: Socket;
  /** Frames that the socket has no room for yet, and their bytes. */
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #ending: (() => void) | undefined;
  /** What was read and whether something was written when it was last looked, and when either had changed. */
  #bytesRead = 0;
  #hasWritten = false;
  #heardAt = performance.now();

  constructor(ws: WebSocket, socket: Socket, bridge: Bridge) {
    this.#ws = ws;
    this.#socket = socket;
    this.bridge = bridge;
    // Followed by `close` with the code that belongs to it.
    ws.on('error', () => {});
    ws.on('close', (code, reason) => {
      this.#waiting = [];
      this.#waitingBytes = 0;
      bridge.onClientClosed(code, reason.toString());
    });
    ws.on('message', (data, binary) => bridge.onMessage(wholeBuffer(data as Buffer), binary));
    bridge.open(this);
  }

  send(data: string | Uint8Array, isBinary: boolean): number {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    return this.#write(isBinary ? OPCODE.binary : OPCODE.text, bytes, true);
  }

  sendFirstFragment(data: Uint8Array, isBinary: boolean): number {
    return this.#write(isBinary ? OPCODE.binary : OPCODE.text, data, false);
  }

  sendFragment(data: Uint8Array): number {
    return this.#write(OPCODE.continuation, data, false);
  }

  sendLastFragment(data: Uint8Array): number {
    return this.#write(OPCODE.continuation, data, true);
  }

  getBufferedAmount(): number {
    return this.#waitingBytes + this.#socket.writableLength;
  }

  cork(deliver: () => void): void {
    this.#socket.cork();
    try {
      deliver();
    } finally {
      this.#socket.uncork();
    }
  }

  end(code?: number, reason?: Uint8Array): void {
    this.#ending = () => this.#ws.close(code, reason && Buffer.from(reason));
    if (this.#waiting.length === 0) this.#ending();
  }

  close(): void {
    this.#ws.terminate();
  }

  ping(): void {
    this.#ws.ping();
  }

  /** Cuts off a client that for this long, in milliseconds, neither sent nor took anything. */
  cutIfSilent(limitMs: number): void {
    if (this.#hasWritten || this.#socket.bytesRead !== this.#bytesRead) {
      this.#hasWritten = false;
      this.#bytesRead = this.#socket.bytesRead;
      this.#heardAt = performance.now();
    } else if (performance.now() - this.#heardAt > limitMs) this.#ws.terminate();
  }

  /** A part of a message, as one frame or, where it is large, more. */
  #write(opcode: number, data: Uint8Array, last: boolean): number {
    // Behind a close frame nothing may be sent (RFC 6455 section 5.5.1).
    if (this.#ws.readyState !== WebSocket.OPEN || this.#ending) return 1;
    for (let at = 0; at === 0 || at < data.length; at += PIECE) {
      const piece = data.length <= PIECE ? data : data.subarray(at, at + PIECE);
      const isLast = last && at + PIECE >= data.length;
      const room = piece.length < SMALL ? undefined : (rooms.pop() ?? new ArrayBuffer(ROOM_BYTES));
      this.#push(plainFrame(at === 0 ? opcode : OPCODE.continuation, isLast, piece, room));
    }
    return this.getBufferedAmount() === 0 ? 1 : 0;
  }

  #push(frame: Buffer): void {
    if (this.#waiting.length === 0 && this.#socket.writableLength < PIECE) {
      this.#pass(frame);
      return;
    }
    this.#waiting.push(frame);
    this.#waitingBytes += frame.length;
  }

  #pass(frame: Buffer): void {
    if (frame.buffer.byteLength !== ROOM_BYTES) return void this.#socket.write(frame, this.#onWritten);
    this.#socket.write(frame, (err) => {
      if (!err && rooms.length < MAX_ROOMS) rooms.push(frame.buffer as ArrayBuffer);
      this.#onWritten();
    });
  }

  readonly #onWritten = (): void => {
    this.#hasWritten = true;
    let moved = 0;
    while (moved < this.#waiting.length && this.#socket.writableLength < PIECE) {
      const frame = this.#waiting[moved++] as Buffer;
      this.#waitingBytes -= frame.length;
      this.#pass(frame);
    }
    if (moved > 0) this.#waiting.splice(0, moved);
    if (this.#ending && this.#waiting.length === 0) this.#ending();
    else this.bridge.onDrain();
  };
}

/** The bridge takes whole ArrayBuffers, as uWebSockets.js has them. Large messages have one to themselves, small ones share one. */
function wholeBuffer(data: Buffer): ArrayBuffer {
  const buffer = data.buffer as ArrayBuffer;
  if (data.byteLength === buffer.byteLength) return buffer;
  return buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
}
