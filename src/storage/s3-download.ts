import { Readable } from 'node:stream';

/** Asks for the bytes; the body is to have exactly `bytes` of them. Throws when the answer is for something else. */
export type AskForBody = (signal: AbortSignal) => Promise<Readable>;

/**
 * A download that starts with the first read. It ends with all its bytes or with an error, never short: also when the
 * connection is lost, or when nothing comes for `stallMs` milliseconds while the reader wants more. A reader that is
 * slow pauses it for as long as it likes.
 */
export class Download extends Readable {
  readonly #ask: AskForBody;
  readonly #stallMs: number;
  readonly #abort = new AbortController();
  #left: number;
  #body: Readable | undefined;
  #asked = false;
  #stall: NodeJS.Timeout | undefined;

  constructor(bytes: number, stallMs: number, ask: AskForBody) {
    super();
    this.#left = bytes;
    this.#stallMs = stallMs;
    this.#ask = ask;
  }

  override _read(): void {
    if (this.#asked) {
      this.#body?.resume();
      if (this.#body) this.#watch();
      return;
    }
    this.#asked = true;
    if (this.#left === 0) {
      this.push(null);
      return;
    }
    this.#ask(this.#abort.signal).then(
      (body) => this.#take(body),
      (err: Error) => this.destroy(err),
    );
  }

  override _destroy(err: Error | null, done: (err: Error | null) => void): void {
    clearTimeout(this.#stall);
    this.#abort.abort();
    this.#body?.destroy();
    done(err);
  }

  #take(body: Readable): void {
    // What comes after the end of our interest must not end the process.
    body.on('error', (err) => this.destroy(err));
    if (this.destroyed) {
      body.destroy();
      return;
    }
    this.#body = body;
    body.on('data', (chunk: Buffer) => {
      // Armed again by the next read, which is when the reader has room.
      clearTimeout(this.#stall);
      this.#left -= chunk.length;
      if (this.#left < 0) this.destroy(new Error('the archive sent more bytes than it said'));
      else if (!this.push(chunk)) body.pause();
    });
    body.on('end', () => {
      clearTimeout(this.#stall);
      if (this.#left === 0) this.push(null);
      else this.destroy(new Error(`the archive broke off with ${this.#left} bytes to come`));
    });
    this.#watch();
  }

  #watch(): void {
    clearTimeout(this.#stall);
    this.#stall = setTimeout(
      () => this.destroy(new Error(`the archive sent nothing for ${this.#stallMs} ms`)),
      this.#stallMs,
    );
  }
}
