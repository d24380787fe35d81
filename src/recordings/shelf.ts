import type { Storage, StoredFile } from '../core/contracts.ts';
import { parseSegmentName, type SegmentName, sandboxOfSession, segmentFile } from '../core/recording.ts';
import type { Entry, RecordingIndex } from './index.ts';
import { type JournalLine, parseJournal } from './journal.ts';

/** What a recorder is writing. Without a number it is the highest segment of the session that is on disk. */
export interface Writing {
  readonly sessionId: string;
  readonly segment?: number;
}

/** A file on disk that is not in the index. */
export interface Unclosed extends SegmentName {
  readonly size: number;
  /** Unix milliseconds, both. */
  readonly startedAt: number;
  readonly modifiedAt: number;
}

/** What is known of one sandbox's folder. */
export interface Folder {
  /** As the recorder said last; undefined while it writes nothing or has not said anything yet. */
  writing: Writing | undefined;
  /** All sessions that we heard its recorder write. */
  readonly sessions: Set<string>;
  readonly unclosed: Map<string, Unclosed>;
  /** When it had changed last as we read it; undefined: read it again. */
  changedAt: number | undefined;
  reading: Promise<void>;
  closing: Promise<void> | undefined;
  again: boolean;
  /** The one read last, while files are being closed. */
  journal: { readonly sessionId: string; readonly lines: ReadonlyMap<number, JournalLine> } | undefined;
}

/** Listeners of a {@link Shelf}. */
export interface ShelfEvents {
  /** The entry's file is nowhere any more: it has to go from the index. */
  onGone(entry: Entry): void;
  /** A folder could not be read; it is tried again at the next look. */
  onUnreadable(sandboxId: string, err: unknown): void;
}

/** A folder's time of change moves in steps, so one that has changed this recently may yet change unseen, in milliseconds. */
const UNSURE_MS = 2000;

/** What lies in the folders beside what the index has, and who writes there. Never looks into a segment. */
export class Shelf {
  readonly folders: ReadonlyMap<string, Folder>;
  readonly #folders = new Map<string, Folder>();
  readonly #storage: Storage;
  readonly #index: RecordingIndex;
  readonly #events: ShelfEvents;
  readonly #now: () => number;

  constructor(storage: Storage, index: RecordingIndex, events: ShelfEvents, now: () => number) {
    this.folders = this.#folders;
    this.#storage = storage;
    this.#index = index;
    this.#events = events;
    this.#now = now;
  }

  folder(sandboxId: string): Folder | undefined {
    return this.#folders.get(sandboxId);
  }

  /** True when something may have been finished: the recorder has stopped or writes something else than before. */
  saw(sandboxId: string, recorder: Writing | undefined): boolean {
    const writing = recorder && checked(sandboxId, recorder);
    const before = this.#folders.get(sandboxId)?.writing;
    if (before?.sessionId === writing?.sessionId && before?.segment === writing?.segment) return false;
    const folder = this.#made(sandboxId);
    folder.writing = writing;
    if (writing) folder.sessions.add(writing.sessionId);
    // What was taken for finished before the recorder was heard.
    for (const entry of [...this.#index.of(sandboxId)]) {
      if (entry.onDisk && writing?.segment !== undefined && this.isWritten(folder, entry)) this.reopen(entry);
    }
    return before !== undefined;
  }

  isWritten({ writing, unclosed }: Folder, name: SegmentName): boolean {
    if (!writing || name.sessionId !== writing.sessionId) return false;
    if (writing.segment !== undefined) return name.segment >= writing.segment;
    const session = [...unclosed.values()].filter((file) => file.sessionId === name.sessionId);
    return session.every((file) => file.segment <= name.segment);
  }

  unclosed(name: SegmentName): Unclosed | undefined {
    return this.#folders.get(name.sandboxId)?.unclosed.get(name.filename);
  }

  /** It is in the index now, or gone. */
  closed(name: SegmentName): void {
    this.#folders.get(name.sandboxId)?.unclosed.delete(name.filename);
  }

  /** Looks at the file again. Undefined when it is gone. */
  async refreshed(folder: Folder, { sandboxId, filename }: SegmentName): Promise<Unclosed | undefined> {
    const found = await this.#storage.find(sandboxId, filename);
    const file = found && unclosedOf(found);
    if (!file) folder.unclosed.delete(filename);
    else if (folder.unclosed.has(filename)) folder.unclosed.set(filename, file);
    return file;
  }

  /** The file is not what the index says. */
  reopen(entry: Entry): void {
    const { sandboxId, sessionId, segment, filename, size, startedAt } = entry;
    this.#index.delete(filename);
    const file = { filename, sandboxId, sessionId, segment, size, startedAt, modifiedAt: startedAt };
    this.#made(sandboxId).unclosed.set(filename, file);
  }

  /** The file is not on disk any more. */
  lost(entry: Entry): void {
    if (entry.archivedAt === undefined) this.#events.onGone(entry);
    else this.#index.put({ ...entry, onDisk: false });
  }

  /** Reads the names in those folders that have changed since they were read. */
  async look(): Promise<void> {
    const found = new Set<string>();
    for (const { sandboxId, changedAt } of await this.#storage.folders()) {
      found.add(sandboxId);
      const folder = this.#made(sandboxId);
      if (folder.changedAt === changedAt) continue;
      const isRead = await this.#tried(sandboxId);
      folder.changedAt = isRead && this.#now() - changedAt > UNSURE_MS ? changedAt : undefined;
    }
    const onDisk = [...this.#index.sandboxes()].filter((id) => this.#index.of(id).some((entry) => entry.onDisk));
    for (const id of new Set([...onDisk, ...this.#folders.keys()])) {
      if (found.has(id)) continue;
      await this.#tried(id);
      const folder = this.#folders.get(id);
      if (folder && !folder.writing && !folder.closing && folder.unclosed.size === 0) this.#folders.delete(id);
    }
  }

  /** One folder that cannot be read must not keep us from the others. */
  #tried(sandboxId: string): Promise<boolean> {
    return this.read(sandboxId).then(
      () => true,
      (err: unknown) => {
        this.#events.onUnreadable(sandboxId, err);
        return false;
      },
    );
  }

  /** Compares the names in one folder with the index. One reading after the other: what came first must not overrule what came later. */
  read(sandboxId: string): Promise<void> {
    const folder = this.#made(sandboxId);
    const reading = folder.reading.then(() => this.#read(sandboxId, folder));
    folder.reading = reading.catch(() => {}); // the caller has the rejection
    return reading;
  }

  /** The folders, of all sandboxes or of one, with the sizes that their growing files have now. */
  async grown(sandboxId: string | undefined): Promise<[sandboxId: string, folder: Folder][]> {
    const wanted = [...this.#folders].filter(([id]) => sandboxId === undefined || id === sandboxId);
    await Promise.all(wanted.filter(([, folder]) => folder.writing).map(([id, folder]) => this.#grow(id, folder)));
    return wanted;
  }

  /** What the recorder said about the end of a segment. */
  async journalLine(folder: Folder, sessionId: string, segment: number): Promise<JournalLine | undefined> {
    const known = folder.journal?.sessionId === sessionId ? folder.journal.lines.get(segment) : undefined;
    if (known) return known;
    const sandboxId = sandboxOfSession(sessionId) as string;
    const lines = parseJournal((await this.#storage.journal(sandboxId, sessionId)) ?? '');
    folder.journal = { sessionId, lines };
    return lines.get(segment);
  }

  /** Removes the journal of a segment that has gone from the disk, when it was the last of its session there. */
  async removeJournalOf({ sandboxId, sessionId }: SegmentName): Promise<void> {
    const folder = this.#folders.get(sandboxId);
    const isIts = (other: SegmentName): boolean => other.sessionId === sessionId;
    if (folder?.writing?.sessionId === sessionId || [...(folder?.unclosed.values() ?? [])].some(isIts)) return;
    if (this.#index.of(sandboxId).some((entry) => entry.onDisk && isIts(entry))) return;
    await this.#storage.removeJournal(sandboxId, sessionId);
  }

  async #read(sandboxId: string, folder: Folder): Promise<void> {
    const { segments, journals } = await this.#storage.names(sandboxId);
    const here = new Set(segments);
    for (const entry of [...this.#index.of(sandboxId)]) {
      if (entry.onDisk && !here.has(entry.filename)) this.lost(entry);
    }
    for (const filename of folder.unclosed.keys()) if (!here.has(filename)) folder.unclosed.delete(filename);
    for (const filename of segments) {
      if (!this.#index.get(filename)?.onDisk && !folder.unclosed.has(filename)) await this.#found(sandboxId, filename);
    }
    const sessions = new Set(segments.map((filename) => parseSegmentName(filename)?.sessionId));
    for (const sessionId of journals) {
      if (!sessions.has(sessionId) && folder.writing?.sessionId !== sessionId)
        await this.#storage.removeJournal(sandboxId, sessionId);
    }
  }

  /** Looks at a file that the index does not have on disk. */
  async #found(sandboxId: string, filename: string): Promise<void> {
    const file = await this.#storage.find(sandboxId, filename);
    if (!file) return;
    const entry = this.#index.get(filename);
    // Put back by hand, or its removal failed after it was archived.
    if (entry?.size === file.size) this.#index.put({ ...entry, onDisk: true });
    else this.#made(sandboxId).unclosed.set(filename, unclosedOf(file));
  }

  /** Looks at what is being written: with its number known, at one file. */
  async #grow(sandboxId: string, folder: Folder): Promise<void> {
    const { writing } = folder;
    if (!writing) return;
    if (writing.segment === undefined) await this.read(sandboxId);
    const names = [...folder.unclosed.values()].filter((file) => this.isWritten(folder, file)).map((f) => f.filename);
    if (writing.segment !== undefined) names.push(segmentFile(writing.sessionId, writing.segment));
    for (const filename of new Set(names)) {
      const file = await this.#storage.find(sandboxId, filename);
      if (!file) folder.unclosed.delete(filename);
      else if (!this.#index.get(filename)) folder.unclosed.set(filename, unclosedOf(file));
    }
  }

  #made(sandboxId: string): Folder {
    const known = this.#folders.get(sandboxId);
    if (known) return known;
    const made: Folder = {
      writing: undefined,
      sessions: new Set(),
      unclosed: new Map(),
      changedAt: undefined,
      reading: Promise.resolve(),
      closing: undefined,
      again: false,
      journal: undefined,
    };
    this.#folders.set(sandboxId, made);
    return made;
  }
}

function unclosedOf({ filename, size, createdAt, modifiedAt }: StoredFile): Unclosed {
  return { ...(parseSegmentName(filename) as SegmentName), size, startedAt: createdAt, modifiedAt };
}

/** A session of another sandbox is none of its own; a number that is none says nothing. */
function checked(sandboxId: string, { sessionId, segment }: Writing): Writing | undefined {
  if (typeof sessionId !== 'string' || sandboxOfSession(sessionId) !== sandboxId) return undefined;
  return Number.isSafeInteger(segment) && (segment as number) >= 0
    ? { sessionId, segment: segment as number }
    : { sessionId };
}
