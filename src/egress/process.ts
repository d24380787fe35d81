import { type ChildProcess, fork } from 'node:child_process';
import type { Egress, Log } from '../core/contracts.ts';
import type { Counters } from '../core/counters.ts';
import {
  EGRESS_REFUSALS,
  type EgressInput,
  type EgressSpec,
  egressContext,
  type ProxyCredentials,
} from '../core/egress.ts';
import type { SandboxSpec } from '../core/sandbox.ts';
import type { EgressReport, EgressRequest, EgressSettings } from './messages.ts';

/** What the process is started with, and who hears of it. */
export interface EgressProcessOptions {
  /** The compiled `cmd/egress.js`. */
  readonly program: string;
  /** All of its environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly settings: EgressSettings;
  /** Opens what is sealed in a spec. */
  readonly unseal: (sealed: string, context: string) => string;
  readonly counters: Counters;
  readonly log: Log;
}

/** How long a way out may take to open, a start of the process included, in milliseconds. */
const OPEN_MS = 10_000;
/** The first start after an end comes at once; each further one waits twice as long, in milliseconds. */
const PAUSE_MS = 50;
const PAUSE_MOST_MS = 5000;
/** One that has lived for this long has started well. */
const GOOD_MS = 10_000;
/** Look-ups of names block a thread each, for seconds when no server answers. */
const THREADS = '64';
/** As much as Chromium sends; more than Node takes by itself. */
const MAX_HEADER_BYTES = 256 * 1024;

interface Waiting {
  readonly request: EgressRequest;
  readonly resolve: () => void;
  readonly reject: (err: Error) => void;
}

/** Keeps the egress process running and tells it, each time anew, which ways out there are. */
export class EgressProcess implements Egress {
  readonly #options: EgressProcessOptions;
  #settings: EgressSettings;
  readonly #open = new Map<string, EgressInput>();
  readonly #waiting = new Map<number, Waiting>();
  #child: ChildProcess | undefined;
  #nextId = 1;
  #pause = 0;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: EgressProcessOptions) {
    this.#options = options;
    this.#settings = options.settings;
  }

  /** Called once; it starts the process again by itself, should that end. */
  start(): void {
    const { program, env, log } = this.#options;
    const startedAt = performance.now();
    const child = fork(program, [], {
      env: { ...env, UV_THREADPOOL_SIZE: THREADS },
      execArgv: [`--max-http-header-size=${MAX_HEADER_BYTES}`],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    this.#child = child;
    child.on('message', (report: EgressReport) => this.#onReport(report));
    // Also when it could not be started.
    child.once('error', (err) => log.error({ err }, 'the egress process'));
    child.once('exit', (code, signal) => {
      if (this.#closed) return;
      this.#pause = performance.now() - startedAt > GOOD_MS ? 0 : Math.min(this.#pause * 2 || PAUSE_MS, PAUSE_MOST_MS);
      log.warn({ code, signal }, 'the egress process has ended and is started again; connections of pages broke');
      this.#timer = setTimeout(() => this.start(), this.#pause);
    });
    this.#send({ type: 'settings', settings: this.#settings });
    for (const { request } of this.#waiting.values()) this.#send(request);
    const asked = new Set([...this.#waiting.values()].map(({ request }) => 'socket' in request && request.socket));
    for (const [socket, egress] of this.#open) {
      if (!asked.has(socket)) this.#send({ type: 'open', id: 0, socket, egress });
    }
  }

  async open(socket: string, spec: SandboxSpec): Promise<void> {
    const egress = this.#egressOf(spec);
    this.#open.set(socket, egress);
    await this.#ask((id) => ({ type: 'open', id, socket, egress }));
  }

  async close(socket: string): Promise<void> {
    if (!this.#open.delete(socket)) return;
    await this.#ask((id) => ({ type: 'close', id, socket })).catch(() => {}); // it is gone with the next process at the latest
  }

  /** Berth is served at this port from now on, whatever the address: no sandbox gets there. */
  serves(port: number): void {
    const { doors } = this.#settings;
    this.#settings = { ...this.#settings, doors: [...doors, { port, hosts: [] }] };
    this.#send({ type: 'settings', settings: this.#settings });
  }

  /** Ends the process, and with it all connections. */
  end(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#child?.kill('SIGKILL');
  }

  /** Nobody has a pooled one, so nothing is open for it. */
  #egressOf({ id, pooled, egress = {} }: SandboxSpec): EgressInput {
    if (pooled !== undefined) return { allow: [] };
    const { proxy, ...lists } = egress;
    return proxy === undefined ? lists : { ...lists, proxy: { url: proxy.url, ...this.#credentialsOf(id, proxy) } };
  }

  #credentialsOf(id: string, { credentials }: NonNullable<EgressSpec['proxy']>): Partial<ProxyCredentials> {
    if (credentials === undefined) return {};
    return JSON.parse(this.#options.unseal(credentials, egressContext(id))) as ProxyCredentials;
  }

  #ask(make: (id: number) => EgressRequest): Promise<void> {
    const id = this.#nextId++;
    const request = make(id);
    return new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => settle(() => reject(new Error('the egress process does not answer'))), OPEN_MS);
      const settle = (how: () => void): void => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        how();
      };
      this.#waiting.set(id, { request, resolve: () => settle(resolve), reject: (err) => settle(() => reject(err)) });
      this.#send(request);
    });
  }

  /** What cannot be sent is sent to the next one. */
  #send(request: EgressRequest): void {
    if (this.#child?.connected) this.#child.send(request, () => {});
  }

  #onReport(report: EgressReport): void {
    if (report.type === 'done') {
      const waiting = this.#waiting.get(report.id);
      if (report.error === undefined) waiting?.resolve();
      else {
        this.#options.log.error({ why: report.error }, 'a way out could not be opened');
        waiting?.reject(new Error(`its way out did not open: ${report.error}`));
      }
      return;
    }
    const { egress } = this.#options.counters;
    for (const refusal of EGRESS_REFUSALS) egress.denied[refusal] += report.denied[refusal];
    egress.sent += report.sent;
    egress.received += report.received;
  }
}
