import { WebSocket } from 'ws';

type Result = Readonly<Record<string, unknown>>;

interface Call {
  resolve(result: Result): void;
  reject(err: Error): void;
}

/** As much of CDP as a picture of a page takes: calls and their answers over one WebSocket, no events. */
export class Cdp {
  readonly #socket: WebSocket;
  readonly #calls = new Map<number, Call>();
  #last = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data) => this.#answered(String(data)));
    socket.on('close', (code, reason) => this.#broken(new Error(`the browser's connection ended: ${reason || code}`)));
    socket.on('error', (err) => this.#broken(err));
  }

  /** Resolves when the connection stands; an answer that refuses it is the error, its body's `message` where it has one. */
  static connect(url: string, signal: AbortSignal): Promise<Cdp> {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url, {
        perMessageDeflate: false,
        maxPayload: 256 * 1024 * 1024,
        handshakeTimeout: 60_000,
      });
      signal.addEventListener('abort', () => socket.terminate(), { once: true });
      socket.once('open', () => resolve(new Cdp(socket)));
      socket.once('unexpected-response', (request, response) => {
        let body = '';
        response.on('data', (chunk) => (body += chunk));
        response.on('end', () => {
          reject(new Error(messageOf(body) ?? `the browser's address answers ${response.statusCode}`));
          request.destroy();
        });
      });
      socket.once('error', (err) => reject(signal.aborted ? (signal.reason as Error) : err));
    });
  }

  /** Rejects with what the browser says against it, or when it has said nothing after `limit` milliseconds. */
  send(method: string, params: object, sessionId: string | undefined, limit: number): Promise<Result> {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => call.reject(new Error(`${method}: no answer within ${limit / 1000} s`)), limit);
      const settled = (): void => {
        clearTimeout(late);
        this.#calls.delete(id);
      };
      const call: Call = {
        resolve(result) {
          settled();
          resolve(result);
        },
        reject(err) {
          settled();
          reject(err);
        },
      };
      this.#calls.set(id, call);
      this.#socket.send(JSON.stringify({ id, method, params, ...(sessionId === undefined ? {} : { sessionId }) }));
    });
  }

  close(): void {
    this.#socket.close();
  }

  #answered(text: string): void {
    const { id, result, error } = JSON.parse(text) as { id?: number; result?: Result; error?: { message: string } };
    const call = id === undefined ? undefined : this.#calls.get(id);
    if (error) call?.reject(new Error(error.message));
    else call?.resolve(result ?? {});
  }

  #broken(err: Error): void {
    for (const call of [...this.#calls.values()]) call.reject(err);
  }
}

function messageOf(body: string): string | undefined {
  try {
    return (JSON.parse(body) as { message?: string }).message;
  } catch {
    return undefined;
  }
}
