/** Clients that say their part of the conversation at a fixed rate, whether or not they have their answers, one for each address. */
import { setTimeout as sleep } from 'node:timers/promises';
import type WebSocket from 'ws';
import { openSocket } from '../../e2e/sockets.ts';
import { idIn, message, stepOf } from '../conversation.ts';
import { percentile } from '../measure.ts';
import { args, serve } from './answer.ts';

export interface ReplayRequest {
  readonly seconds: number;
  /** Calls a second of each client. */
  readonly rate: number;
}
/** Of the small calls, from the call to its answer, in microseconds. */
export interface Replay {
  readonly p50: number;
  readonly p99: number;
  readonly callsPerSecond: number;
}

/** How long the last answers may take, in milliseconds. */
const LAST_ANSWERS_MS = 30_000;
/** Each client is at another place of the conversation. */
const APART = 37;

class Client {
  readonly #socket: WebSocket;
  readonly #sentAt = new Map<number, number>();
  #nextId: number;
  times: number[] = [];
  broken = false;

  constructor(socket: WebSocket, firstId: number) {
    this.#socket = socket;
    this.#nextId = firstId;
    socket.on('message', (data: Buffer) => this.#onMessage(data));
    socket.once('close', () => {
      this.broken = true;
    });
  }

  get waiting(): number {
    return this.#sentAt.size;
  }

  call(): void {
    const id = this.#nextId++;
    this.#sentAt.set(id, performance.now());
    this.#socket.send(message(id, stepOf(id).call));
  }

  #onMessage(data: Buffer): void {
    const id = idIn(data);
    if (id === undefined) return;
    const since = this.#sentAt.get(id);
    this.#sentAt.delete(id);
    if (since !== undefined && stepOf(id).small) this.times.push((performance.now() - since) * 1000);
  }
}

const [urls] = args as [string[]];
const open = async (url: string, i: number): Promise<Client> =>
  new Client(await openSocket(url, [], { skipUTF8Validation: true }), (i + 1) * APART);
const clients = await Promise.all(urls.map(open));

async function replay({ seconds, rate }: ReplayRequest): Promise<Replay> {
  const every = 1000 / rate;
  const start = performance.now();
  const end = start + seconds * 1000;
  // One after the other, so that they do not all speak at once.
  const due = clients.map((_, i) => start + (i * every) / clients.length);
  for (const client of clients) client.times = [];
  let calls = 0;
  for (let now = start; now < end; now = performance.now()) {
    for (const [i, client] of clients.entries()) {
      while ((due[i] as number) <= now) {
        client.call();
        calls++;
        due[i] = (due[i] as number) + every;
      }
    }
    await sleep(1);
  }
  const took = (performance.now() - start) / 1000;
  const waiting = (): number => clients.reduce((sum, client) => sum + client.waiting, 0);
  for (const deadline = performance.now() + LAST_ANSWERS_MS; waiting() > 0; await sleep(5)) {
    if (clients.some(({ broken }) => broken)) throw new Error('a connection broke');
    if (performance.now() > deadline) throw new Error(`${waiting()} calls without an answer`);
  }
  const times = clients.flatMap((client) => client.times).sort((a, b) => a - b);
  return { p50: percentile(times, 0.5), p99: percentile(times, 0.99), callsPerSecond: calls / took };
}

serve({}, replay);
