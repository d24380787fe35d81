import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Audit, AuditEntry, AuditQuery, Log } from '../core/contracts.ts';
import { LineFile, parseLines } from './lines.ts';

/** A file that is larger is put aside and a new one begun, in bytes: one is read whole to look for entries. */
const MAX_FILE = 8 * 1024 * 1024;
/** Entries that wait to be written, a full disk or a slow one being the reason; more are told in the log alone. */
const MAX_WAITING = 10_000;

/**
 * JSON lines in `audit.jsonl`, and in `audit-<id of the next entry>.jsonl` what was before. Nothing is ever removed or
 * changed: how long it is kept is the operator's business.
 */
export class FileAudit implements Audit {
  readonly #file: string;
  readonly #lines: LineFile;
  readonly #log: Log;
  readonly #now: () => number;
  #size: number;
  #waiting = 0;
  #last = { at: 0, n: 0 };

  private constructor(file: string, lines: LineFile, size: number, log: Log, now: () => number) {
    this.#file = file;
    this.#lines = lines;
    this.#size = size;
    this.#log = log;
    this.#now = now;
  }

  static async open(file: string, log: Log, now: () => number = Date.now): Promise<FileAudit> {
    const { lines, values } = await LineFile.open(file);
    const { size } = await stat(file).catch(() => ({ size: 0 }));
    const audit = new FileAudit(file, lines, size, log, now);
    const last = (values.at(-1) as AuditEntry | undefined)?.id ?? '0-0';
    audit.#last = { at: Number(last.split('-')[0]) || 0, n: Number(last.split('-')[1]) || 0 };
    return audit;
  }

  record(what: Omit<AuditEntry, 'id' | 'at'>): void {
    // Never backwards, so that ids stay in order when the clock does not.
    const at = Math.max(this.#now(), this.#last.at);
    this.#last = { at, n: at === this.#last.at ? this.#last.n + 1 : 0 };
    const entry: AuditEntry = { id: `${at}-${this.#last.n}`, at, ...what };
    if (this.#waiting >= MAX_WAITING) return this.#lost(entry, new Error(`${MAX_WAITING} entries wait already`));
    this.#waiting += 1;
    this.#write(entry)
      .catch((err: unknown) => this.#lost(entry, err))
      .finally(() => {
        this.#waiting -= 1;
      });
  }

  async find(query: AuditQuery): Promise<AuditEntry[]> {
    const found: AuditEntry[] = [];
    for (const file of await this.#filesNewestFirst()) {
      const text = await readFile(file, 'utf8').catch((err: NodeJS.ErrnoException) => {
        if (err.code === 'ENOENT') return ''; // put aside a moment ago, or nothing has happened yet
        throw err;
      });
      for (const entry of (parseLines(text) as AuditEntry[]).reverse()) {
        if (matches(entry, query)) found.push(entry);
        if (found.length === query.limit) return found;
      }
    }
    return found;
  }

  close(): Promise<void> {
    return this.#lines.close();
  }

  #write(entry: AuditEntry): Promise<void> {
    const bytes = Buffer.byteLength(JSON.stringify(entry)) + 1;
    const full = this.#size > 0 && this.#size + bytes > MAX_FILE;
    this.#size = full ? bytes : this.#size + bytes;
    const aside = `${basename(this.#file, '.jsonl')}-${entry.id}.jsonl`;
    return this.#lines.append(entry, full ? join(dirname(this.#file), aside) : undefined);
  }

  #lost(entry: AuditEntry, err: unknown): void {
    this.#log.error({ entry, err }, 'could not write to the audit log');
  }

  async #filesNewestFirst(): Promise<string[]> {
    const folder = dirname(this.#file);
    const name = basename(this.#file, '.jsonl');
    const aside = (await readdir(folder)).filter((f) => f.startsWith(`${name}-`) && f.endsWith('.jsonl'));
    // Times in milliseconds have 13 digits until the year 2286, so they sort as text; numbers within one do not matter much.
    return [
      this.#file,
      ...aside
        .sort()
        .reverse()
        .map((f) => join(folder, f)),
    ];
  }
}

function matches(entry: AuditEntry, { action, tenant, keyId, sandboxId, since, until, before }: AuditQuery): boolean {
  return (
    (action === undefined || entry.action === action) &&
    (tenant === undefined || entry.tenant === tenant) &&
    (keyId === undefined || entry.keyId === keyId) &&
    (sandboxId === undefined || entry.sandboxId === sandboxId) &&
    (since === undefined || entry.at >= since) &&
    (until === undefined || entry.at < until) &&
    (before === undefined || isBefore(entry.id, before))
  );
}

function isBefore(a: string, b: string): boolean {
  const [at = 0, n = 0] = a.split('-').map(Number);
  const [otherAt = 0, otherN = 0] = b.split('-').map(Number);
  return at < otherAt || (at === otherAt && n < otherN);
}
