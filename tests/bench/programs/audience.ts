/** Those who download recordings, each at a rate of its own link, and those who watch screens. */
import { once } from 'node:events';
import { type ClientRequest, get, type IncomingMessage } from 'node:http';
import WebSocket from 'ws';
import { UPDATE_BYTES, UPDATE_REQUEST } from '../conversation.ts';
import { serve } from './answer.ts';

export type AudienceRequest =
  | {
      readonly what: 'start';
      /** One download each, begun anew when it ends. */
      readonly downloads: readonly string[];
      readonly bytesPerSecond: number;
      readonly viewers: readonly string[];
    }
  /** Counts from now on. */
  | { readonly what: 'count' }
  /** Fails when somebody did not get what it wanted. */
  | { readonly what: 'stop' };

/** Megabytes a second, all together. */
export interface Got {
  readonly downloaded: number;
  readonly watched: number;
}

/** A viewer's version, security type and ClientInit, and how much the server says to them (RFC 6143 section 7.1). */
const HANDSHAKE = Buffer.from('RFB 003.008\n\u0001\u0001');
const GREETING_BYTES = 12 + 2 + 4;

/** Those of one measurement; whatever comes of them after its end is nobody's business. */
class Audience {
  readonly #requests = new Set<ClientRequest>();
  readonly #viewers = new Set<WebSocket>();
  #over = false;
  #failure: Error | undefined;
  #downloaded = 0;
  #watched = 0;
  #since = 0;

  count(): void {
    this.#downloaded = 0;
    this.#watched = 0;
    this.#since = performance.now();
  }

  /** Throws when somebody did not get what it wanted. */
  stop(): Got {
    const seconds = (performance.now() - this.#since) / 1000;
    this.#over = true;
    for (const request of this.#requests) request.destroy();
    for (const viewer of this.#viewers) viewer.terminate();
    if (this.#failure) throw this.#failure;
    return { downloaded: this.#downloaded / 1e6 / seconds, watched: this.#watched / 1e6 / seconds };
  }

  /** Resolves when the first bytes may come. */
  download(url: string, bytesPerSecond: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const request = get(url, { agent: false }, (answer) => {
        if (answer.statusCode !== 200) return reject(new Error(`${url} answered ${answer.statusCode}`));
        resolve();
        this.#pace(answer, bytesPerSecond);
        answer.once('end', () => {
          if (!this.#over) this.download(url, bytesPerSecond).catch((err: Error) => this.#fail(err.message));
        });
      });
      this.#requests.add(request);
      request.once('close', () => this.#requests.delete(request));
      request.on('error', (err) => {
        this.#fail(`a download broke: ${err.message}`);
        reject(err);
      });
    });
  }

  async watch(url: string): Promise<void> {
    const socket = new WebSocket(url, ['binary'], { perMessageDeflate: false });
    this.#viewers.add(socket);
    // Heard from the start: a server that greets at once has said it before a promise of the open socket is kept.
    let received = -GREETING_BYTES;
    socket.on('message', (data: Buffer) => {
      this.#watched += data.length;
      received += data.length;
      for (; received >= UPDATE_BYTES; received -= UPDATE_BYTES) socket.send(UPDATE_REQUEST);
    });
    socket.on('error', (err) => this.#fail(`a viewer broke: ${err.message}`));
    socket.once('close', () => this.#fail('a viewer was cut off'));
    await once(socket, 'open');
    socket.send(HANDSHAKE);
    socket.send(UPDATE_REQUEST);
  }

  /** Reads no faster than that; the rest stays with the kernel, and then with the sender. */
  #pace(answer: IncomingMessage, bytesPerSecond: number): void {
    const start = performance.now();
    let received = 0;
    answer.on('error', () => this.#fail('a download broke'));
    answer.on('data', (chunk: Buffer) => {
      received += chunk.length;
      this.#downloaded += chunk.length;
      const early = (received / bytesPerSecond) * 1000 - (performance.now() - start);
      if (early < 1) return;
      answer.pause();
      setTimeout(() => answer.resume(), early);
    });
  }

  #fail(what: string): void {
    if (!this.#over) this.#failure ??= new Error(what);
  }
}

let audience = new Audience();

serve({}, async (request: AudienceRequest): Promise<object> => {
  if (request.what === 'stop') return audience.stop();
  if (request.what === 'start') {
    audience = new Audience();
    const { downloads, bytesPerSecond, viewers } = request;
    const all = downloads.map((url) => audience.download(url, bytesPerSecond));
    await Promise.all([...all, ...viewers.map((url) => audience.watch(url))]);
  }
  audience.count();
  return {};
});
