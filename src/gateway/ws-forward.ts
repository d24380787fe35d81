import { Agent, type ClientRequest, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Counters } from '../core/counters.ts';
import { AppError, errorBody, errorStatus } from '../core/errors.ts';
import { SAFE_HEADERS } from '../core/headers.ts';
import type { AddressLimits } from '../core/limits.ts';
import type { Callers } from './caller.ts';
import { REST_OF_BODY_MS, statusLine } from './forward.ts';
import { assertSound } from './head.ts';

/** Connection-level headers, which are each leg's own (RFC 9110 section 7.6.1). Node has answered an `Expect` already. */
const OWN_HEADERS = new Set(['connection', 'keep-alive', 'transfer-encoding', 'upgrade', 'date', 'expect']);

/** Connections that end with an answer that is on its way. */
const ending = new WeakSet<Duplex>();

/** Whether nothing that comes on this connection is to be taken for a request any more. */
export function isEnding(socket: Duplex): boolean {
  return ending.has(socket);
}

/** A failure as the response, JSON in the house's shape; `last` ends the connection with it. */
export function refuseRequest(
  res: ServerResponse,
  err: unknown,
  requestId: string,
  counters: Counters,
  last = false,
): void {
  counters.refused(err);
  const headers = err instanceof AppError ? err.headers : {};
  const type = 'application/json; charset=utf-8';
  const body = JSON.stringify(errorBody(err, requestId));
  const end = last ? { Connection: 'close' } : {};
  if (last && res.socket) ending.add(res.socket);
  const all = { 'Content-Type': type, 'X-Request-Id': requestId, ...SAFE_HEADERS, ...end, ...headers };
  res.writeHead(errorStatus(err), all).end(body);
}

/** The same on a socket that Node's server has given up. */
export function refuseSocket(socket: Duplex, err: unknown, requestId: string, counters: Counters): void {
  counters.refused(err);
  socket.on('error', () => {});
  if (!socket.writable) return void socket.destroy();
  const body = JSON.stringify(errorBody(err, requestId));
  const headers = {
    'Content-Type': 'application/json; charset=utf-8',
    'X-Request-Id': requestId,
    'Content-Length': Buffer.byteLength(body),
    Connection: 'close',
    ...SAFE_HEADERS,
    ...(err instanceof AppError ? err.headers : {}),
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${statusLine(errorStatus(err))}\r\n${lines.join('')}\r\n${body}`, () => socket.destroy());
}

/** Passes plain HTTP on to the API's private socket, streaming both bodies under back-pressure. */
export class WsForwarder {
  readonly #socketPath: string;
  readonly #counters: Counters;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
  readonly #callers: Callers;
  readonly #limits: AddressLimits | undefined;
  #underWay = 0;

  constructor(socketPath: string, counters: Counters, callers: Callers, limits: AddressLimits | undefined) {
    this.#socketPath = socketPath;
    this.#counters = counters;
    this.#callers = callers;
    this.#limits = limits;
  }

  forward(req: IncomingMessage, res: ServerResponse, requestId: string): void {
    const { socket } = req;
    if (socket.destroyed) return;
    let upstream: ClientRequest | undefined;
    // An answer that waits behind another one hears nothing of the end of their connection.
    const over = (): void => {
      socket.off('close', over);
      res.off('close', over);
      this.#underWay--;
      upstream?.destroy();
    };
    this.#underWay++;
    socket.on('close', over);
    res.on('close', over);
    try {
      const { address, headers } = this.#callers.of(peerOf(req), copyHeaders(req));
      this.#limits?.request(address);
      upstream = request({
        socketPath: this.#socketPath,
        agent: this.#agent,
        method: req.method,
        path: req.url,
        headers: { ...headers, 'x-request-id': requestId },
      });
    } catch (err) {
      // Node's server lets some of what Node's client throws at through, such as raw UTF-8 in a path.
      const isOurs = err instanceof AppError;
      const refusal = isOurs ? err : new AppError('INVALID_REQUEST', `${(err as Error).message}.`, {}, err);
      // Where such a request ends is not sure, and what stands behind it must not be taken for another.
      return refuseRequest(res, refusal, requestId, this.#counters, true);
    }
    const asked = upstream;
    upstream.on('response', (answer) => this.#onAnswer(req, res, asked, answer));
    upstream.on('error', (err) => {
      if (isGone(res)) return;
      if (res.headersSent) return void res.destroy();
      req.resume();
      const refusal = new AppError('INTERNAL', 'The API did not answer.', {}, err);
      refuseRequest(res, refusal, requestId, this.#counters);
    });
    req.on('data', (chunk: Buffer) => {
      this.#counters.bytes.http.in += chunk.length;
    });
    req.pipe(upstream);
  }

  /** Waits until no request is under way, at most this long, in milliseconds. */
  async drain(limitMs: number): Promise<void> {
    const deadline = performance.now() + limitMs;
    while (this.#underWay > 0 && performance.now() < deadline) await sleep(10);
  }

  close(): void {
    this.#agent.destroy();
  }

  #onAnswer(req: IncomingMessage, res: ServerResponse, upstream: ClientRequest, answer: IncomingMessage): void {
    const passOn = (): void => {
      clearTimeout(timer);
      for (const event of ['end', 'close']) req.off(event, passOn);
      this.#passOn(res, answer);
    };
    let timer: NodeJS.Timeout | undefined;
    if (req.complete) return passOn();
    // The API may answer before it has read the whole body. A client that is still sending would meet a reset instead of the
    // answer, were it given now (RFC 9112 section 9.6), so the rest of the body is thrown away first.
    answer.once('end', () => upstream.destroy());
    req.unpipe(upstream);
    req.resume();
    for (const event of ['end', 'close']) req.once(event, passOn);
    timer = setTimeout(passOn, REST_OF_BODY_MS);
  }

  #passOn(res: ServerResponse, answer: IncomingMessage): void {
    if (isGone(res)) return void answer.destroy();
    const headers: string[] = [];
    for (let i = 0; i < answer.rawHeaders.length; i += 2) {
      const name = answer.rawHeaders[i] as string;
      if (!OWN_HEADERS.has(name.toLowerCase())) headers.push(name, answer.rawHeaders[i + 1] as string);
    }
    res.writeHead(answer.statusCode ?? 500, headers);
    res.flushHeaders();
    answer.on('data', (chunk: Buffer) => {
      this.#counters.bytes.http.out += chunk.length;
    });
    // A body that ends short cannot be mended: the pipeline breaks the client's connection then, so that it sees no short file.
    pipeline(answer, res, () => {});
  }
}

function isGone(res: ServerResponse): boolean {
  return res.destroyed || res.req.socket.destroyed;
}

/** IP address of the other end; empty when it has gone already. */
export function peerOf(req: IncomingMessage): string {
  return req.socket.remoteAddress ?? '';
}

/** All headers but those of the connection itself. Throws as {@link assertSound}. */
export function copyHeaders(req: IncomingMessage): Record<string, string | string[]> {
  const raw = req.rawHeaders;
  assertSound(
    req.url ?? '',
    Array.from({ length: raw.length / 2 }, (_, i) => [raw[2 * i] as string, raw[2 * i + 1] as string]),
  );
  const headers: Record<string, string | string[]> = {};
  for (const [name, values = []] of Object.entries(req.headersDistinct)) {
    const [first, ...others] = values;
    if (first !== undefined && !OWN_HEADERS.has(name)) headers[name] = others.length > 0 ? values : first;
  }
  return headers;
}
