import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';

/** Written here once more, so that a mistake in src/gateway/frames.ts does not prove itself right. */
export const OP = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;
/** Nothing in the suite waits longer than this, in milliseconds; all of it takes a small part. */
export const PATIENCE_MS = 10_000;

/** A frame of which every bit can be chosen. */
export interface Frame {
  readonly opcode: number;
  readonly payload?: Uint8Array | string;
  /** Default true. */
  readonly fin?: boolean;
  /** The three reserved bits, 0 to 7. */
  readonly rsv?: number;
  /** Four bytes, or null for no mask; default: as the side that sends it must. */
  readonly mask?: Uint8Array | null;
  /** What the header says instead of the payload's own length. */
  readonly length?: bigint;
}

export interface Message {
  readonly binary: boolean;
  readonly data: Buffer;
}

export interface Close {
  /** 1005 when the frame has no payload. */
  readonly code: number;
  readonly reason: string;
}

/** How bytes are cut into writes: whole, in pieces of this many bytes, or as a function says how long the next piece is. */
export type Cut = 'whole' | number | (() => number);

/** A frame's bytes; `masks` says whether the side that sends it must mask. */
export function encode({ opcode, payload = '', fin = true, rsv = 0, mask, length }: Frame, masks: boolean): Buffer {
  const body = Buffer.from(payload as string);
  const said = length ?? BigInt(body.length);
  const key = mask === undefined ? (masks ? randomBytes(4) : null) : mask;
  const bits = key ? 0x80 : 0;
  const head = Buffer.alloc(said < 126n ? 2 : said < 65_536n ? 4 : 10);
  head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  if (head.length === 2) head[1] = bits | Number(said);
  else if (head.length === 4) {
    head[1] = bits | 126;
    head.writeUInt16BE(Number(said), 2);
  } else {
    head[1] = bits | 127;
    head.writeBigUInt64BE(said, 2);
  }
  if (!key) return Buffer.concat([head, body]);
  for (let i = 0; i < body.length; i++) (body[i] as number) ^= key[i % 4] as number;
  return Buffer.concat([head, key, body]);
}

export function closePayload(code: number, reason: string | Uint8Array = ''): Buffer {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return Buffer.concat([head, Buffer.from(reason as string)]);
}

/** One end of a WebSocket on a bare TCP socket: sends any bytes, and holds what it reads against RFC 6455 bit by bit. */
export class Peer {
  readonly socket: Socket;
  readonly messages: Message[] = [];
  /** Without those that the gateway sends to a client by itself from time to time, which are empty. */
  readonly pings: Buffer[] = [];
  readonly pongs: Buffer[] = [];
  /** The close frame that came, if one did. */
  close: Close | undefined;
  /** The other side has ended the TCP connection, or broken it. */
  ended = false;
  /** What came that no correct sender sends. */
  readonly faults: string[] = [];
  /** Answers a close frame with the same, as it must. Off: the test closes by itself. */
  answersClose = true;
  readonly #isClient: boolean;
  /** What was read of a frame that is not there from end to end, its length, and the least that the frame has. */
  #unread: Buffer[] = [];
  #unreadLength = 0;
  #need = 2;
  #parts: Buffer[] | undefined;
  #binary = false;
  #closeSent = false;
  #onChange: (() => void)[] = [];

  constructor(socket: Socket, isClient: boolean) {
    this.socket = socket;
    this.#isClient = isClient;
    socket.setNoDelay(true);
    socket.on('data', (data) => this.#read(data));
    const end = (): void => {
      this.ended = true;
      this.#changed();
    };
    for (const event of ['end', 'close', 'error']) socket.on(event, end);
  }

  frame(frame: Frame): Buffer {
    return encode(frame, this.#isClient);
  }

  /** Frames of one message, cut behind each of these many bytes; what is left is the last. */
  message(binary: boolean, data: Uint8Array | string, ...cuts: number[]): Buffer[] {
    const body = Buffer.from(data as string);
    let at = 0;
    return [...cuts, body.length].map((cut, i, all) => {
      const last = i === all.length - 1;
      const payload = body.subarray(at, last ? body.length : at + cut);
      at += payload.length;
      return this.frame({ opcode: i > 0 ? OP.continuation : binary ? OP.binary : OP.text, payload, fin: last });
    });
  }

  /** Writes bytes as they are. Between two pieces the gateway, in this process, reads the one before. */
  async write(bytes: Uint8Array, cut: Cut = 'whole'): Promise<void> {
    for (let at = 0; at < bytes.length && this.socket.writable; ) {
      const length = cut === 'whole' ? bytes.length : Math.max(1, typeof cut === 'number' ? cut : cut());
      const isTaken = this.socket.write(bytes.subarray(at, at + length));
      at += length;
      if (!isTaken) await eventually(() => this.socket.writableLength === 0 || this.ended, 'room to write');
      if (at < bytes.length) await turn();
    }
  }

  async send(...frames: Frame[]): Promise<void> {
    await this.write(Buffer.concat(frames.map((frame) => this.frame(frame))));
  }

  async sendClose(payload: Uint8Array | string = ''): Promise<void> {
    this.#closeSent = true;
    await this.send({ opcode: OP.close, payload });
  }

  /** Waits for something to become true of what has come in. */
  async until(isTrue: () => boolean, what: string): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    while (!isTrue()) {
      if (performance.now() > deadline) assert.fail(`${what} did not come: ${this}`);
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#onChange.push(resolve);
        timer = setTimeout(resolve, 1000);
      });
      clearTimeout(timer);
    }
  }

  /** The first so many messages that came. */
  async received(count: number): Promise<readonly Message[]> {
    await this.until(() => this.messages.length >= count || this.ended, `message ${count}`);
    return this.messages;
  }

  /** All that was going to come has come. */
  async atEnd(): Promise<void> {
    await this.until(() => this.ended, 'the end of the connection');
  }

  toString(): string {
    const side = this.#isClient ? 'client' : 'browser';
    const said = this.close ? `close ${this.close.code} "${this.close.reason}"` : 'no close';
    const counts = `${this.messages.length} messages, ${this.pings.length} pings, ${this.pongs.length} pongs`;
    return `the ${side} has read ${counts}, ${said}, ended ${this.ended}, faults [${this.faults.join('; ')}]`;
  }

  #changed(): void {
    for (const wake of this.#onChange.splice(0)) wake();
  }

  #read(data: Buffer): void {
    this.#unread.push(data);
    this.#unreadLength += data.length;
    if (this.#unreadLength >= this.#need) {
      let bytes = Buffer.concat(this.#unread);
      for (let length = this.#take(bytes); length > 0; length = this.#take(bytes)) bytes = bytes.subarray(length);
      this.#unread = [bytes];
      this.#unreadLength = bytes.length;
    }
    this.#changed();
  }

  /** Reads the frame at the beginning, when it is there from end to end, and answers its length; 0 when it is not. */
  #take(bytes: Buffer): number {
    this.#need = 2;
    const [b0, b1] = bytes;
    if (b0 === undefined || b1 === undefined) return 0;
    const form = b1 & 0x7f;
    let at = form === 127 ? 10 : form === 126 ? 4 : 2;
    const isMasked = b1 >= 0x80;
    if (bytes.length < at + (isMasked ? 4 : 0)) return 0;
    const length = form === 127 ? Number(bytes.readBigUInt64BE(2)) : form === 126 ? bytes.readUInt16BE(2) : form;
    const key = isMasked ? bytes.subarray(at, at + 4) : undefined;
    at += isMasked ? 4 : 0;
    this.#need = at + length;
    if (bytes.length < this.#need) return 0;
    this.#must((form !== 126 || length > 125) && (form !== 127 || length > 65_535), 'a length in too long a form');
    this.#must(isMasked !== this.#isClient, isMasked ? 'a masked frame of a server' : 'an unmasked frame of a client');
    this.#must((b0 & 0x70) === 0, 'a reserved bit');
    const payload = Buffer.from(bytes.subarray(at, at + length));
    if (key?.some((byte) => byte !== 0))
      for (let i = 0; i < length; i++) (payload[i] as number) ^= key[i % 4] as number;
    this.#onFrame(b0 & 0x0f, b0 >= 0x80, payload);
    return at + length;
  }

  #onFrame(opcode: number, fin: boolean, payload: Buffer): void {
    this.#must(!this.close, `a frame with opcode ${opcode} behind the close frame`);
    if (opcode >= 8) {
      this.#must(fin && payload.length <= 125, 'a control frame in fragments or of more than 125 bytes');
      if (opcode === OP.close) this.#onClose(payload);
      else if (opcode === OP.ping) {
        if (!this.#isClient || payload.length > 0) this.pings.push(payload);
      } else if (opcode === OP.pong) this.pongs.push(payload);
      else this.#must(false, `the reserved opcode ${opcode}`);
      return;
    }
    this.#must(opcode <= 2, `the reserved opcode ${opcode}`);
    this.#must((opcode === OP.continuation) === (this.#parts !== undefined), 'a data frame out of order');
    if (opcode !== OP.continuation) this.#binary = opcode === OP.binary;
    this.#parts ??= [];
    this.#parts.push(payload);
    if (!fin) return;
    this.messages.push({ binary: this.#binary, data: Buffer.concat(this.#parts) });
    this.#parts = undefined;
  }

  #onClose(payload: Buffer): void {
    this.#must(payload.length !== 1, 'a close frame with one byte');
    const code = payload.length < 2 ? 1005 : payload.readUInt16BE(0);
    this.#must(payload.length < 2 || LEGAL(code), `the close code ${code}`);
    const reason = payload.subarray(2).toString();
    this.#must(Buffer.from(reason).equals(payload.subarray(2)), 'a close reason that is no UTF-8');
    this.close = { code, reason };
    if (!this.answersClose || this.#closeSent || !this.socket.writable) return;
    this.#closeSent = true;
    const answer = this.frame({ opcode: OP.close, payload });
    // It is the server that ends the TCP connection first (RFC 6455 section 7.1.1).
    if (this.#isClient) this.socket.write(answer);
    else this.socket.end(answer);
  }

  #must(holds: boolean, what: string): void {
    if (!holds) this.faults.push(what);
  }
}

/** Whether a close code may stand on the wire (RFC 6455 section 7.4 and IANA's registry). */
const LEGAL = (code: number): boolean =>
  (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) || (code >= 3000 && code <= 4999);

/** Waits for something that needs no more than turns of the event loop. */
export async function eventually(isTrue: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!isTrue()) {
    if (performance.now() > deadline) assert.fail(`${what} did not come`);
    await turn();
  }
}

/** One turn of the event loop, in which everything that is ready to be read is read. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
