import type { Archive, Log, OpenedFile, UploadQueue } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import type { Segment, SegmentName } from '../core/recording.ts';

/** Where time and chance come from; tests bring their own. */
export interface Clock {
  /** Unix milliseconds. */
  now(): number;
  /** From 0 up to 1. */
  random(): number;
  /** Calls `then` once, after `ms`; what it returns takes that back. */
  after(ms: number, then: () => void): () => void;
}

/** What an {@link Uploader} works on. */
export interface UploaderDeps {
  readonly queue: UploadQueue;
  readonly archive: Archive;
  /** How long the disk keeps what the archive has, in milliseconds. */
  readonly localMs: number;
  readonly log: Log;
  /** The machine's by default. */
  readonly clock?: Clock;
}

/** How the uploads stand. */
export interface UploadStatus {
  /** Closed segments that the archive has not; those on their way count. */
  readonly pending: number;
  readonly pendingBytes: number;
  /** Since the oldest of them began; 0 when there is none. */
  readonly oldestPendingSeconds: number;
  /** The sentence of the last failure, until something has been uploaded again. */
  readonly lastError?: string;
  /** Since the start of the service. */
  readonly uploads: number;
  readonly failures: number;
}

/** Uploads at the same time. */
const AT_ONCE = 2;
/** The wait after a first failure and the longest one, in milliseconds; it doubles from one to the other. */
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 5 * 60_000;
/** How often it is looked for files that the disk may let go of, in milliseconds. */
const EVICT_EVERY_MS = 60_000;

/** A segment that failed: how often, and when it has its next turn in Unix milliseconds. */
interface Wait {
  readonly failures: number;
  readonly until: number;
}

/** The file was deleted before it was read. Not a failure. */
class Deleted extends Error {}

/**
 * Brings closed segments into the archive, oldest first and two at a time, and removes them from the disk a while
 * later. Each segment that fails waits by itself, so that it holds up no other; when it is the archive that fails, all
 * wait, and then go one at a time until one has passed. What was deleted meanwhile it removes from the archive. Keeps
 * nothing that matters: after a restart the queue says what is left.
 */
export class Uploader {
  readonly #queue: UploadQueue;
  readonly #archive: Archive;
  readonly #localMs: number;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #closing = new AbortController();
  /** By filename, as all of these. */
  readonly #running = new Map<string, Promise<void>>();
  readonly #waits = new Map<string, Wait>();
  /** The whole archive's. */
  #outage: Wait = { failures: 0, until: 0 };
  #evicting: Promise<void> | undefined;
  #nextEviction = 0;
  #cancelTimer = (): void => {};
  #uploads = 0;
  #failures = 0;
  #lastError: string | undefined;

  constructor({ queue, archive, localMs, log, clock = systemClock }: UploaderDeps) {
    this.#queue = queue;
    this.#archive = archive;
    this.#localMs = localMs;
    this.#log = log;
    this.#clock = clock;
  }

  /** Looks what there is to do: call it at the start, and when a segment was closed or deleted. */
  wake(): void {
    if (this.#closing.signal.aborted) return;
    this.#cancelTimer();
    const now = this.#clock.now();
    const [unwanted, pending] = [this.#queue.unwanted(), this.#queue.pending()];
    this.#forgetWaits([...unwanted, ...pending]);
    // First: a file that was put back under a deleted one's name goes up when the deleted one is gone.
    const nextRemoval = this.#startWhatMay(unwanted, (name) => this.#removeUnwanted(name), now);
    const nextUpload = this.#startWhatMay(pending, (segment) => this.#upload(segment), now);
    if (now >= this.#nextEviction) this.#evict(now);
    const next = Math.min(nextRemoval, nextUpload, this.#nextEviction);
    // A clock that was set back must not stop everything for long.
    this.#cancelTimer = this.#clock.after(Math.min(Math.max(next - now, 1), EVICT_EVERY_MS), () => this.wake());
  }

  status(): UploadStatus {
    const pending = this.#queue.pending();
    const oldest = pending.reduce((at, segment) => Math.min(at, segment.startedAt), this.#clock.now());
    return {
      pending: pending.length,
      pendingBytes: pending.reduce((sum, segment) => sum + segment.size, 0),
      oldestPendingSeconds: Math.max(0, (this.#clock.now() - oldest) / 1000),
      ...(this.#lastError === undefined ? {} : { lastError: this.#lastError }),
      uploads: this.#uploads,
      failures: this.#failures,
    };
  }

  /** Breaks off what is under way and waits until it has ended. What was not uploaded is for the next start. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#cancelTimer();
    await Promise.all([...this.#running.values(), this.#evicting]);
  }

  /**
   * Starts as many as may run now; answers when the next may of those that wait for their time, in Unix milliseconds. Those that
   * wait for room are not gone through: they may be very many, and the end of one that runs wakes us.
   */
  #startWhatMay<T extends SegmentName>(items: readonly T[], work: (item: T) => Promise<void>, now: number): number {
    let next = Number.POSITIVE_INFINITY;
    const atOnce = this.#outage.failures > 0 ? 1 : AT_ONCE;
    for (const item of items) {
      if (this.#running.size >= atOnce) break;
      if (this.#running.has(item.filename)) continue;
      const until = Math.max(this.#waits.get(item.filename)?.until ?? 0, this.#outage.until);
      if (until > now) next = Math.min(next, until);
      else this.#start(item.filename, work(item));
    }
    return next;
  }

  #start(filename: string, work: Promise<void>): void {
    const done = work
      .then(
        () => this.#succeeded(filename),
        (err: unknown) => this.#failed(filename, err),
      )
      .finally(() => {
        this.#running.delete(filename);
        this.wake();
      });
    this.#running.set(filename, done);
  }

  async #upload(segment: Segment): Promise<void> {
    const open = async (): Promise<OpenedFile> => {
      const file = await this.#queue.openLocal(segment);
      if (!file) throw new Deleted();
      return file;
    };
    try {
      await this.#archive.put(segment, open, this.#closing.signal);
    } catch (err) {
      if (!(err instanceof Deleted)) throw err;
      return this.#removeUnwanted(segment);
    }
    if (await this.#queue.archived(segment)) {
      this.#uploads += 1;
      this.#nextEviction = Math.min(this.#nextEviction, this.#clock.now() + this.#localMs);
      this.#log.info({ sandboxId: segment.sandboxId, filename: segment.filename }, 'a recording is in the archive');
      return;
    }
    await this.#removeUnwanted(segment);
  }

  async #removeUnwanted(segment: SegmentName): Promise<void> {
    const { signal } = this.#closing;
    signal.throwIfAborted();
    // A removal cannot be broken off, but the end of the service does not wait for it.
    await new Promise((resolve, reject) => {
      const stop = (): void => reject(signal.reason);
      signal.addEventListener('abort', stop, { once: true });
      const removed = this.#archive.remove(segment).finally(() => signal.removeEventListener('abort', stop));
      removed.then(resolve, reject);
    });
    this.#queue.cleared(segment);
  }

  #succeeded(filename: string): void {
    this.#waits.delete(filename);
    this.#outage = { failures: 0, until: 0 };
    this.#lastError = undefined;
  }

  #failed(filename: string, err: unknown): void {
    if (this.#closing.signal.aborted) return;
    this.#failures += 1;
    this.#lastError = err instanceof Error ? err.message : String(err);
    const wait = this.#longer(this.#waits.get(filename));
    this.#waits.set(filename, wait);
    const outage = err instanceof AppError && err.errorName === 'STORAGE_UNAVAILABLE';
    if (outage) this.#outage = this.#longer(this.#outage);
    const inSeconds = Math.ceil((wait.until - this.#clock.now()) / 1000);
    this.#log.warn({ filename, why: this.#lastError, inSeconds }, 'a recording did not get into the archive');
  }

  /** From half of it to all of it, so that services which failed together do not come back together. */
  #longer(wait: Wait | undefined): Wait {
    const failures = (wait?.failures ?? 0) + 1;
    const full = Math.min(FIRST_WAIT_MS * 2 ** (failures - 1), LONGEST_WAIT_MS);
    return { failures, until: this.#clock.now() + Math.round(full * (0.5 + this.#clock.random() / 2)) };
  }

  #forgetWaits(items: readonly SegmentName[]): void {
    if (this.#waits.size === 0) return;
    const known = new Set(items.map(({ filename }) => filename));
    for (const filename of this.#waits.keys()) if (!known.has(filename)) this.#waits.delete(filename);
  }

  #evict(now: number): void {
    this.#nextEviction = now + EVICT_EVERY_MS;
    this.#evicting ??= this.#evictAll().finally(() => {
      this.#evicting = undefined;
    });
  }

  async #evictAll(): Promise<void> {
    for (const segment of this.#queue.evictable(this.#localMs)) {
      if (this.#closing.signal.aborted) return;
      const { sandboxId, filename } = segment;
      // One that cannot go must not keep the others.
      await this.#queue
        .evict(segment)
        .catch((err: unknown) =>
          this.#log.error({ sandboxId, filename, err }, 'could not remove an archived recording from the disk'),
        );
    }
  }
}

const systemClock: Clock = {
  now: () => Date.now(),
  random: () => Math.random(),
  after(ms, then) {
    const timer = setTimeout(then, ms);
    // Waiting is no reason for the process to go on.
    timer.unref();
    return () => clearTimeout(timer);
  },
};
