import { AppError } from './errors.ts';

/** How much may run, start and wait; the settings of the same names. */
export interface AdmissionOptions {
  /** Sandboxes that are not gone yet, those that wait included. */
  readonly maxSandboxes: number;
  /** Sandboxes that start at once. */
  readonly maxStarts: number;
  /** Creates that wait for their turn. */
  readonly maxQueue: number;
  /** Their longest wait. */
  readonly queueSeconds: number;
  /** Megabytes of memory that starts must leave free; 0 does not look. */
  readonly minFreeMemoryMb: number;
  /** Megabytes that sandboxes may still take before the machine swaps or kills; undefined where nobody can tell. */
  readonly freeMemoryMb: () => number | undefined;
  /** Called when memory keeps a start waiting or has it refused; whoever can give some back does so. */
  readonly onShortage?: () => void;
  /** Runs something later; the answer calls it off. Default: a timer that does not keep the program alive. */
  readonly after?: (ms: number, run: () => void) => () => void;
}

/** What a create holds from its admission until its start is over. */
export interface Place {
  /**
   * Resolves when the start may begin. Rejects with NO_CAPACITY after the longest wait, with SHUTTING_DOWN, and with
   * the signal's reason when that fires first: the place in the queue is then free.
   */
  turn(signal: AbortSignal): Promise<void>;
  /** The start is over, READY or not, and the next one may begin. Idempotent. */
  leave(): void;
}

/**
 * Memory that a sandbox takes until it is READY, in megabytes: an idle one has 200 to 420 MB (PSS, docs/performance.md).
 * Counted in full for each one that is starting, since the kernel's figure shows of it only what it has touched so far.
 */
const START_MB = 300;
/** Nobody tells when memory becomes free, so while somebody waits it is looked at this often, in milliseconds. */
const LOOK_EVERY_MS = 500;
/** When a refused caller may come again. Sandboxes end when they please, so it is a guess that keeps callers from hammering. */
const RETRY_AFTER_SECONDS = 5;

interface Waiting {
  go(): void;
  refuse(err: AppError): void;
}

/**
 * Decides who may start now. First come, first served: a cap on sandboxes refuses at once, since they live for hours; a cap
 * on starts and a floor under the free memory make creates wait in a bounded queue, since both pass within seconds.
 */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #after: (ms: number, run: () => void) => () => void;
  /** First come first. */
  readonly #queue = new Set<Waiting>();
  #starting = 0;
  /** Starts ahead of demand under way. */
  #ahead = 0;
  #watching = false;
  #closed = false;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    this.#after = options.after ?? later;
  }

  /** Takes a place among the starting or the waiting; `living` sandboxes are there already. Throws NO_CAPACITY, SHUTTING_DOWN. */
  enter(living: number): Place {
    this.assertRoom(living);
    const { maxQueue } = this.#options;
    // Those before us may go by now; only then may we.
    const obstacle = this.#look();
    if (obstacle !== undefined) this.#askForMemory();
    if (obstacle !== undefined && this.#queue.size >= maxQueue) {
      throw refusal(`${obstacle}, and ${this.#queue.size} creates wait already (BERTH_MAX_QUEUE).`);
    }
    return obstacle === undefined ? this.#startNow() : this.#wait();
  }

  /** The first half of {@link enter}: throws when there are as many sandboxes as there may be, and after the close. */
  assertRoom(living: number): void {
    if (this.#closed) throw shuttingDown();
    if (this.room(living) > 0) return;
    throw refusal(`All ${this.#options.maxSandboxes} sandboxes of this service are in use (BERTH_MAX_SANDBOXES).`);
  }

  /** How many more sandboxes there may be. */
  room(living: number): number {
    return this.#options.maxSandboxes - living;
  }

  /**
   * Room for a start ahead of demand, until the answer is called; undefined while anybody starts or waits, or memory is
   * short. It takes no start away from anybody, and its memory counts.
   */
  enterAhead(): (() => void) | undefined {
    if (this.#closed || this.#starting > 0 || this.#queue.size > 0 || this.#shortage() !== undefined) return undefined;
    this.#ahead += 1;
    return () => {
      this.#ahead -= 1;
      this.#look();
    };
  }

  /** Sends everybody who waits away with SHUTTING_DOWN, and whoever comes from now on. */
  close(): void {
    this.#closed = true;
    for (const waiting of this.#queue) waiting.refuse(shuttingDown());
  }

  #startNow(): Place {
    this.#starting += 1;
    let over = false;
    return {
      turn: async (signal) => signal.throwIfAborted(),
      leave: () => {
        if (over) return;
        over = true;
        this.#starting -= 1;
        this.#look();
      },
    };
  }

  #wait(): Place {
    const { queueSeconds } = this.#options;
    let place: Place | undefined;
    let settle: { resolve(): void; reject(err: unknown): void };
    const turn = new Promise<void>((resolve, reject) => {
      settle = { resolve, reject };
    });
    turn.catch(() => {}); // whoever waits hears of it; nobody may
    const giveUp = (err: unknown): void => {
      callOff();
      // Nobody moves up: who was behind us met the same obstacle.
      if (this.#queue.delete(waiting)) settle.reject(err);
    };
    const waiting: Waiting = {
      go: () => {
        callOff();
        this.#queue.delete(waiting);
        place = this.#startNow();
        settle.resolve();
      },
      refuse: giveUp,
    };
    const callOff = this.#after(queueSeconds * 1000, () => {
      const obstacle = this.#look(); // perhaps it is our turn this very moment
      giveUp(refusal(`${obstacle}, and no turn came within ${queueSeconds} s (BERTH_QUEUE_SECONDS).`));
    });
    this.#queue.add(waiting);
    this.#watch();
    return {
      turn: async (signal) => {
        const onAbort = (): void => giveUp(signal.reason);
        signal.addEventListener('abort', onAbort, { once: true });
        if (signal.aborted) onAbort();
        await turn.finally(() => signal.removeEventListener('abort', onAbort));
      },
      leave: () => (place ? place.leave() : giveUp(new Error('left'))),
    };
  }

  /** Lets in whoever is first until something stands in the way of the next one, and says what. */
  #look(): string | undefined {
    let obstacle = this.#obstacle();
    for (const first of this.#queue) {
      if (obstacle !== undefined) break;
      first.go();
      obstacle = this.#obstacle();
    }
    return obstacle;
  }

  #watch(): void {
    if (this.#watching || this.#queue.size === 0) return;
    this.#watching = true;
    this.#after(LOOK_EVERY_MS, () => {
      this.#watching = false;
      this.#look();
      if (this.#queue.size > 0) this.#askForMemory();
      this.#watch();
    });
  }

  /** Why no start may begin now, as a sentence without its end. */
  #obstacle(): string | undefined {
    const { maxStarts } = this.#options;
    if (this.#starting >= maxStarts) return 'As many sandboxes as may start at once are starting (BERTH_MAX_STARTS)';
    return this.#shortage();
  }

  #askForMemory(): void {
    if (this.#shortage() !== undefined) this.#options.onShortage?.();
  }

  #shortage(): string | undefined {
    const { minFreeMemoryMb, freeMemoryMb } = this.#options;
    const free = minFreeMemoryMb > 0 ? freeMemoryMb() : undefined;
    const underWay = this.#starting + this.#ahead;
    const taken = (underWay + 1) * START_MB;
    if (free === undefined || free - taken >= minFreeMemoryMb) return undefined;
    const others = underWay > 0 ? ` and the ${underWay} that are starting` : '';
    return (
      `${minFreeMemoryMb} MB of memory must stay free (BERTH_MIN_FREE_MEMORY_MB), ${Math.floor(free)} MB are, ` +
      `and this sandbox${others} will take about ${taken} MB`
    );
  }
}

function later(ms: number, run: () => void): () => void {
  const timer = setTimeout(run, ms);
  timer.unref();
  return () => clearTimeout(timer);
}

function refusal(sentence: string): AppError {
  return new AppError('NO_CAPACITY', sentence, { 'Retry-After': String(RETRY_AFTER_SECONDS) });
}

function shuttingDown(): AppError {
  return new AppError('SHUTTING_DOWN', 'Berth is shutting down and takes no new sandboxes.');
}
