import type { HttpRequest, HttpResponse } from 'uWebSockets.js';
import { Agent, type ClientRequest, type IncomingMessage, METHODS, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Counters } from '../core/counters.ts';
import { AppError, errorBody, errorStatus } from '../core/errors.ts';
import { SAFE_HEADERS } from '../core/headers.ts';
import type { AddressLimits } from '../core/limits.ts';
import type { Callers } from './caller.ts';
import { assertSound } from './head.ts';
import { Turns } from './turns.ts';

/** Connection-level headers, which are each leg's own (RFC 9110 section 7.6.1); content-length is written by uWebSockets.js itself. */
const OWN_HEADERS = new Set(['connection', 'keep-alive', 'transfer-encoding', 'upgrade', 'content-length', 'date']);

/** A method that Node's client cannot send on. */
export function unknownMethod(): AppError {
  return new AppError('METHOD_NOT_ALLOWED', 'Berth does not know that method.', { Allow: '' });
}

/** Parts of an answer below this size, in bytes, take no turns: events, and what the API tells. */
const SMALL_PART = 16 * 1024;

/** How long a client may go on sending a body that is refused, in milliseconds. */
export const REST_OF_BODY_MS = 10_000;

/** Status lines need the phrase too. */
const PHRASES: Readonly<Record<number, string>> = {
  200: 'OK',
  201: 'Created',
  202: 'Accepted',
  204: 'No Content',
  206: 'Partial Content',
  302: 'Found',
  304: 'Not Modified',
  307: 'Temporary Redirect',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  409: 'Conflict',
  410: 'Gone',
  413: 'Content Too Large',
  416: 'Range Not Satisfiable',
  422: 'Unprocessable Content',
  426: 'Upgrade Required',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
};

/** `404 Not Found` */
export function statusLine(status: number): string {
  return `${status} ${PHRASES[status] ?? 'Status'}`;
}

/** A failure as the response, JSON in the house's shape. */
export function refuse(res: HttpResponse, err: unknown, requestId: string, counters: Counters): void {
  counters.refused(err);
  res.cork(() => {
    res.writeStatus(statusLine(errorStatus(err)));
    res.writeHeader('Content-Type', 'application/json; charset=utf-8');
    res.writeHeader('X-Request-Id', requestId);
    const more = err instanceof AppError ? err.headers : {};
    for (const [name, value] of Object.entries({ ...SAFE_HEADERS, ...more })) res.writeHeader(name, value);
    res.end(JSON.stringify(errorBody(err, requestId)), true);
  });
}

/**
 * The same for a request of which it is not sure where it ends: what stands behind it must not be taken for another. Only while an
 * answer is due does uWebSockets.js end the connection when more comes, so the answer is not given in the same turn.
 */
export function refuseUnread(res: HttpResponse, err: unknown, requestId: string, counters: Counters): void {
  let gone = false;
  res.onAborted(() => {
    gone = true;
  });
  setImmediate(() => {
    if (!gone) refuse(res, err, requestId, counters);
  });
}

/** Passes plain HTTP on to the API's private socket, streaming both bodies under back-pressure. */
export class Forwarder {
  readonly #socketPath: string;
  readonly #counters: Counters;
  readonly #callers: Callers;
  readonly #limits: AddressLimits | undefined;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
  readonly #turns = new Turns();

  constructor(socketPath: string, counters: Counters, callers: Callers, limits: AddressLimits | undefined) {
    this.#socketPath = socketPath;
    this.#counters = counters;
    this.#callers = callers;
    this.#limits = limits;
  }

  /** `req` is read before this returns; it is dead afterwards. */
  forward(res: HttpResponse, req: HttpRequest, requestId: string): void {
    const method = req.getCaseSensitiveMethod();
    if (!METHODS.includes(method) || method === 'CONNECT') {
      return refuse(res, unknownMethod(), requestId, this.#counters);
    }
    const query = req.getQuery();
    let upstream: ClientRequest;
    try {
      const { address, headers } = this.#callers.of(peerOf(res), copyHeaders(req));
      this.#limits?.request(address);
      upstream = request({
        socketPath: this.#socketPath,
        agent: this.#agent,
        method,
        path: query ? `${req.getUrl()}?${query}` : req.getUrl(),
        headers: { ...headers, 'x-request-id': requestId },
      });
    } catch (err) {
      // uWebSockets.js lets through what Node throws at (raw UTF-8, odd methods), and a throw in its callback ends the service.
      const isOurs = err instanceof AppError;
      const refusal = isOurs ? err : new AppError('INVALID_REQUEST', `${(err as Error).message}.`, {}, err);
      return refuseUnread(res, refusal, requestId, this.#counters);
    }
    const exchange = new Exchange(res, upstream, requestId, method === 'HEAD', this.#counters, this.#turns);
    upstream.on('response', (answer) => exchange.onAnswer(answer));
    upstream.on('error', (err) => exchange.onFault(err));
  }

  /** Waits until no request is under way, at most this long, in milliseconds. */
  async drain(limitMs: number): Promise<void> {
    const deadline = performance.now() + limitMs;
    // The agent keeps those that are under way in `sockets` and moves them elsewhere when their answers have ended.
    while (Object.keys(this.#agent.sockets).length > 0 && performance.now() < deadline) await sleep(10);
  }

  close(): void {
    this.#agent.destroy();
  }
}

/** IP address of the other end. */
export function peerOf(res: HttpResponse): string {
  return Buffer.from(res.getRemoteAddressAsText()).toString();
}

/** All headers but those of the connection itself. Throws as {@link assertSound}. */
export function copyHeaders(req: HttpRequest): Record<string, string | string[]> {
  const all: [string, string][] = [];
  req.forEach((name, value) => {
    all.push([name, value]);
  });
  assertSound(`${req.getUrl()}?${req.getQuery() ?? ''}`, all);
  const headers: Record<string, string | string[]> = {};
  for (const [name, value] of all) {
    if (OWN_HEADERS.has(name)) continue;
    const before = headers[name];
    headers[name] = before === undefined ? value : Array.isArray(before) ? [...before, value] : [before, value];
  }
  // The length of the body stays; a body without one is sent on in chunks.
  const length = req.getHeader('content-length');
  if (length !== '') headers['content-length'] = length;
  return headers;
}

/** One request and its answer. uWebSockets.js forbids any use of `res` once it is over. */
class Exchange {
  readonly #res: HttpResponse;
  readonly #upstream: ClientRequest;
  readonly #requestId: string;
  readonly #isHead: boolean;
  readonly #counters: Counters;
  readonly #turns: Turns;
  /** The API may answer before it has read the whole body; the rest of it is then thrown away before the answer is passed on. */
  #answered = false;
  #bodyDone = false;
  #paused = false;
  #onBodyDone: (() => void) | undefined;
  #over = false;

  constructor(
    res: HttpResponse,
    upstream: ClientRequest,
    requestId: string,
    isHead: boolean,
    counters: Counters,
    turns: Turns,
  ) {
    this.#turns = turns;
    this.#res = res;
    this.#upstream = upstream;
    this.#requestId = requestId;
    this.#isHead = isHead;
    this.#counters = counters;
    res.onAborted(() => {
      this.#over = true;
      upstream.destroy();
      this.#onBodyDone?.();
    });
    res.onData((chunk, isLast) => {
      this.#bodyDone = isLast;
      counters.bytes.http.in += chunk.byteLength;
      // A pause is the socket's, not the request's: left on, the client's next request would never be read.
      if (isLast) this.#resume();
      if (isLast) this.#onBodyDone?.();
      if (this.#over || this.#answered) return;
      // The chunk is dead after this call, and the write may have to wait.
      if (chunk.byteLength > 0 && !upstream.write(Buffer.from(chunk.slice(0))) && !isLast) {
        if (!this.#paused) res.pause();
        this.#paused = true;
        upstream.once('drain', () => this.#resume());
      }
      if (isLast) upstream.end();
    });
  }

  onFault(err: Error): void {
    if (this.#over) return;
    this.#over = true;
    refuse(this.#res, new AppError('INTERNAL', 'The API did not answer.', {}, err), this.#requestId, this.#counters);
  }

  onAnswer(answer: IncomingMessage): void {
    if (this.#over) return void answer.destroy();
    this.#answered = true;
    if (this.#bodyDone) return this.#passOn(answer);
    // A client that is still sending would meet a reset instead of the answer, were it given now (RFC 9112 section 9.6).
    answer.once('end', () => this.#upstream.destroy());
    const passOn = (): void => {
      clearTimeout(timer);
      this.#onBodyDone = undefined;
      if (this.#over) answer.destroy();
      else this.#passOn(answer);
    };
    const timer = setTimeout(passOn, REST_OF_BODY_MS);
    this.#onBodyDone = passOn;
    this.#resume();
  }

  /** Only what was paused may be resumed: uWebSockets.js stops reading from a socket that was not. */
  #resume(): void {
    if (!this.#paused || this.#over) return;
    this.#paused = false;
    this.#res.resume();
  }

  #passOn(answer: IncomingMessage): void {
    const status = answer.statusCode ?? 500;
    const length = answer.headers['content-length'];
    this.#res.cork(() => {
      this.#res.writeStatus(statusLine(status));
      for (let i = 0; i < answer.rawHeaders.length; i += 2) {
        const name = answer.rawHeaders[i] as string;
        if (!OWN_HEADERS.has(name.toLowerCase())) this.#res.writeHeader(name, answer.rawHeaders[i + 1] as string);
      }
      if (this.#isHead || status === 204 || status === 304) {
        this.#over = true;
        answer.resume();
        // Given to endWithoutBody instead, uWebSockets.js would go on waiting for that many bytes, and take the client's next
        // request on this connection for an offence.
        if (this.#isHead && length !== undefined) this.#res.writeHeader('Content-Length', length);
        this.#res.endWithoutBody();
      }
    });
    if (this.#over) return;
    const { http } = this.#counters.bytes;
    answer.on('data', (chunk: Buffer) => {
      http.out += chunk.length;
    });
    if (length === undefined) this.#streamChunked(answer);
    else this.#streamSized(answer, Number(length));
  }

  /** A body whose length is known keeps its Content-Length. */
  #streamSized(answer: IncomingMessage, total: number): void {
    if (total === 0) {
      this.#over = true;
      answer.resume();
      this.#res.cork(() => this.#res.end());
      return;
    }
    let waiting: { readonly chunk: Buffer; readonly offset: number } | undefined;
    const offer = (chunk: Buffer): boolean => {
      let ok = true;
      this.#res.cork(() => {
        const [sent, done] = this.#res.tryEnd(chunk, total);
        ok = sent;
        if (done) this.#over = true;
      });
      return ok;
    };
    answer.on('data', (chunk: Buffer) => {
      if (this.#over) return;
      const offset = this.#res.getWriteOffset();
      if (offer(chunk)) return this.#pace(answer, chunk);
      if (this.#over) return;
      waiting = { chunk, offset };
      answer.pause();
    });
    this.#res.onWritable((offset) => {
      if (!waiting || this.#over) return true;
      if (!offer(waiting.chunk.subarray(offset - waiting.offset)) && !this.#over) return false;
      waiting = undefined;
      this.#turns.wait(() => answer.resume());
      return true;
    });
    // A body that ends short cannot be mended: the client must see a broken connection, not a short file.
    answer.on('close', () => {
      if (this.#over || waiting) return;
      this.#over = true;
      this.#res.close();
    });
  }

  /** The next large part is read when it is this answer's turn again. */
  #pace(answer: IncomingMessage, chunk: Buffer): void {
    if (chunk.length < SMALL_PART || this.#over) return;
    answer.pause();
    this.#turns.wait(() => answer.resume());
  }

  #streamChunked(answer: IncomingMessage): void {
    answer.on('data', (chunk: Buffer) => {
      if (this.#over) return;
      let sent = true;
      this.#res.cork(() => {
        sent = this.#res.write(chunk);
      });
      if (sent) this.#pace(answer, chunk);
      else answer.pause();
    });
    this.#res.onWritable(() => {
      this.#turns.wait(() => answer.resume());
      return true;
    });
    answer.on('close', () => {
      if (this.#over) return;
      this.#over = true;
      if (answer.complete) this.#res.cork(() => this.#res.end());
      else this.#res.close();
    });
  }
}
