import type { Socket } from 'node:net';
import type { Way } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import { connectOrRefuse, READ_BUFFER, type Sink, type Source } from './pump.ts';

/** Opens a connection to the VNC server; RFB goes through as it is, one binary message a read. Throws BROWSER_UNREACHABLE. */
export function openVnc(way: Way, signal: AbortSignal): Promise<Source> {
  return new Promise((resolve, reject) => {
    const source = new VncSource(way, (err) => {
      signal.removeEventListener('abort', onAbort);
      if (err) reject(err);
      else resolve(source);
    });
    const onAbort = (): void => source.abandon('the VNC server did not answer in time');
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
}

class VncSource implements Source {
  readonly #socket: Socket;
  #opened: ((err?: AppError) => void) | undefined;
  #sink: Sink | undefined;
  #early: Buffer[] = [];
  #ended = false;

  constructor(way: Way, opened: (err?: AppError) => void) {
    this.#opened = opened;
    this.#socket = connectOrRefuse(way.endpoint, 'the VNC server', {
      onread: {
        buffer: READ_BUFFER,
        callback: (length) => {
          this.#onRead(READ_BUFFER.subarray(0, length));
          return true;
        },
      },
    });
    this.#socket.once('connect', () => {
      // The server speaks first; its banner waits until the client's side is there.
      this.#socket.pause();
      this.#opened?.();
      this.#opened = undefined;
    });
    this.#socket.on('error', (err) => this.abandon(`cannot connect to the VNC server: ${err.message}`));
    this.#socket.on('end', () => this.#socket.destroy());
    this.#socket.on('close', () => {
      this.#ended = true;
      this.#sink?.end(1011, 'the VNC server closed the connection');
    });
  }

  get queued(): number {
    return this.#socket.writableLength;
  }

  start(sink: Sink): void {
    this.#sink = sink;
    const early = this.#early;
    this.#early = [];
    for (const data of early) sink.chunk(data, true, true, true);
    if (this.#ended) sink.end(1011, 'the VNC server closed the connection');
    else this.#socket.resume();
  }

  send(message: Uint8Array): void {
    // Copied, since the buffer is dead when this returns and the write may have to wait.
    this.#socket.write(Buffer.from(message));
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(): void {
    this.#socket.destroySoon();
  }

  abandon(why: string): void {
    this.#opened?.(new AppError('BROWSER_UNREACHABLE', why));
    this.#opened = undefined;
    this.#socket.destroy();
  }

  #onRead(data: Buffer): void {
    if (this.#sink) this.#sink.chunk(data, true, true, true);
    else this.#early.push(Buffer.from(data));
  }
}
