/** How many sandboxes of one template wait: always the least, and more, up to the most, while creates come often. */
export interface PoolSize {
  readonly min: number;
  readonly max: number;
}

/** How many of each template should wait, were there room for all: as many as creates came lately, within their bounds. */
export class Demand {
  readonly #sizes: ReadonlyMap<string, PoolSize>;
  readonly #withinMs: number;
  /** When the last creates came (`performance.now()`), by template; no more of them than may ever be wanted. */
  readonly #creates = new Map<string, number[]>();

  /** Lately is within so many milliseconds. */
  constructor(sizes: ReadonlyMap<string, PoolSize>, withinMs: number) {
    this.#sizes = sizes;
    this.#withinMs = withinMs;
  }

  /** A create of a template came. */
  note(templateName: string): void {
    const size = this.#sizes.get(templateName);
    if (!size) return;
    const creates = [...(this.#creates.get(templateName) ?? []), performance.now()];
    this.#creates.set(templateName, creates.slice(-size.max));
  }

  /** 0 for a template that has no pool. */
  of(templateName: string): number {
    const size = this.#sizes.get(templateName);
    if (!size) return 0;
    const since = performance.now() - this.#withinMs;
    const lately = this.#creates.get(templateName)?.filter((at) => at >= since).length ?? 0;
    return Math.min(size.max, Math.max(size.min, lately));
  }

  /** The template that lacks the greatest part of what should wait, `waiting` being what does; undefined when none lacks any. */
  neediest(waiting: (templateName: string) => number): string | undefined {
    let neediest: string | undefined;
    let least = 1;
    for (const name of this.#sizes.keys()) {
      // Where none should wait there is nothing to divide by: 0 of 0 is NaN, which is less than no number.
      const share = waiting(name) / this.of(name);
      if (share < least) [neediest, least] = [name, share];
    }
    return neediest;
  }
}
