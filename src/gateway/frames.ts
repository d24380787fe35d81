/** Hand-written WebSocket framing of the leg towards Chromium (RFC 6455 section 5): parts are passed on as they arrive. */
import { isUtf8 } from 'node:buffer';

export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** What the parser hands on. Data chunks point into the read buffer; control payloads are copies. */
export interface FrameEvents {
  chunk(data: Uint8Array, binary: boolean, first: boolean, last: boolean): void;
  /** Nothing follows a close frame. */
  control(opcode: number, payload: Buffer): void;
  /** The bytes break the protocol or a limit; nothing follows. The code is that of the close frame to send. */
  fault(code: number, reason: string): void;
}

const NO_BYTES = Buffer.alloc(0);
const MAX_REASON = 123;
/** Longest header of a frame from a server: two bytes, eight of length, no mask. */
export const MAX_HEADER = 10;

/** Whether the bytes, taken from where a frame begins, are one unmasked frame of less than 64 KiB from end to end. */
export function isOneFrame(data: Uint8Array): boolean {
  const b1 = data[1];
  if (b1 === undefined) return false;
  if (b1 < 126) return data.length === 2 + b1;
  return b1 === 126 && data.length === 4 + (((data[2] as number) << 8) | (data[3] as number));
}

/** Reads unmasked frames from any split of the byte stream and never holds more than a header or a control frame. */
export class FrameParser {
  readonly #events: FrameEvents;
  readonly #maxMessage: number;
  /** Made when it is first needed: for whole messages it never is, and thousands of connections may idle. */
  #header = NO_BYTES;
  #headerLength = 0;
  #headerNeed = 2;
  /** Bytes of the current frame's payload that are still to come; -1 while its header is being read. */
  #left = -1;
  #opcode = 0;
  #fin = false;
  #control = NO_BYTES;
  #controlLength = 0;
  /** Size so far of the message in parts, and whether one is open. */
  #messageSize = 0;
  #inMessage = false;
  #binary = false;
  #firstChunk = false;
  #dead = false;

  constructor(events: FrameEvents, maxMessage: number) {
    this.#events = events;
    this.#maxMessage = maxMessage;
  }

  push(data: Uint8Array): void {
    if (this.#wholeMessage(data)) return;
    let at = 0;
    while (!this.#dead && (at < data.length || this.#left === 0)) {
      if (this.#left === -1) at = this.#readHeader(data, at);
      else at = this.#readPayload(data, at);
    }
  }

  /** Passes on a read that is one whole text or binary message and nothing else, as nearly all are; false when it is not. */
  #wholeMessage(data: Uint8Array): boolean {
    if (this.#left !== -1 || this.#headerLength > 0 || this.#inMessage || this.#dead) return false;
    const b0 = data[0] as number;
    if ((b0 !== 0x81 && b0 !== 0x82) || !isOneFrame(data)) return false;
    const payload = data.subarray((data[1] as number) < 126 ? 2 : 4);
    if (payload.length > this.#maxMessage) return false;
    this.#events.chunk(payload, b0 === 0x82, true, true);
    return true;
  }

  #readHeader(data: Uint8Array, from: number): number {
    if (this.#header.length === 0) this.#header = Buffer.alloc(MAX_HEADER);
    let at = from;
    while (at < data.length && this.#headerLength < this.#headerNeed) {
      this.#header[this.#headerLength++] = data[at++] as number;
      if (this.#headerLength === 2) {
        const length = (this.#header[1] as number) & 0x7f;
        this.#headerNeed = length === 127 ? 10 : length === 126 ? 4 : 2;
      }
    }
    if (this.#headerLength < this.#headerNeed) return at;
    this.#headerLength = 0;
    const need = this.#headerNeed;
    this.#headerNeed = 2;
    const b0 = this.#header[0] as number;
    const b1 = this.#header[1] as number;
    const length =
      need === 2 ? b1 & 0x7f : need === 4 ? this.#header.readUInt16BE(2) : Number(this.#header.readBigUInt64BE(2));
    this.#beginFrame(b0, (b1 & 0x80) !== 0, length);
    return at;
  }

  #beginFrame(b0: number, masked: boolean, length: number): void {
    const opcode = b0 & 0x0f;
    const fin = (b0 & 0x80) !== 0;
    if ((b0 & 0x70) !== 0 || masked)
      return this.#fault(1002, 'the browser sent a frame with bits that were not negotiated');
    this.#opcode = opcode;
    this.#fin = fin;
    this.#left = length;
    if (opcode >= 8) {
      if (!fin || length > 125 || opcode > 10) return this.#fault(1002, 'the browser sent a broken control frame');
      this.#control = Buffer.allocUnsafe(length);
      this.#controlLength = 0;
      return;
    }
    if (opcode > 2 || (opcode === OPCODE.continuation) !== this.#inMessage) {
      return this.#fault(1002, 'the browser sent a data frame out of order');
    }
    if (opcode !== OPCODE.continuation) {
      this.#inMessage = true;
      this.#binary = opcode === OPCODE.binary;
      this.#messageSize = 0;
      this.#firstChunk = true;
    }
    this.#messageSize += length;
    if (this.#messageSize > this.#maxMessage)
      this.#fault(1009, `the browser sent a message of more than ${this.#maxMessage} bytes`);
  }

  #readPayload(data: Uint8Array, from: number): number {
    const take = Math.min(this.#left, data.length - from);
    const part = data.subarray(from, from + take);
    this.#left -= take;
    const frameDone = this.#left === 0;
    if (frameDone) this.#left = -1;
    if (this.#opcode >= 8) {
      this.#control.set(part, this.#controlLength);
      this.#controlLength += take;
      if (frameDone) this.#endControl();
    } else {
      const last = frameDone && this.#fin;
      const first = this.#firstChunk;
      this.#firstChunk = false;
      if (last) this.#inMessage = false;
      this.#events.chunk(part, this.#binary, first, last);
    }
    return from + take;
  }

  #endControl(): void {
    if (this.#opcode === OPCODE.close) {
      if (!isClosePayload(this.#control)) return this.#fault(1002, 'the browser sent a broken close frame');
      this.#dead = true;
    }
    this.#events.control(this.#opcode, this.#control);
  }

  #fault(code: number, reason: string): void {
    this.#dead = true;
    this.#events.fault(code, reason);
  }
}

/**
 * One whole frame towards the browser. Clients must mask (RFC 6455 section 5.3); the key is zero, which leaves the
 * payload as it is: masking guards proxies between untrusted pages and servers, and this leg has neither.
 */
export function maskedFrame(opcode: number, payload: Uint8Array): Buffer {
  const length = payload.length;
  const head = length < 126 ? 2 : length < 65_536 ? 4 : 10;
  const frame = Buffer.allocUnsafe(head + 4 + length);
  frame[0] = 0x80 | opcode;
  if (head === 2) frame[1] = 0x80 | length;
  else if (head === 4) {
    frame[1] = 0x80 | 126;
    frame.writeUInt16BE(length, 2);
  } else {
    frame[1] = 0x80 | 127;
    frame.writeBigUInt64BE(BigInt(length), 2);
  }
  frame.writeUInt32BE(0, head);
  frame.set(payload, head + 4);
  return frame;
}

/** Whether a close frame may have it: nothing, or a code that may stand on the wire (RFC 6455 section 7.4, IANA) and UTF-8. */
function isClosePayload(payload: Buffer): boolean {
  if (payload.length < 2) return payload.length === 0;
  const code = payload.readUInt16BE(0);
  const isLegal = (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) || (code >= 3000 && code <= 4999);
  return isLegal && isUtf8(payload.subarray(2));
}

/** A reason's bytes as far as a close frame has room for them: it carries at most 125, two of them the code. No character is cut in two. */
export function closeReason(reason: string): Buffer {
  const bytes = Buffer.from(reason);
  let end = Math.min(bytes.length, MAX_REASON);
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}

/** Payload of a close frame; codes that must not stand on the wire (1005, 1006, 1015) give an empty one. */
export function closePayload(code: number, reason: string): Buffer {
  if (code < 1000 || code === 1005 || code === 1006 || code === 1015) return Buffer.alloc(0);
  const text = closeReason(reason);
  const payload = Buffer.allocUnsafe(2 + text.length);
  payload.writeUInt16BE(code, 0);
  payload.set(text, 2);
  return payload;
}

/** One whole frame towards a client, with a copy of the payload: servers do not mask. `room` is memory to use, large enough. */
export function plainFrame(opcode: number, fin: boolean, payload: Uint8Array, room?: ArrayBuffer): Buffer {
  const length = payload.byteLength;
  const head = length < 126 ? 2 : length < 65_536 ? 4 : MAX_HEADER;
  const frame = room ? Buffer.from(room, 0, head + length) : Buffer.allocUnsafe(head + length);
  frame[0] = fin ? 0x80 | opcode : opcode;
  if (head === 2) frame[1] = length;
  else if (head === 4) {
    frame[1] = 126;
    frame.writeUInt16BE(length, 2);
  } else {
    frame[1] = 127;
    frame.writeBigUInt64BE(BigInt(length), 2);
  }
  frame.set(payload, head);
  return frame;
}
