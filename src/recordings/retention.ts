import type { Log } from '../core/contracts.ts';
import type { SegmentName } from '../core/recording.ts';
import type { Entry } from './index.ts';
import type { Library, RemovalReason } from './library.ts';

/** How much is kept. 0 of any sets no limit. */
export interface RetentionLimits {
  /** Since the end of a segment, in milliseconds. */
  readonly ageMs: number;
  /** Of all recordings together, those in the archive included. */
  readonly bytes: number;
  /** Of those of one tenant. */
  readonly tenantBytes: number;
}

/** A recording that has to go, and why. */
export interface Expired {
  readonly name: SegmentName;
  readonly reason: Exclude<RemovalReason, 'deleted'>;
}

/** Bytes that count and cannot go: of files that are being written or have not been looked into. */
export interface Held {
  readonly size: number;
  readonly owner?: string;
}

/** How often it is looked, in milliseconds. */
const EVERY_MS = 60_000;

/**
 * What has to go, oldest first. `newestFirst` are all closed segments in that order. A recording that by its time has not
 * ended yet, because the clock was set back, is new. Those of nobody are in no tenant's bytes.
 */
export function expired(
  newestFirst: readonly Entry[],
  held: readonly Held[],
  limits: RetentionLimits,
  now: number,
  mayGo: (entry: Entry) => boolean,
): Expired[] {
  const { ageMs, bytes, tenantBytes } = limits;
  let total = 0;
  const ofTenants = new Map<string, number>();
  const count = ({ size, owner }: Held, sign: 1 | -1): void => {
    total += sign * size;
    if (owner !== undefined) ofTenants.set(owner, (ofTenants.get(owner) ?? 0) + sign * size);
  };
  for (const one of [...newestFirst, ...held]) count(one, 1);
  const reasonOf = (entry: Entry): Expired['reason'] | undefined => {
    if (ageMs > 0 && now - (entry.startedAt + entry.durationMs) > ageMs) return 'age';
    if (bytes > 0 && total > bytes) return 'bytes';
    if (tenantBytes > 0 && (ofTenants.get(entry.owner ?? '') ?? 0) > tenantBytes) return 'tenant_bytes';
    return undefined;
  };
  const found: Expired[] = [];
  for (let i = newestFirst.length - 1; i >= 0; i--) {
    const entry = newestFirst[i] as Entry;
    const reason = reasonOf(entry);
    if (reason === undefined || !mayGo(entry)) continue;
    count(entry, -1);
    found.push({ name: entry, reason });
  }
  return found;
}

/** What a {@link Retention} works on. */
export interface RetentionOptions {
  readonly library: Library;
  readonly limits: RetentionLimits;
  /** Where there is an archive, only what it has may go: else what it is to keep would never come there. */
  readonly archives: boolean;
  readonly log: Log;
  /** Unix milliseconds. The machine's clock by default; one that jumps far ahead makes everything old. */
  readonly now?: () => number;
}

/** Removes what is over the limits, once a minute. */
export class Retention {
  readonly #options: RetentionOptions;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #running: Promise<void> | undefined;

  constructor(options: RetentionOptions) {
    this.#options = options;
  }

  /** Does nothing where no limit is set. */
  start(): void {
    const { ageMs, bytes, tenantBytes } = this.#options.limits;
    if (ageMs === 0 && bytes === 0 && tenantBytes === 0) return;
    this.#timer = setInterval(() => void this.run(), EVERY_MS);
    this.#timer.unref();
    void this.run();
  }

  /** Looks once; a look that is under way counts as this one. Failures are logged, and tried again at the next look. */
  run(): Promise<void> {
    this.#running ??= this.#run()
      .catch((err: unknown) => this.#options.log.error({ err }, 'could not look for recordings that may go'))
      .finally(() => {
        this.#running = undefined;
      });
    return this.#running;
  }

  /** Resolves when nothing is being removed any more. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await this.#running;
  }

  async #run(): Promise<void> {
    const { library, limits, archives, log, now = Date.now } = this.#options;
    const held = await library.unread();
    const mayGo = (entry: Entry): boolean => (archives ? entry.archivedAt !== undefined : entry.onDisk);
    for (const { name, reason } of expired(library.closed(), held, limits, now(), mayGo)) {
      if (this.#closed) return;
      const { sandboxId, filename } = name;
      await library
        .remove(name, reason)
        .catch((err: unknown) => log.error({ sandboxId, filename, err }, 'could not remove a recording'));
    }
  }
}
