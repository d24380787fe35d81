import type { Counters } from './counters.ts';
import type { Events, SandboxEvent } from './events.ts';
import type { SandboxInfo } from './live.ts';

/** How often a sample is taken, in milliseconds, and how many are kept: the last hour. */
export const SAMPLE_EVERY_MS = 15_000;
const KEPT = 240;

/** How things stood, and what happened since the sample before. `at` is Unix milliseconds. */
export interface StatsSample {
  readonly at: number;
  readonly creating: number;
  readonly ready: number;
  readonly clients: number;
  readonly viewers: number;
  /** Started ahead of demand, that a create may have now. */
  readonly pool: number;
  /** Creates that became READY, and those that did not. */
  readonly created: number;
  readonly failed: number;
  /** Median time to READY of the former, in milliseconds; null when there were none. */
  readonly startMs: number | null;
  /** Answers of 400 and above. */
  readonly refusals: number;
  /** Of the service itself, in bytes. */
  readonly memory: number;
  /** Through the gateway, both ways, in bytes. */
  readonly bytes: number;
}

/** How things stand now, beside the samples. */
export interface StatsNow {
  readonly startedAt: number;
  readonly maxSandboxes: number;
  /** What starts may take until they wait, in MiB; undefined where the machine does not say. */
  readonly freeMemoryMb: number | undefined;
  /** Sandboxes started ahead of demand: by template, ready and at most wanted. */
  readonly pool: Readonly<Record<string, { readonly ready: number; readonly wanted: number }>>;
}

/** What {@link Stats} looks at. */
export interface StatsDeps {
  readonly live: () => readonly SandboxInfo[];
  readonly poolReady: () => ReadonlyMap<string, number>;
  readonly events: Events;
  readonly counters: Counters;
  readonly now: () => StatsNow;
}

/** The last hour of the service in samples, in memory: what `/metrics` would tell a Prometheus, for those who have none. */
export class Stats {
  readonly #deps: StatsDeps;
  readonly #samples: StatsSample[] = [];
  readonly #timer: NodeJS.Timeout;
  /** Among the events: those before it have been counted. */
  #position: number;
  #refusalsBefore = 0;
  #bytesBefore = 0;

  constructor(deps: StatsDeps) {
    this.#deps = deps;
    this.#position = deps.events.position(undefined);
    this.#take();
    this.#timer = setInterval(() => this.#take(), SAMPLE_EVERY_MS);
    this.#timer.unref();
  }

  /** The oldest sample first. */
  get samples(): readonly StatsSample[] {
    return this.#samples;
  }

  get now(): StatsNow {
    return this.#deps.now();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #news(): SandboxEvent[] {
    const news: SandboxEvent[] = [];
    const wanted = (event: SandboxEvent): boolean =>
      event.type === 'sandbox.ready' || (event.type === 'sandbox.ended' && event.beforeReady === true);
    for (;;) {
      const { event, position } = this.#deps.events.next(this.#position, wanted);
      this.#position = position;
      if (!event) return news;
      news.push(event);
    }
  }

  /** The sample before knows best while there is no file descriptor left: Node asks /proc, and a timer that throws ends the service. */
  #memory(): number {
    try {
      return process.memoryUsage.rss();
    } catch {
      return this.#samples.at(-1)?.memory ?? 0;
    }
  }

  #take(): void {
    const { live, poolReady, counters } = this.#deps;
    const all = live();
    const sum = (numbers: Iterable<unknown>): number =>
      [...numbers].reduce<number>((total, n) => total + (Number.isSafeInteger(n) ? (n as number) : 0), 0);
    const refusals = sum(counters.refusals.values());
    const bytes = sum(Object.values(counters.bytes).flatMap((path) => [path.in, path.out]));
    const news = this.#news();
    const created = news.filter((event) => event.type === 'sandbox.ready');
    const times = created.flatMap(({ startMs }) => startMs ?? []).sort((a, b) => a - b);
    this.#samples.push({
      at: Date.now(),
      creating: all.filter((one) => one.state === 'CREATING').length,
      ready: all.filter((one) => one.state === 'READY').length,
      clients: sum(all.map((one) => one.status?.clients)),
      viewers: sum(all.map((one) => one.status?.viewers)),
      pool: sum(poolReady().values()),
      created: created.length,
      failed: news.length - created.length,
      startMs: times[Math.floor(times.length / 2)] ?? null,
      refusals: refusals - this.#refusalsBefore,
      memory: this.#memory(),
      bytes: bytes - this.#bytesBefore,
    });
    if (this.#samples.length > KEPT) this.#samples.shift();
    this.#refusalsBefore = refusals;
    this.#bytesBefore = bytes;
  }
}
