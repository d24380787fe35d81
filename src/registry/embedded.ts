import type { Registry } from '../core/contracts.ts';
import type { EndedSandbox } from '../core/sandbox.ts';
import { LineFile } from './lines.ts';

/** How much history is kept. */
export interface HistoryLimits {
  /** Entries; default 10,000. */
  readonly count: number;
  /** Milliseconds; default 24 hours. */
  readonly ageMs: number;
}

const DEFAULT_LIMITS: HistoryLimits = { count: 10_000, ageMs: 24 * 3600 * 1000 };

/** History of ended sandboxes in memory and in one file. */
export class EmbeddedRegistry implements Registry {
  readonly #lines: LineFile;
  readonly #limits: HistoryLimits;
  readonly #now: () => number;
  /** Oldest first, as inserted. */
  readonly #ended = new Map<string, EndedSandbox>();

  private constructor(lines: LineFile, limits: HistoryLimits, now: () => number) {
    this.#lines = lines;
    this.#limits = limits;
    this.#now = now;
  }

  static async open(file: string, limits = DEFAULT_LIMITS, now: () => number = Date.now): Promise<EmbeddedRegistry> {
    const { lines, values } = await LineFile.open(file);
    const registry = new EmbeddedRegistry(lines, limits, now);
    for (const value of values) if (isEnded(value)) registry.#put(value);
    if (values.length > 0) await registry.#compact();
    return registry;
  }

  async remember(ended: EndedSandbox): Promise<void> {
    this.#put(ended);
    if (this.#lines.count >= this.#limits.count * 2) await this.#compact();
    else await this.#lines.append(ended);
  }

  find(id: string): EndedSandbox | undefined {
    this.#prune();
    return this.#ended.get(id);
  }

  list(): readonly EndedSandbox[] {
    this.#prune();
    return [...this.#ended.values()].reverse();
  }

  close(): Promise<void> {
    return this.#lines.close();
  }

  #put(ended: EndedSandbox): void {
    this.#ended.delete(ended.spec.id);
    this.#ended.set(ended.spec.id, ended);
    this.#prune();
  }

  #prune(): void {
    const oldest = this.#now() - this.#limits.ageMs;
    for (const [id, ended] of this.#ended) {
      if (this.#ended.size <= this.#limits.count && ended.endedAt >= oldest) break;
      this.#ended.delete(id);
    }
  }

  #compact(): Promise<void> {
    return this.#lines.rewrite(() => [...this.#ended.values()]);
  }
}

function isEnded(value: unknown): value is EndedSandbox {
  const ended = value as Partial<EndedSandbox> | null;
  return typeof ended?.spec?.id === 'string' && typeof ended.endedAt === 'number';
}
