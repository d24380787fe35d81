import type { EndedReason } from '../core/sandbox.ts';

/** Limits of a sandbox's life, in milliseconds. */
export interface LifeLimits {
  readonly idleMs: number;
  readonly connectMs: number;
  readonly maxLifetimeMs: number;
  /** An attached viewer keeps the idle timeout from striking. */
  readonly viewersCount: boolean;
}

interface Presence {
  readonly clients: number;
  readonly viewers: number;
}

/**
 * The clocks of one sandbox. Activity is a message from a client to the browser, or a viewer being attached if those count. All
 * arithmetic is on a monotonic clock, so a change of the wall clock neither ends nor prolongs a sandbox.
 */
export class Activity {
  #limits: LifeLimits;
  readonly #now: () => number;
  #bornAt: number;
  #readyAt: number | undefined;
  #lastActivityAt: number;
  #everUsed = false;
  /** Per gateway connection; a gateway that is gone takes its clients with it. */
  readonly #presence = new Map<object, Presence>();

  /** `ageMs` is how old the sandbox was when this clock began: its lifetime counts from its creation. */
  constructor(limits: LifeLimits, ageMs: number, now: () => number = () => performance.now()) {
    this.#limits = limits;
    this.#now = now;
    this.#bornAt = now() - ageMs;
    this.#lastActivityAt = now();
  }

  get clients(): number {
    return this.#sum((p) => p.clients);
  }

  get viewers(): number {
    return this.#sum((p) => p.viewers);
  }

  /** The sandbox is usable from now on: idle and connect timeouts start here. */
  ready(): void {
    this.#readyAt = this.#now();
    this.#lastActivityAt = this.#readyAt;
  }

  /** All over again, with the sandbox usable from this moment on. Nobody may be connected. */
  restart(limits: LifeLimits, ageMs: number): void {
    this.#limits = limits;
    this.#bornAt = this.#now() - ageMs;
    this.#everUsed = false;
    this.ready();
  }

  /** From now on these count; what has happened stays as it was. */
  change(limits: LifeLimits): void {
    this.#limits = limits;
  }

  /** What one gateway says of its clients; `active` when bytes came from one of them since it last said so. */
  report(gateway: object, presence: Presence, active: boolean): void {
    const before = this.#watching;
    this.#presence.set(gateway, presence);
    if (presence.clients > 0 || presence.viewers > 0) this.#everUsed = true;
    // A joining client is activity, and so is the moment in which the last viewer leaves.
    if (active || before || this.#watching) this.#lastActivityAt = this.#now();
  }

  /** A gateway's connection is gone. */
  forget(gateway: object): void {
    const before = this.#watching;
    this.#presence.delete(gateway);
    if (before) this.#lastActivityAt = this.#now();
  }

  /** Milliseconds until the idle timeout strikes; null before READY and while a viewer keeps it from striking. */
  idleInMs(): number | null {
    if (this.#readyAt === undefined || this.#watching) return null;
    return this.#lastActivityAt + this.#limits.idleMs - this.#now();
  }

  expiresInMs(): number {
    return this.#bornAt + this.#limits.maxLifetimeMs - this.#now();
  }

  /** Which limit strikes next, and in how many milliseconds (0 or less: now). */
  next(): { readonly reason: EndedReason; readonly inMs: number } {
    const limits: { reason: EndedReason; inMs: number }[] = [{ reason: 'max_lifetime', inMs: this.expiresInMs() }];
    const idle = this.idleInMs();
    if (idle !== null) limits.push({ reason: 'idle_timeout', inMs: idle });
    if (this.#readyAt !== undefined && !this.#everUsed) {
      limits.push({ reason: 'connect_timeout', inMs: this.#readyAt + this.#limits.connectMs - this.#now() });
    }
    return limits.reduce((first, other) => (other.inMs < first.inMs ? other : first));
  }

  get #watching(): boolean {
    return this.#limits.viewersCount && this.viewers > 0;
  }

  #sum(pick: (p: Presence) => number): number {
    let sum = 0;
    for (const presence of this.#presence.values()) sum += pick(presence);
    return sum;
  }
}
