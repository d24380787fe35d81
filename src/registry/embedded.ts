import { appendFile, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Registry } from '../core/contracts.ts';
import type { EndedSandbox } from '../core/sandbox.ts';

/** How much history is kept. */
export interface HistoryLimits {
  /** Entries; default 10,000. */
  readonly count: number;
  /** Milliseconds; default 24 hours. */
  readonly ageMs: number;
}

const DEFAULT_LIMITS: HistoryLimits = { count: 10_000, ageMs: 24 * 3600 * 1000 };

/** History of ended sandboxes in memory and in one file of JSON lines. A torn last line (kill -9, full disk) costs that line alone. */
export class EmbeddedRegistry implements Registry {
  readonly #file: string;
  readonly #limits: HistoryLimits;
  readonly #now: () => number;
  /** Oldest first, as inserted. */
  readonly #ended = new Map<string, EndedSandbox>();
  #lines = 0;
  #writing: Promise<void> = Promise.resolve();

  private constructor(file: string, limits: HistoryLimits, now: () => number) {
    this.#file = file;
    this.#limits = limits;
    this.#now = now;
  }

  static async open(file: string, limits = DEFAULT_LIMITS, now: () => number = Date.now): Promise<EmbeddedRegistry> {
    const registry = new EmbeddedRegistry(file, limits, now);
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    const text = await readFile(file, 'utf8').catch((err: NodeJS.ErrnoException) => {
      if (err.code === 'ENOENT') return '';
      throw err;
    });
    for (const line of text.split('\n')) {
      const ended = parse(line);
      if (ended) registry.#put(ended);
    }
    // Starting from a whole file also heals a torn last line, which the next append would otherwise run into.
    if (text !== '') await registry.#compact();
    return registry;
  }

  async remember(ended: EndedSandbox): Promise<void> {
    this.#put(ended);
    // Promise chain: lines are written one after another, and a failed write is its own caller's.
    const write = this.#writing.then(async () => {
      if (this.#lines >= this.#limits.count * 2) return this.#compact();
      await appendFile(this.#file, `${JSON.stringify(ended)}\n`, { mode: 0o600 });
      this.#lines += 1;
    });
    this.#writing = write.catch(() => {});
    await write;
  }

  find(id: string): EndedSandbox | undefined {
    this.#prune();
    return this.#ended.get(id);
  }

  list(): readonly EndedSandbox[] {
    this.#prune();
    return [...this.#ended.values()].reverse();
  }

  async close(): Promise<void> {
    await this.#writing;
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

  async #compact(): Promise<void> {
    const lines = [...this.#ended.values()].map((ended) => `${JSON.stringify(ended)}\n`);
    await writeFile(`${this.#file}.tmp`, lines.join(''), { mode: 0o600 });
    await rename(`${this.#file}.tmp`, this.#file);
    this.#lines = lines.length;
  }
}

function parse(line: string): EndedSandbox | undefined {
  if (line === '') return undefined;
  try {
    const ended = JSON.parse(line) as EndedSandbox;
    return typeof ended.spec?.id === 'string' && typeof ended.endedAt === 'number' ? ended : undefined;
  } catch {
    return undefined; // a torn line
  }
}
