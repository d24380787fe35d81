import { createHash } from 'node:crypto';
import { AppError } from './errors.ts';
import type { SandboxInfo } from './live.ts';
import type { Idempotency, SandboxSpec } from './sandbox.ts';

/** How many keys are known and for how long. */
export interface IdempotencyLimits {
  /** Default 10,000; the oldest go first. */
  readonly count: number;
  /** Milliseconds since the create; default 24 hours. */
  readonly ageMs: number;
}

const DEFAULT_LIMITS: IdempotencyLimits = { count: 10_000, ageMs: 24 * 3600 * 1000 };

/** The sandbox of an earlier create with the same key; `started` settles with its start, where this service has begun that. */
export interface Earlier {
  readonly id: string;
  readonly started: Promise<void> | undefined;
}

/**
 * Which sandbox was created with which `Idempotency-Key`. Only an index: key and body stand in the sandboxes' specs, which
 * drivers and history keep, so that it is built anew when the service starts.
 */
export class IdempotencyKeys {
  readonly #find: (id: string) => SandboxInfo | undefined;
  readonly #limits: IdempotencyLimits;
  readonly #now: () => number;
  /** Oldest first. */
  readonly #byKey = new Map<string, Earlier>();

  /** `find` knows live sandboxes and those of the history. */
  constructor(find: (id: string) => SandboxInfo | undefined, limits = DEFAULT_LIMITS, now: () => number = Date.now) {
    this.#find = find;
    this.#limits = limits;
    this.#now = now;
  }

  /** Remembers a sandbox, when it was created with a key. */
  add(spec: SandboxSpec, started?: Promise<void>): void {
    if (!spec.idempotency) return;
    const { key } = spec.idempotency;
    this.#byKey.delete(key);
    this.#byKey.set(key, { id: spec.id, started });
    for (const oldest of this.#byKey.keys()) {
      if (this.#byKey.size <= this.#limits.count) break;
      this.#byKey.delete(oldest);
    }
  }

  /** Undefined when there was none, or its start failed, or it is forgotten. Throws IDEMPOTENCY_KEY_REUSED for another body. */
  earlier({ key, body }: Idempotency): Earlier | undefined {
    const known = this.#byKey.get(key);
    if (!known) return undefined;
    const info = this.#find(known.id);
    const forgotten =
      // The id may belong to a later sandbox.
      info?.spec.idempotency?.key !== key ||
      info.spec.createdAt <= this.#now() - this.#limits.ageMs ||
      (info.ended !== undefined && info.ended.readyAt === undefined);
    if (forgotten) {
      this.#byKey.delete(key);
      return undefined;
    }
    if (info.spec.idempotency.body !== body) {
      throw new AppError('IDEMPOTENCY_KEY_REUSED', 'Idempotency-Key: this key was used with another body before.');
    }
    return known;
  }
}

/** What is kept of a tenant's key and of what was asked for; the order of an object's fields makes no difference. */
export function idempotencyOf(tenant: string, key: string, input: object): Idempotency {
  return { key: sha256(`${tenant}\0${key}`), body: sha256(JSON.stringify(input, sorted)) };
}

function sorted(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('base64url');
}
