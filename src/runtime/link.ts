import { request } from 'node:http';
import type { Socket } from 'node:net';
import type {
  OpenRuntimeLink,
  RuntimeAddress,
  RuntimeClaim,
  RuntimeLink,
  RuntimeLinkEvents,
} from '../core/contracts.ts';
import { connectTo } from '../core/endpoint.ts';
import { type EndedReason, hasEnded, type PageInfo, type SandboxChange, type SandboxStatus } from '../core/sandbox.ts';
import { isStatus } from '../core/status.ts';
import { onJsonLines } from './lines.ts';
import type { Call, ControlEvent, ControlMessage } from './server.ts';

/** A runtime that takes longer than this to end is ended by its driver. */
const STOP_LIMIT_MS = 20_000;
/** A recorder gets ten seconds to finish its file, a page one second to answer. */
const CALL_LIMIT_MS = 15_000;
/** Together with the limit of a call: a stuck runtime is noticed after 20 s at the latest. */
const PING_EVERY_MS = 5000;

/** Opens the control connection and waits for the first status. */
export const openRuntimeLink: OpenRuntimeLink = async (address, events, signal) => {
  const socket = await upgrade(address, signal);
  return new Promise<RuntimeLink>((resolve, reject) => {
    const onAbort = (): void => {
      socket.destroy();
      reject(new Error('the runtime sent no status in time'));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    const link = new ControlLink(socket, {
      onStatus: (status) => {
        signal.removeEventListener('abort', onAbort);
        resolve(link);
        events.onStatus(status);
      },
      onClosed: () => {
        signal.removeEventListener('abort', onAbort);
        reject(new Error('the runtime closed the control connection'));
        events.onClosed();
      },
    });
  });
};

function upgrade(address: RuntimeAddress, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const { endpoint } = address;
    const req = request({
      createConnection: () => connectTo(endpoint),
      path: '/control',
      headers: { authorization: `Bearer ${address.secret}`, connection: 'Upgrade', upgrade: 'berth-control' },
      signal,
    });
    req.once('error', reject);
    req.once('response', (res) => {
      req.destroy();
      reject(new Error(`the runtime refused the control connection with ${res.statusCode}`));
    });
    req.once('upgrade', (_res, socket, head) => {
      req.removeAllListeners('error');
      // From here on the signal only bounds the wait for the first status, not the connection's life.
      req.on('error', () => {});
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
    });
    req.end();
  });
}

/** Longest line that a runtime may send, in characters: a picture of the screen in base64. */
const MAX_ANSWER = 4 * 1024 * 1024;

class ControlLink implements RuntimeLink {
  readonly #socket: Socket;
  #status: SandboxStatus | undefined;
  #closed = false;
  #nextCall = 1;
  readonly #calls = new Map<number, { resolve: (value: never) => void; reject: (err: Error) => void }>();
  readonly #onEnd = new Set<() => void>();

  constructor(socket: Socket, events: RuntimeLinkEvents) {
    this.#socket = socket;
    socket.on('error', () => socket.destroy());
    const onEvent = (event: Partial<ControlEvent> | null): void => {
      if (event?.type === 'result') this.#settle(event);
      else if (event?.type === 'status' && isStatus(event.status)) {
        this.#status = event.status;
        events.onStatus(event.status);
      } else socket.destroy();
    };
    onJsonLines(socket, onEvent, MAX_ANSWER);
    // A runtime that is stuck keeps no clock either, so its silence is the end of the connection.
    const pings = setInterval(() => this.#call({ name: 'ping' }).catch(() => socket.destroy()), PING_EVERY_MS);
    socket.once('close', () => {
      clearInterval(pings);
      this.#closed = true;
      for (const { reject } of this.#calls.values()) reject(new Error('the sandbox is gone'));
      for (const done of this.#onEnd) done();
      events.onClosed();
    });
  }

  get status(): SandboxStatus {
    return this.#status as SandboxStatus; // the link is handed out only after the first one
  }

  presence(clients: number, viewers: number, active: boolean): void {
    this.#send({ type: 'presence', clients, viewers, active });
  }

  async stop(reason: EndedReason): Promise<void> {
    if (this.#closed) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, STOP_LIMIT_MS);
      const onEnd = this.#onEnd;
      function done(): void {
        clearTimeout(timer);
        onEnd.delete(done);
        resolve();
      }
      onEnd.add(done);
      this.#send({ type: 'stop', reason });
    });
  }

  setRecording(on: boolean): Promise<void> {
    return this.#call({ name: 'record', on });
  }

  cutRecording(): Promise<void> {
    return this.#call({ name: 'cut' });
  }

  change(change: SandboxChange): Promise<void> {
    return this.#call({ name: 'change', change });
  }

  claim(claim: RuntimeClaim): Promise<void> {
    return this.#call({ name: 'claim', claim });
  }

  pages(): Promise<PageInfo[]> {
    return this.#call({ name: 'pages' });
  }

  screenshot(width: number): Promise<string> {
    return this.#call({ name: 'screenshot', width });
  }

  closePage(page: string): Promise<boolean> {
    return this.#call({ name: 'closePage', page });
  }

  close(): void {
    this.#socket.destroy();
  }

  #call<T>(call: Call): Promise<T> {
    if (this.#closed || hasEnded(this.status.state)) return Promise.reject(new Error('the sandbox is gone'));
    const id = this.#nextCall++;
    let timer: NodeJS.Timeout;
    return new Promise<T>((resolve, reject) => {
      timer = setTimeout(() => this.#settle({ id, error: 'the runtime did not answer in time' }), CALL_LIMIT_MS);
      this.#calls.set(id, { resolve, reject });
      this.#send({ type: 'call', id, call });
    }).finally(() => clearTimeout(timer));
  }

  #settle({ id, value, error }: { id?: number; value?: unknown; error?: string }): void {
    if (id === undefined) return;
    const waiting = this.#calls.get(id);
    this.#calls.delete(id);
    if (error === undefined) waiting?.resolve(value as never);
    else waiting?.reject(new Error(error));
  }

  #send(message: ControlMessage): void {
    if (!this.#closed) this.#socket.write(`${JSON.stringify(message)}\n`);
  }
}
