import { createHash, randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import type { Way } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import { closePayload, type FrameEvents, FrameParser, isOneFrame, maskedFrame, OPCODE } from './frames.ts';
import { connectOrRefuse, MAX_FROM_BROWSER, READ_BUFFER, type Sink, type Source } from './pump.ts';

/** RFC 6455 section 1.3. */
const WEBSOCKET_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
/** A handshake answer longer than this is not Chromium's. */
const MAX_HANDSHAKE = 16 * 1024;
/** How long the browser may take to answer our close frame, in milliseconds. */
const CLOSE_PATIENCE_MS = 1000;

/** Opens a WebSocket to Chromium's DevTools. Throws BROWSER_UNREACHABLE, or NOT_FOUND when there is no such target. */
export function openCdp(way: Way, path: string, signal: AbortSignal): Promise<Source> {
  return new Promise((resolve, reject) => {
    const source = new CdpSource(way, path, (err) => {
      signal.removeEventListener('abort', onAbort);
      if (err) reject(err);
      else resolve(source);
    });
    const onAbort = (): void => source.abandon('the browser did not answer in time');
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
}

class CdpSource implements Source, FrameEvents {
  readonly #socket: Socket;
  readonly #key = randomBytes(16).toString('base64');
  readonly #parser = new FrameParser(this, MAX_FROM_BROWSER);
  /** Forgotten once it was called: it holds on to the request. */
  #opened: ((err?: AppError) => void) | undefined;
  #handshake: string | undefined = '';
  #sink: Sink | undefined;
  /** Bytes that came with the handshake's answer, before the sink was there. */
  #early: Buffer[] = [];
  #closing = false;
  #ended = false;
  #closeCode = 1011;
  #closeReason = 'the browser has gone: it crashed or was closed; connect again for the next one';

  constructor(way: Way, path: string, opened: (err?: AppError) => void) {
    this.#opened = opened;
    this.#socket = connectOrRefuse(way.endpoint, 'the browser', {
      noDelay: true,
      onread: {
        buffer: READ_BUFFER,
        callback: (length) => {
          this.#onRead(READ_BUFFER.subarray(0, length));
          return true;
        },
      },
    });
    this.#socket.on('error', (err) => this.abandon(`cannot connect to the browser: ${err.message}`));
    this.#socket.on('end', () => this.#socket.destroy());
    this.#socket.on('close', () => this.#onClosed());
    // Chromium answers only to `localhost` or an address in Host, and refuses foreign Origins, so we send none.
    const authorization = way.secret === undefined ? '' : `Authorization: Bearer ${way.secret}\r\n`;
    this.#socket.write(
      `GET ${way.prefix}${path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `${authorization}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${this.#key}\r\n\r\n`,
    );
  }

  get queued(): number {
    return this.#socket.writableLength;
  }

  start(sink: Sink): void {
    this.#sink = sink;
    const early = this.#early;
    this.#early = [];
    for (const data of early) this.#deliver(data);
    if (this.#ended) sink.end(this.#closeCode, this.#closeReason);
    else this.#socket.resume();
  }

  send(message: Uint8Array, binary: boolean): void {
    if (!this.#closing) this.#socket.write(maskedFrame(binary ? OPCODE.binary : OPCODE.text, message));
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(code: number, reason: string): void {
    if (this.#closing || this.#ended) return;
    this.#closing = true;
    this.#socket.resume();
    this.#socket.end(maskedFrame(OPCODE.close, closePayload(code, reason)));
    const timer = setTimeout(() => this.#socket.destroy(), CLOSE_PATIENCE_MS);
    this.#socket.once('close', () => clearTimeout(timer));
  }

  chunk(data: Uint8Array, binary: boolean, first: boolean, last: boolean): void {
    this.#sink?.chunk(data, binary, first, last);
  }

  /** Gives up: before the handshake is done this is the caller's error. */
  abandon(why: string): void {
    this.#handshake = undefined;
    this.#settle(new AppError('BROWSER_UNREACHABLE', why));
    this.#socket.destroy();
  }

  #onRead(data: Buffer): void {
    if (this.#handshake !== undefined) this.#onHandshake(data);
    else if (this.#sink) this.#deliver(data);
    else this.#early.push(Buffer.from(data));
  }

  #deliver(data: Buffer): void {
    // One frame is one write anyway.
    if (isOneFrame(data)) this.#parser.push(data);
    else this.#sink?.batch(() => this.#parser.push(data));
  }

  #onHandshake(data: Buffer): void {
    this.#handshake += data.toString('latin1');
    const text = this.#handshake as string;
    const end = text.indexOf('\r\n\r\n');
    if (end < 0) {
      if (text.length > MAX_HANDSHAKE) this.abandon('the browser answered the handshake with something else');
      return;
    }
    const accept = createHash('sha1')
      .update(this.#key + WEBSOCKET_GUID)
      .digest('base64');
    const status = /^HTTP\/1\.1 (\d{3})/.exec(text)?.[1];
    this.#handshake = undefined;
    if (status !== '101' || !text.slice(0, end).includes(accept)) {
      this.#socket.destroy();
      const gone = status === '404' || status === '500';
      this.#settle(
        gone
          ? new AppError('NOT_FOUND', 'The browser has no such DevTools target.')
          : new AppError(
              'BROWSER_UNREACHABLE',
              status === '101'
                ? 'The browser answered the handshake with a wrong Sec-WebSocket-Accept.'
                : `The browser refused the DevTools connection with status ${status ?? 'unknown'}.`,
            ),
      );
      return;
    }
    // Until the client's side is there the browser has to wait.
    this.#socket.pause();
    if (text.length > end + 4) this.#early.push(Buffer.from(text.slice(end + 4), 'latin1'));
    this.#settle();
  }

  /** Tells how the handshake ended; only the first word counts. */
  #settle(err?: AppError): void {
    const opened = this.#opened;
    this.#opened = undefined;
    opened?.(err);
  }

  control(opcode: number, payload: Buffer): void {
    if (opcode === OPCODE.ping && !this.#closing) this.#socket.write(maskedFrame(OPCODE.pong, payload));
    if (opcode !== OPCODE.close) return;
    this.#closeCode = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
    this.#closeReason = payload.subarray(2).toString();
    if (!this.#closing) this.#socket.end(maskedFrame(OPCODE.close, payload));
    this.#closing = true;
    this.#socket.destroySoon();
  }

  fault(code: number, reason: string): void {
    this.#closeCode = code;
    this.#closeReason = reason;
    this.close(code, reason);
    this.#socket.destroySoon();
  }

  #onClosed(): void {
    this.abandon('the browser closed the connection during the handshake');
    if (this.#ended) return;
    this.#ended = true;
    this.#sink?.end(this.#closeCode, this.#closeReason);
  }
}
