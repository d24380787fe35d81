import type { Socket, TcpNetConnectOpts } from 'node:net';
import type { Endpoint } from '../core/contracts.ts';
import { connectTo } from '../core/endpoint.ts';
import { AppError } from '../core/errors.ts';

/**
 * What a bridge reads from: the browser's or the VNC server's side of a connection. It knows nothing of the client, and
 * the client's side knows nothing of it but these verbs.
 */
export interface Source {
  /** Begins delivery to the sink. Nothing arrives before. */
  start(sink: Sink): void;
  /** One whole message from the client. Its memory is dead when this returns. */
  send(message: Uint8Array, binary: boolean): void;
  /** Bytes taken by {@link send} that the other side has not read yet. */
  readonly queued: number;
  pause(): void;
  resume(): void;
  /** Ends it, telling the other side the code and reason where its protocol has room for them. Idempotent. */
  close(code: number, reason: string): void;
}

/** Where a source delivers. Chunks are parts of messages in order; a chunk's memory is dead when the call returns. */
export interface Sink {
  /** Runs one read's worth of calls together, so that they leave in one write. */
  batch(deliver: () => void): void;
  chunk(data: Uint8Array, binary: boolean, first: boolean, last: boolean): void;
  /** The source is gone. Called once, last. */
  end(code: number, reason: string): void;
}

/** Largest message in either direction. Chromium sends up to 256 MiB and takes up to 100 MiB (puppeteer#4543). */
export const MAX_FROM_BROWSER = 256 * 1024 * 1024;
export const MAX_TO_BROWSER = 100 * 1024 * 1024;
/** uWebSockets.js cuts a socket without a word when a message is over its own limit, so that one is higher than ours. */
export const MAX_REFUSED_READABLY = 256 * 1024 * 1024;
/** Why a client's message over {@link MAX_TO_BROWSER} closes its connection, with 1009. */
export const TOO_LARGE = `a message to the browser may have ${MAX_TO_BROWSER} bytes`;

/** Reads of all connections share this: each is handed on before the next one starts. */
export const READ_BUFFER = Buffer.allocUnsafeSlow(256 * 1024);

/** A connection into a sandbox; one that fails at once is BROWSER_UNREACHABLE like one that fails later. */
export function connectOrRefuse(
  endpoint: Endpoint,
  whom: string,
  options: Omit<TcpNetConnectOpts, 'host' | 'port'>,
): Socket {
  try {
    return connectTo(endpoint, options);
  } catch (err) {
    throw new AppError('BROWSER_UNREACHABLE', `Cannot connect to ${whom}: ${(err as Error).message}`, {}, err);
  }
}
