import type { WebSocket } from 'uWebSockets.js';
import type { Bytes } from '../core/counters.ts';
import type { Attachment } from '../core/presence.ts';
import { type BrowserCloseCall, browserCloseIn } from './close.ts';
import { closeReason } from './frames.ts';
import { MAX_TO_BROWSER, type Sink, type Source, TOO_LARGE } from './pump.ts';

/** The client's side: over this many unsent bytes the source is paused, and resumed when half of them are gone. */
const HIGH_MARK = 1024 * 1024;
/** A client that lets unsent bytes stand for this long without taking one is closed, in milliseconds. */
const SLOW_CLIENT_MS = 30_000;
/** The browser's side: a client that sends more than the browser reads is closed when this much waits: one largest message and some. */
const MAX_QUEUED = 128 * 1024 * 1024;
/** How long a closed client may take to read what is left before the socket is cut, in milliseconds. */
const CLOSE_PATIENCE_MS = 5000;

/** What uWebSockets.js keeps for us with each socket: it copies the properties of the object it is given, so the bridge is one of them. */
export interface UserData {
  readonly bridge: Bridge;
}

/** What a bridge needs of a client's socket. Sending answers 1 sent, 0 queued, 2 dropped; data may be dead when it returns. */
export interface ClientSocket {
  send(data: string | Uint8Array, isBinary: boolean): number;
  sendFirstFragment(data: Uint8Array, isBinary: boolean): number;
  sendFragment(data: Uint8Array): number;
  sendLastFragment(data: Uint8Array): number;
  /** Bytes sent that the socket has not taken. */
  getBufferedAmount(): number;
  cork(deliver: () => void): unknown;
  /** Sends a close frame behind all that was sent. */
  end(code?: number, reason?: Uint8Array): void;
  /** Cuts it off. May throw when it is closed. */
  close(): void;
}

/** The fragment calls exist in the binary since v20 but are missing in this mirror's types. */
export type FragmentSocket = WebSocket<UserData> & ClientSocket;

/** Joins one client WebSocket to one source: bytes only, under back-pressure both ways, and the end of one is the end of the other. */
export class Bridge implements Sink {
  readonly #source: Source;
  readonly #attachment: Attachment;
  readonly #bytes: Bytes;
  #ws: ClientSocket | undefined;
  #paused = false;
  #slowTimer: NodeJS.Timeout | undefined;
  #buffered = 0;
  #over = false;
  /** A message to the client has begun and not ended: only control frames may come in between (RFC 6455 section 5.4). */
  #inMessage = false;
  #afterMessage: (() => void) | undefined;

  /** `bytes` are counted up, and shared with other bridges of the kind. */
  constructor(source: Source, attachment: Attachment, bytes: Bytes) {
    this.#source = source;
    this.#attachment = attachment;
    this.#bytes = bytes;
  }

  /** The client's upgrade is complete. */
  open(ws: ClientSocket): void {
    this.#ws = ws;
    this.#source.start(this);
    this.#attachment.onEnd = ({ code, reason }) => this.end(code, reason);
  }

  /** One whole message from the client. */
  onMessage(message: ArrayBuffer, binary: boolean): void {
    this.#attachment.active();
    const bytes = Buffer.from(message);
    this.#bytes.in += bytes.length;
    if (bytes.length > MAX_TO_BROWSER) return this.end(1009, TOO_LARGE);
    const close = browserCloseIn(bytes);
    if (close && this.#closesBrowser(close)) return;
    this.#source.send(bytes, binary);
    if (this.#source.queued > MAX_QUEUED) this.end(1008, 'the browser does not read what is sent to it');
  }

  /** Whether the browser is not to hear of it. */
  #closesBrowser(call: BrowserCloseCall): boolean {
    const policy = this.#attachment.closeBrowser();
    if (policy === 'restart') return false;
    const answer = (): void => {
      this.#ws?.send(JSON.stringify({ ...call, result: {} }), false);
      if (policy === 'keep') this.end(1000, 'Browser.close: this sandbox keeps its browser (onBrowserClose)');
    };
    if (this.#inMessage) this.#afterMessage = answer;
    else answer();
    return true;
  }

  /** The client's socket has taken some of what was queued. */
  onDrain(): void {
    const left = this.#ws?.getBufferedAmount() ?? 0;
    if (!this.#paused) return;
    if (left < HIGH_MARK / 2) {
      this.#paused = false;
      clearTimeout(this.#slowTimer);
      this.#source.resume();
    } else if (left < this.#buffered) this.#watchSlowness(left);
  }

  /** The client has gone, with the code and reason it gave. */
  onClientClosed(code: number, reason: string): void {
    this.#ws = undefined;
    this.#finish(code, reason);
  }

  /** The client went away before its upgrade was complete. */
  abandon(): void {
    this.#finish(1001, 'the client went away');
  }

  batch(deliver: () => void): void {
    if (this.#ws) this.#ws.cork(deliver);
  }

  chunk(data: Uint8Array, binary: boolean, first: boolean, last: boolean): void {
    const ws = this.#ws;
    if (!ws || this.#over) return;
    this.#bytes.out += data.length;
    const sent =
      first && last
        ? ws.send(data, binary)
        : first
          ? ws.sendFirstFragment(data, binary)
          : last
            ? ws.sendLastFragment(data)
            : ws.sendFragment(data);
    this.#inMessage = !last;
    if (last && this.#afterMessage) {
      this.#afterMessage();
      this.#afterMessage = undefined;
      return;
    }
    if (sent === 1) return;
    if (sent === 2) return this.end(1011, 'a message could not be queued');
    const left = ws.getBufferedAmount();
    if (left < HIGH_MARK || this.#paused) return;
    this.#paused = true;
    this.#source.pause();
    this.#watchSlowness(left);
  }

  /** Ends both sides; the first reason counts. */
  end(code: number, reason: string): void {
    const ws = this.#ws;
    this.#finish(code, reason);
    if (!ws) return;
    this.#ws = undefined;
    // 1005 and 1006 stand for "no code was given" and may not be sent (RFC 6455 section 7.4.1).
    if (code === 1005 || code === 1006) ws.end();
    else ws.end(code, closeReason(reason));
    // A client that reads nothing would keep its socket for ever. Closing one that is closed already throws.
    const cut = setTimeout(() => {
      try {
        ws.close();
      } catch {}
    }, CLOSE_PATIENCE_MS);
    cut.unref();
  }

  #finish(code: number, reason: string): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#slowTimer);
    this.#source.close(code, reason);
    this.#attachment.detach();
  }

  #watchSlowness(left: number): void {
    this.#buffered = left;
    clearTimeout(this.#slowTimer);
    this.#slowTimer = setTimeout(() => this.end(1008, 'the client does not read what is sent to it'), SLOW_CLIENT_MS);
  }
}
