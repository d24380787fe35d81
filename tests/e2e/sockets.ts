import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import WebSocket, { type ClientOptions } from 'ws';

const MIB = 1024 * 1024;

/** Opens a WebSocket as a plain client would. */
export function openSocket(url: string, protocols: string[] = [], options: ClientOptions = {}): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, protocols, {
      maxPayload: 256 * MIB,
      perMessageDeflate: false,
      handshakeTimeout: 30_000,
      ...options,
    });
    socket.once('open', () => resolve(socket));
    socket.once('error', reject);
  });
}

export function nextMessage(socket: WebSocket): Promise<{ data: Buffer; binary: boolean }> {
  return new Promise((resolve, reject) => {
    socket.once('message', (data, binary) => resolve({ data: data as Buffer, binary }));
    socket.once('close', (code, reason) => reject(new Error(`closed with ${code} "${reason}" before a message`)));
  });
}

/** The HTTP answer to an upgrade that is refused. */
export function refusal(url: string): Promise<{ status: number | undefined; body: { message: string } }> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { handshakeTimeout: 30_000 });
    socket.once('open', () => {
      socket.terminate();
      reject(new Error(`${url} was not refused`));
    });
    socket.once('error', reject);
    socket.once('unexpected-response', (_req, res: IncomingMessage) => {
      let text = '';
      res.on('data', (chunk) => (text += chunk));
      res.on('end', () => resolve({ status: res.statusCode, body: JSON.parse(text) }));
    });
  });
}

export async function withRaw(url: string, use: (raw: Raw) => Promise<void>): Promise<void> {
  const raw = await Raw.open(url);
  try {
    await use(raw);
  } finally {
    raw.socket.terminate();
  }
}

/** CDP by hand: numbers its calls and sorts the answers. */
export class Raw {
  readonly socket: WebSocket;
  readonly closed: Promise<{ code: number; reason: string }>;
  #nextId = 1;
  // biome-ignore lint/suspicious/noExplicitAny: answers of CDP are of many shapes, and the cases look only at theirs.
  readonly #waiting = new Map<number, { resolve: (result: any) => void; reject: (err: Error) => void }>();

  static async open(url: string): Promise<Raw> {
    return new Raw(await openSocket(url));
  }

  private constructor(socket: WebSocket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => {
      socket.once('close', (code, reason) => {
        resolve({ code, reason: reason.toString() });
        for (const { reject } of this.#waiting.values()) reject(new Error(`closed with ${code} "${reason}"`));
      });
    });
    socket.on('message', (data) => {
      const { id, result, error } = JSON.parse(data.toString());
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) waiting?.reject(new Error(error.message));
      else waiting?.resolve(result);
    });
  }

  // biome-ignore lint/suspicious/noExplicitAny: see above.
  send(method: string, params: object = {}, sessionId?: string): Promise<any> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ id, method, params, ...(sessionId ? { sessionId } : {}) }));
    });
  }

  async evaluate(expression: string, sessionId?: string): Promise<unknown> {
    const { result, exceptionDetails } = await this.send(
      'Runtime.evaluate',
      { expression, returnByValue: true },
      sessionId,
    );
    assert.equal(exceptionDetails, undefined);
    return result.value;
  }

  async pageIds(): Promise<string[]> {
    return (await this.#pages()).map((page) => page.targetId);
  }

  async pageUrls(): Promise<string[]> {
    return (await this.#pages()).map((page) => page.url);
  }

  async #pages(): Promise<{ targetId: string; url: string; type: string }[]> {
    const { targetInfos } = await this.send('Target.getTargets');
    return targetInfos.filter((target: { type: string }) => target.type === 'page');
  }
}

/** 101, or the status that refused the upgrade. An opened socket is closed again. */
export function upgrade(url: string, headers: Readonly<Record<string, string>> = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url, { headers, perMessageDeflate: false, handshakeTimeout: 180_000 });
    ws.once('error', reject);
    ws.once('unexpected-response', (_req, res) => {
      res.resume();
      resolve(res.statusCode ?? 0);
    });
    ws.once('open', () => {
      ws.once('close', () => resolve(101));
      ws.close();
    });
  });
}

/** The same address for WebSockets. */
export const socketOf = (url: string): string => url.replace(/^http/, 'ws');
