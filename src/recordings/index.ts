import { appendFile, mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { parseSegmentName, SEGMENT_REASONS, type Segment, type SegmentName } from '../core/recording.ts';
import { Newest } from './order.ts';

/** A closed segment and where it lies. */
export interface Entry extends Segment {
  readonly onDisk: boolean;
  /** Unix milliseconds; absent while the archive has it not. */
  readonly archivedAt?: number;
}

/** Lines above twice the entries before the file is written anew, so that a small one is not written anew all the time. */
const SLACK_LINES = 1000;
/** Lines that are made without letting go of the event loop. */
const BATCH_LINES = 1000;

/**
 * All closed segments, in memory and in one file of JSON lines, and the names of those that were deleted while the archive
 * may have them. The file is a cache of what disk and archive say, so a failure to write it is told and then made good by
 * the next write; a torn last line costs that line alone.
 */
export class RecordingIndex {
  readonly #file: string;
  readonly #onError: (err: unknown) => void;
  readonly #byName = new Map<string, Entry>();
  readonly #bySandbox = new Map<string, Newest<Entry>>();
  readonly #all = new Newest<Entry>();
  readonly #unwanted = new Map<string, SegmentName>();
  #lines = 0;
  #queue: string[] = [];
  #writing: Promise<void> | undefined;
  /** The file's end may be torn: only a whole one may follow. */
  #torn = false;

  private constructor(file: string, onError: (err: unknown) => void) {
    this.#file = file;
    this.#onError = onError;
  }

  /** `onError` hears of failed writes. Rejects when there is a file and it cannot be read. */
  static async open(file: string, onError: (err: unknown) => void): Promise<RecordingIndex> {
    const index = new RecordingIndex(file, onError);
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    const text = await readFile(file, 'utf8').catch((err: NodeJS.ErrnoException) => {
      if (err.code === 'ENOENT') return '';
      throw err;
    });
    for (const line of text.split('\n')) index.#read(line);
    const all = [...index.#byName.values()];
    index.#all.fill(all);
    for (const [sandboxId, entries] of bySandbox(all)) index.#of(sandboxId).fill(entries);
    // Starting from a whole file also heals a torn last line, which the next append would otherwise run into.
    if (text !== '') await index.#writeAnew();
    return index;
  }

  /** How many entries there are. */
  get size(): number {
    return this.#byName.size;
  }

  /** Newest first, and live: copy it before you change the index while you go through it. */
  get all(): readonly Entry[] {
    return this.#all.items;
  }

  /** Of one sandbox, newest first and live. */
  of(sandboxId: string): readonly Entry[] {
    return this.#bySandbox.get(sandboxId)?.items ?? [];
  }

  /** Sandboxes that have an entry. */
  sandboxes(): IterableIterator<string> {
    return this.#bySandbox.keys();
  }

  get(filename: string): Entry | undefined {
    return this.#byName.get(filename);
  }

  /** In the place of the one of the same name. Written a moment later. */
  put(given: Entry): void {
    const entry = shaped(given);
    const before = this.#byName.get(entry.filename);
    if (before && before.startedAt !== entry.startedAt) this.#forget(before);
    this.#byName.set(entry.filename, entry);
    this.#all.put(entry);
    this.#of(entry.sandboxId).put(entry);
    this.#write(lineOf(entry));
  }

  /** False when there was none. */
  delete(filename: string): boolean {
    const entry = this.#byName.get(filename);
    if (!entry) return false;
    this.#forget(entry);
    this.#write(`${JSON.stringify({ removed: filename })}\n`);
    return true;
  }

  /** By filename; there may be an entry of the same name, when the file was put back. */
  get unwanted(): ReadonlyMap<string, SegmentName> {
    return this.#unwanted;
  }

  /** Notes that the archive may have something of it that has to go. Written a moment later, as all changes. */
  addUnwanted(name: SegmentName): void {
    if (this.#unwanted.has(name.filename)) return;
    this.#unwanted.set(name.filename, name);
    this.#write(unwantedLine(name));
  }

  /** Notes that the archive has nothing of it any more. */
  deleteUnwanted({ filename }: SegmentName): void {
    if (this.#unwanted.delete(filename)) this.#write(`${JSON.stringify({ cleared: filename })}\n`);
  }

  /** Resolves when everything is written, or could not be. */
  async close(): Promise<void> {
    await this.#writing;
  }

  #forget(entry: Entry): void {
    this.#byName.delete(entry.filename);
    this.#all.delete(entry);
    const ofSandbox = this.#of(entry.sandboxId);
    ofSandbox.delete(entry);
    if (ofSandbox.items.length === 0) this.#bySandbox.delete(entry.sandboxId);
  }

  #of(sandboxId: string): Newest<Entry> {
    const known = this.#bySandbox.get(sandboxId) ?? new Newest<Entry>();
    this.#bySandbox.set(sandboxId, known);
    return known;
  }

  #read(line: string): void {
    const read = parse(line);
    if (read === undefined) return;
    if ('removed' in read) this.#byName.delete(read.removed);
    else if ('cleared' in read) this.#unwanted.delete(read.cleared);
    else if ('unwanted' in read) this.#unwanted.set(read.unwanted.filename, read.unwanted);
    else this.#byName.set(read.filename, read);
  }

  #write(line: string): void {
    this.#queue.push(line);
    this.#writing ??= this.#writeQueue().finally(() => {
      this.#writing = undefined;
    });
  }

  async #writeQueue(): Promise<void> {
    while (this.#queue.length > 0) {
      const lines = this.#queue;
      this.#queue = [];
      const needed = this.size + this.#unwanted.size;
      // What is written anew has what was in the queue.
      if (this.#torn || this.#lines + lines.length > 2 * needed + SLACK_LINES) await this.#writeAnew();
      else await this.#told(this.#append(lines));
    }
  }

  #writeAnew(): Promise<void> {
    return this.#told(this.#compact());
  }

  /** After any failure the file's end may be torn, which the next append would run into. */
  #told(writing: Promise<void>): Promise<void> {
    return writing.catch((err: unknown) => {
      this.#torn = true;
      this.#onError(err);
    });
  }

  async #append(lines: readonly string[]): Promise<void> {
    await appendFile(this.#file, lines.join(''), { mode: 0o600 });
    this.#lines += lines.length;
  }

  async #compact(): Promise<void> {
    // What changes from here on comes into the queue, and behind these.
    const entries = [...this.#byName.values()];
    const unwanted = [...this.#unwanted.values()];
    const file = await open(`${this.#file}.tmp`, 'w', 0o600);
    try {
      for (let i = 0; i < entries.length; i += BATCH_LINES) {
        await file.appendFile(
          entries
            .slice(i, i + BATCH_LINES)
            .map(lineOf)
            .join(''),
        );
      }
      await file.appendFile(unwanted.map(unwantedLine).join(''));
    } finally {
      await file.close();
    }
    await rename(`${this.#file}.tmp`, this.#file);
    this.#lines = entries.length + unwanted.length;
    this.#torn = false;
  }
}

function bySandbox(entries: readonly Entry[]): Map<string, Entry[]> {
  const found = new Map<string, Entry[]>();
  for (const entry of entries) {
    const known = found.get(entry.sandboxId);
    if (known) known.push(entry);
    else found.set(entry.sandboxId, [entry]);
  }
  return found;
}

/** Without what the name says already. */
function lineOf(entry: Entry): string {
  const { sandboxId, sessionId, segment, ...line } = entry;
  return `${JSON.stringify(line)}\n`;
}

function unwantedLine({ filename }: SegmentName): string {
  return `${JSON.stringify({ unwanted: filename })}\n`;
}

type Line = Entry | { readonly removed: string } | { readonly unwanted: SegmentName } | { readonly cleared: string };

/** What a line says; undefined for one that is torn or is none of these. */
function parse(line: string): Line | undefined {
  if (line === '') return undefined;
  try {
    const read = JSON.parse(line) as Entry & { removed?: unknown; unwanted?: unknown; cleared?: unknown };
    if (typeof read.removed === 'string') return { removed: read.removed };
    if (typeof read.cleared === 'string') return { cleared: read.cleared };
    const unwanted = parseSegmentName(String(read.unwanted));
    if (unwanted) return { unwanted };
    const name = parseSegmentName(String(read.filename));
    return name && isEntry(read) ? shaped({ ...read, ...name }) : undefined;
  } catch {
    return undefined;
  }
}

/** V8 goes through objects that were all written down alike ten times as fast as through those put together by spreading. */
function shaped(entry: Entry): Entry {
  return {
    filename: entry.filename,
    sandboxId: entry.sandboxId,
    sessionId: entry.sessionId,
    segment: entry.segment,
    size: entry.size,
    startedAt: entry.startedAt,
    durationMs: entry.durationMs,
    frames: entry.frames,
    headerBytes: entry.headerBytes,
    clusters: entry.clusters,
    frameBytes: entry.frameBytes,
    metadata: entry.metadata,
    reason: entry.reason,
    dropped: entry.dropped,
    onDisk: entry.onDisk,
    ...(entry.owner === undefined ? {} : { owner: entry.owner }),
    ...(entry.archivedAt === undefined ? {} : { archivedAt: entry.archivedAt }),
  };
}

function isEntry(read: Entry): boolean {
  const { size, startedAt, durationMs, frames, headerBytes, clusters, frameBytes } = read;
  const isNumber = (value: unknown): boolean => Number.isFinite(value);
  return (
    [size, startedAt, durationMs, frames, headerBytes, clusters, frameBytes].every(isNumber) &&
    (read.dropped === null || isNumber(read.dropped)) &&
    (read.archivedAt === undefined || isNumber(read.archivedAt)) &&
    (read.owner === undefined || typeof read.owner === 'string') &&
    typeof read.onDisk === 'boolean' &&
    SEGMENT_REASONS.includes(read.reason) &&
    typeof read.metadata === 'object' &&
    read.metadata !== null
  );
}
