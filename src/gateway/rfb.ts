/**
 * What a viewer sends, RFC 6143 and those extensions of it that noVNC uses, cut into its messages. The VNC server gets whole,
 * known messages and nothing else, so at every moment the next byte it waits for is the type of a message: whatever a client
 * sends, and however it is cut, what it may not send does not arrive, and keys can be released in between.
 */

/** Where the bytes go. Each is dead when the call returns. */
export interface RfbWire {
  toServer(bytes: Uint8Array): void;
  toClient(bytes: Uint8Array): void;
}

/** Why a connection has to end. */
export interface Violation {
  readonly code: 1008 | 1009;
  readonly reason: string;
}

/** Largest WebSocket message of a viewer, in bytes: more than any message of RFB that the VNC server takes. */
export const MAX_FROM_VIEWER = 1024 * 1024;

/** Types of client messages (RFC 6143 section 7.5; the rfbproto document for those from 150 on). */
const SET_PIXEL_FORMAT = 0;
const SET_ENCODINGS = 2;
const UPDATE_REQUEST = 3;
const KEY = 4;
const POINTER = 5;
const CUT_TEXT = 6;
const CONTINUOUS_UPDATES = 150;
const FENCE = 248;
const SET_DESKTOP_SIZE = 251;
const QEMU = 255;
const QEMU_KEY = 0;

/** TigerVNC reads longer texts for the clipboard and forgets them (`MaxCutText`), so they end here. */
const MAX_CUT_TEXT = 256 * 1024;
/** TigerVNC ignores fences with more. */
const MAX_FENCE = 64;
/** More keys than a keyboard has. What is pressed beyond is not passed on. */
const MAX_HELD = 256;
/** Tells a key that was pressed by its code from one that was pressed by its symbol. */
const BY_CODE = 2 ** 32;

/** With it a pointer message is seven bytes long for servers that know it and six for those that do not: nobody in between could tell. */
const EXTENDED_MOUSE_BUTTONS = -316;
/** A restart or shutdown of the machine: nothing that a sandbox has. */
const XVP = -309;
const EXTENDED_CLIPBOARD = 0xc0a1e5ce | 0;
const QEMU_KEYS = -258;
const NEVER: readonly number[] = [EXTENDED_MOUSE_BUTTONS, XVP];
const NOT_TO_LOOK: readonly number[] = [...NEVER, EXTENDED_CLIPBOARD, QEMU_KEYS];

const BANNER = Buffer.from('RFB 003.008\n');
const NONE = 1;

/** The client's side of one viewer's connection: shakes hands with it, and passes on what it may send. */
export class RfbFilter {
  readonly #wire: RfbWire;
  readonly #viewOnly: boolean;
  #state: 'version' | 'security' | 'init' | 'messages' = 'version';
  #version = 8;
  /** The beginning of a message, and how much of it is there. */
  #begun: Buffer | undefined;
  #have = 0;
  /** Bytes still to come of a message that is not passed on. */
  #skip = 0;
  /** What is to be sent when all that has come is dealt with. */
  #out: Buffer | undefined;
  #outLength = 0;
  #controls = false;
  #held: Map<number, number> | undefined;
  #buttons = 0;
  #x = 0;
  #y = 0;

  /** `viewOnly`: it never controls, and is not to hear of the clipboard. */
  constructor(wire: RfbWire, viewOnly: boolean) {
    this.#wire = wire;
    this.#viewOnly = viewOnly;
  }

  /** The server speaks first. */
  greet(): void {
    this.#wire.toClient(BANNER);
  }

  /** Whether keys, pointer and clipboard go to the desktop. What is held down when they no longer do is released. */
  set controls(controls: boolean) {
    this.#controls = controls && !this.#viewOnly;
    if (!this.#controls) this.release();
  }

  /** Lets go of all keys and buttons that are held down. */
  release(): void {
    for (const [key, symbol] of this.#held ?? []) this.#wire.toServer(keyUp(key, symbol));
    this.#held = undefined;
    if (this.#buttons === 0) return;
    this.#buttons = 0;
    const message = Buffer.of(POINTER, 0, 0, 0, 0, 0);
    message.writeUInt16BE(this.#x, 2);
    message.writeUInt16BE(this.#y, 4);
    this.#wire.toServer(message);
  }

  /** Bytes from the client. Answers why the connection has to end, when it has to; nothing may be pushed after that. */
  push(data: Buffer): Violation | undefined {
    if (data.length > MAX_FROM_VIEWER) {
      return { code: 1009, reason: `a message of a viewer may have ${MAX_FROM_VIEWER} bytes` };
    }
    const room = this.#have + data.length;
    const violation = this.#cut(data, room);
    if (this.#out) this.#wire.toServer(this.#out.subarray(0, this.#outLength));
    this.#out = undefined;
    this.#outLength = 0;
    return violation;
  }

  #cut(data: Buffer, room: number): Violation | undefined {
    let at = 0;
    while (at < data.length) {
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, data.length - at);
        this.#skip -= skipped;
        at += skipped;
        continue;
      }
      const begun = this.#begun;
      if (begun) {
        const copied = data.copy(begun, this.#have, at);
        this.#have += copied;
        at += copied;
        if (this.#have < begun.length) return undefined;
      }
      const [bytes, from, to] = begun ? [begun, 0, this.#have] : [data, at, data.length];
      const length = this.#lengthOf(bytes, from, to);
      if (length === undefined)
        return { code: 1008, reason: `RFB: messages of type ${bytes[from]} are not taken here` };
      if (from + length > to) {
        if (!begun) at = data.length;
        this.#begin(bytes, from, to, length);
        continue;
      }
      if (begun) {
        this.#begun = undefined;
        this.#have = 0;
      } else at += length;
      const violation = this.#take(bytes, from, length, room);
      if (violation) return violation;
    }
    return undefined;
  }

  /** Keeps what is there of a message until there is as much as is needed to say more; the longest only until it is known to be too long. */
  #begin(bytes: Buffer, from: number, to: number, length: number): void {
    this.#begun = undefined;
    this.#have = 0;
    if (this.#state === 'messages' && bytes[from] === CUT_TEXT && length > 8 + MAX_CUT_TEXT) {
      this.#skip = length - (to - from);
      return;
    }
    // Not from the pool: a message that never ends would keep all that lies beside it.
    this.#begun = Buffer.allocUnsafeSlow(length);
    this.#have = bytes.copy(this.#begun, 0, from, to);
  }

  /** How long what begins here is, or how much of it is needed to say so; undefined when nobody knows. */
  #lengthOf(bytes: Buffer, at: number, end: number): number | undefined {
    if (this.#state !== 'messages') return this.#state === 'version' ? 12 : 1;
    const there = end - at;
    switch (bytes[at]) {
      case SET_PIXEL_FORMAT:
        return 20;
      case SET_ENCODINGS:
        return there < 4 ? 4 : 4 + 4 * bytes.readUInt16BE(at + 2);
      case UPDATE_REQUEST:
      case CONTINUOUS_UPDATES:
        return 10;
      case KEY:
        return 8;
      case POINTER:
        return 6;
      case CUT_TEXT:
        // Negative where what follows is the extended clipboard's.
        return there < 8 ? 8 : 8 + Math.abs(bytes.readInt32BE(at + 4));
      case FENCE:
        return there < 9 ? 9 : 9 + (bytes[at + 8] as number);
      case SET_DESKTOP_SIZE:
        return there < 8 ? 8 : 8 + 16 * (bytes[at + 6] as number);
      case QEMU:
        return there < 2 ? 2 : bytes[at + 1] === QEMU_KEY ? 12 : undefined;
      default:
        return undefined;
    }
  }

  /** One whole message. */
  #take(bytes: Buffer, at: number, length: number, room: number): Violation | undefined {
    if (this.#state !== 'messages') return this.#shake(bytes.subarray(at, at + length));
    switch (bytes[at]) {
      case SET_ENCODINGS:
        this.#pass(withoutEncodings(bytes.subarray(at, at + length), this.#viewOnly ? NOT_TO_LOOK : NEVER), room);
        return undefined;
      case FENCE:
        if (length > 9 + MAX_FENCE) return undefined;
        break;
      case KEY:
      case QEMU:
        if (!this.#controls || !this.#noteKey(bytes, at)) return undefined;
        break;
      case POINTER:
        if (!this.#controls) return undefined;
        this.#buttons = bytes[at + 1] as number;
        this.#x = bytes.readUInt16BE(at + 2);
        this.#y = bytes.readUInt16BE(at + 4);
        break;
      case CUT_TEXT:
        if (!this.#controls || length > 8 + MAX_CUT_TEXT) return undefined;
        break;
      case SET_DESKTOP_SIZE:
        // The size of a sandbox's screen is fixed; TigerVNC would refuse it, and takes one that comes in two parts for two messages.
        return undefined;
    }
    this.#pass(bytes.subarray(at, at + length), room);
    return undefined;
  }

  #shake(bytes: Buffer): Violation | undefined {
    if (this.#state === 'version') {
      const minor = /^RFB 003\.(\d{3})\n$/.exec(bytes.toString('latin1'))?.[1];
      if (minor === undefined) return { code: 1008, reason: 'RFB: a version 3.3, 3.7 or 3.8 was expected' };
      // RFC 6143 section 7.1.1: others than the three stand for 3.3. TigerVNC takes those above for 3.8.
      this.#version = Number(minor) >= 8 ? 8 : minor === '007' ? 7 : 3;
      // In 3.3 the server chooses.
      this.#wire.toClient(this.#version === 3 ? Buffer.of(0, 0, 0, NONE) : Buffer.of(1, NONE));
      this.#state = this.#version === 3 ? 'init' : 'security';
    } else if (this.#state === 'security') {
      if (bytes[0] !== NONE) return { code: 1008, reason: 'RFB: the one security type is 1, None' };
      if (this.#version === 8) this.#wire.toClient(Buffer.of(0, 0, 0, 0));
      this.#state = 'init';
    } else {
      // Always shared, or it would ask to have the others thrown out.
      this.#wire.toServer(Buffer.of(1));
      this.#state = 'messages';
    }
    return undefined;
  }

  /** Puts a message behind those that are sent together; all of them have room, since none grows. */
  #pass(message: Buffer, room: number): void {
    this.#out ??= Buffer.allocUnsafe(room);
    this.#outLength += message.copy(this.#out, this.#outLength);
  }

  /** Whether the key may be passed on. */
  #noteKey(bytes: Buffer, at: number): boolean {
    const byCode = bytes[at] === QEMU;
    const down = byCode ? bytes.readUInt16BE(at + 2) !== 0 : bytes[at + 1] !== 0;
    const symbol = bytes.readUInt32BE(at + 4);
    const key = byCode ? BY_CODE + bytes.readUInt32BE(at + 8) : symbol;
    this.#held ??= new Map();
    if (!down) this.#held.delete(key);
    else if (this.#held.has(key) || this.#held.size < MAX_HELD) this.#held.set(key, symbol);
    else return false;
    return true;
  }
}

/** The message that lets go of a key. */
function keyUp(key: number, symbol: number): Buffer {
  const message = Buffer.alloc(key < BY_CODE ? 8 : 12);
  message[0] = key < BY_CODE ? KEY : QEMU;
  message.writeUInt32BE(symbol, 4);
  if (key >= BY_CODE) message.writeUInt32BE(key - BY_CODE, 8);
  return message;
}

/** A SetEncodings without these. */
function withoutEncodings(message: Buffer, unwanted: readonly number[]): Buffer {
  const kept = Buffer.allocUnsafe(message.length);
  message.copy(kept, 0, 0, 4);
  let length = 4;
  for (let at = 4; at < message.length; at += 4) {
    const encoding = message.readInt32BE(at);
    if (!unwanted.includes(encoding)) length = kept.writeInt32BE(encoding, length);
  }
  kept.writeUInt16BE((length - 4) / 4, 2);
  return kept.subarray(0, length);
}
