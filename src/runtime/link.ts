import { request } from 'node:http';
import type { Socket } from 'node:net';
import type { OpenRuntimeLink, RuntimeAddress, RuntimeLink, RuntimeLinkEvents } from '../core/contracts.ts';
import { connectTo } from '../core/endpoint.ts';
import { type EndedReason, hasEnded, type SandboxStatus } from '../core/sandbox.ts';
import { onJsonLines } from './lines.ts';
import type { ControlEvent, ControlMessage } from './server.ts';

/** A runtime that takes longer than this to end is ended by its driver. */
const STOP_LIMIT_MS = 20_000;
const RECORD_LIMIT_MS = 15_000;

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

class ControlLink implements RuntimeLink {
  readonly #socket: Socket;
  #status: SandboxStatus | undefined;
  #closed = false;
  #nextRecord = 1;
  readonly #records = new Map<number, { resolve: () => void; reject: (err: Error) => void }>();
  readonly #onEnd = new Set<() => void>();

  constructor(socket: Socket, events: RuntimeLinkEvents) {
    this.#socket = socket;
    socket.on('error', () => socket.destroy());
    onJsonLines<ControlEvent>(socket, (event) => {
      if (event.type === 'recorded') this.#settleRecord(event.id, event.error);
      else {
        this.#status = event.status;
        events.onStatus(event.status);
      }
    });
    socket.once('close', () => {
      this.#closed = true;
      for (const { reject } of this.#records.values()) reject(new Error('the sandbox is gone'));
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
    if (this.#closed || hasEnded(this.status.state)) return Promise.reject(new Error('the sandbox is gone'));
    return new Promise((resolve, reject) => {
      const id = this.#nextRecord++;
      const timer = setTimeout(() => this.#settleRecord(id, 'the runtime did not answer in time'), RECORD_LIMIT_MS);
      this.#records.set(id, {
        resolve: () => {
          clearTimeout(timer);
          resolve();
        },
        reject: (err) => {
          clearTimeout(timer);
          reject(err);
        },
      });
      this.#send({ type: 'record', id, on });
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #settleRecord(id: number, error?: string): void {
    const waiting = this.#records.get(id);
    this.#records.delete(id);
    if (error === undefined) waiting?.resolve();
    else waiting?.reject(new Error(error));
  }

  #send(message: ControlMessage): void {
    if (!this.#closed) this.#socket.write(`${JSON.stringify(message)}\n`);
  }
}
