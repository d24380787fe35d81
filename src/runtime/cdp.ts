import WebSocket from 'ws';

interface Waiting {
  readonly resolve: (result: never) => void;
  readonly reject: (err: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** The runtime's own CDP connection to its browser: calls with a time limit each, and events. */
export class Cdp {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Set<(method: string, params: never, sessionId: string | undefined) => void>();
  #nextId = 1;

  /** Connects to the browser's own endpoint on our loopback. */
  static open(port: number, path: string, signal: AbortSignal): Promise<Cdp> {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { perMessageDeflate: false });
      const onAbort = (): void => socket.terminate();
      signal.addEventListener('abort', onAbort, { once: true });
      // Also what terminate() of a connecting socket emits.
      socket.on('error', (err) =>
        reject(signal.aborted ? new Error('Chromium took no DevTools connection in time') : err),
      );
      socket.once('open', () => {
        signal.removeEventListener('abort', onAbort);
        resolve(new Cdp(socket));
      });
      if (signal.aborted) onAbort();
    });
  }

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data) => this.#onMessage(JSON.parse(data.toString())));
    socket.once('close', () => {
      for (const id of [...this.#waiting.keys()]) this.#settle(id)?.reject(new Error('Chromium closed the connection'));
    });
  }

  /** Rejects with Chromium's own words, when the connection ends, or when there is no answer within `limitMs`. */
  call<T = object>(method: string, params: object, limitMs: number, sessionId?: string): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const id = this.#nextId++;
      const timer = setTimeout(
        () => this.#settle(id)?.reject(new Error(`Chromium did not answer ${method} within ${limitMs / 1000} s`)),
        limitMs,
      );
      this.#waiting.set(id, { resolve, reject, timer });
      if (this.#socket.readyState !== WebSocket.OPEN) {
        this.#settle(id)?.reject(new Error('Chromium closed the connection'));
        return;
      }
      this.#socket.send(JSON.stringify({ id, method, params, ...(sessionId ? { sessionId } : {}) }));
    });
  }

  /** Hears every event until the answer is called. */
  listen(listener: (method: string, params: never, sessionId: string | undefined) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#socket.terminate();
  }

  #onMessage(message: {
    id?: number;
    method?: string;
    params?: never;
    sessionId?: string;
    result?: never;
    error?: { message: string };
  }): void {
    if (message.id === undefined) {
      for (const listener of this.#listeners)
        listener(message.method ?? '', message.params as never, message.sessionId);
      return;
    }
    const waiting = this.#settle(message.id);
    if (message.error) waiting?.reject(new Error(message.error.message));
    else waiting?.resolve(message.result as never);
  }

  #settle(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    clearTimeout(waiting?.timer);
    return waiting;
  }
}
