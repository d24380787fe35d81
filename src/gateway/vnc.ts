import type { Socket } from 'node:net';
import type { Viewer } from '../core/control.ts';
import { AppError } from '../core/errors.ts';
import { connectOrRefuse, READ_BUFFER, type Sink, type Source } from './pump.ts';
import { RfbFilter, type RfbWire } from './rfb.ts';
import { VncLogin } from './vnc-login.ts';

/**
 * Opens a viewer's connection to the VNC server. What the server sends goes through as it is, one binary message a read;
 * what the viewer sends, as far as it may at that moment. Throws BROWSER_UNREACHABLE.
 */
export function openVnc(viewer: Viewer, signal: AbortSignal): Promise<Source> {
  return new Promise((resolve, reject) => {
    const source = new VncSource(viewer, (err) => {
      signal.removeEventListener('abort', onAbort);
      if (err) reject(err);
      else resolve(source);
    });
    const onAbort = (): void => source.abandon('the VNC server did not answer in time');
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
}

class VncSource implements Source, RfbWire {
  readonly #socket: Socket;
  readonly #filter: RfbFilter;
  #login: VncLogin | undefined;
  #opened: ((err?: AppError) => void) | undefined;
  #sink: Sink | undefined;
  #ended = false;

  constructor(viewer: Viewer, opened: (err?: AppError) => void) {
    this.#opened = opened;
    const viewOnly = viewer.role === 'view';
    this.#filter = new RfbFilter(this, viewOnly);
    this.#login = new VncLogin(viewOnly);
    this.#socket = connectOrRefuse(viewer.way.endpoint, 'the VNC server', {
      onread: {
        buffer: READ_BUFFER,
        callback: (length) => {
          this.#onRead(READ_BUFFER.subarray(0, length));
          return true;
        },
      },
    });
    this.#socket.on('error', (err) => this.abandon(`cannot connect to the VNC server: ${err.message}`));
    this.#socket.on('end', () => this.#socket.destroy());
    this.#socket.on('close', () => {
      this.#ended = true;
      this.abandon('the VNC server closed the connection');
      this.#sink?.end(1011, 'the VNC server closed the connection');
    });
    viewer.onControl = (controls) => {
      this.#filter.controls = controls;
    };
  }

  get queued(): number {
    return this.#socket.writableLength;
  }

  start(sink: Sink): void {
    this.#sink = sink;
    if (this.#ended) return sink.end(1011, 'the VNC server closed the connection');
    this.#filter.greet();
    this.#socket.resume();
  }

  send(message: Uint8Array): void {
    if (this.#ended) return;
    const bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength);
    const violation = this.#filter.push(bytes);
    if (violation) this.#sink?.end(violation.code, violation.reason);
  }

  toServer(bytes: Uint8Array): void {
    // Copied, since the memory may be dead when this returns and the write may have to wait.
    if (!this.#ended) this.#socket.write(Buffer.from(bytes));
  }

  toClient(bytes: Uint8Array): void {
    this.#sink?.chunk(bytes, true, true, true);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(): void {
    this.#filter.release();
    this.#ended = true;
    this.#socket.destroySoon();
  }

  /** Not opened after all. */
  abandon(why: string): void {
    this.#opened?.(new AppError('BROWSER_UNREACHABLE', why));
    this.#opened = undefined;
    this.#socket.destroy();
  }

  #onRead(data: Buffer): void {
    if (this.#login) this.#logIn(this.#login, data);
    else this.#sink?.chunk(data, true, true, true);
  }

  #logIn(login: VncLogin, data: Buffer): void {
    try {
      this.#socket.write(login.answer(data));
    } catch (err) {
      return this.abandon(`cannot log in at the VNC server: ${(err as Error).message}`);
    }
    if (!login.done) return;
    // It says no more until the viewer has sent its ClientInit.
    this.#login = undefined;
    this.#socket.pause();
    this.#opened?.();
    this.#opened = undefined;
  }
}
