import type { Archive, OpenedFile, UploadQueue } from '../core/contracts.ts';
import type { Navigation, Segment, SegmentName } from '../core/recording.ts';
import { Closer, type CloserOptions, ownerOf } from './closer.ts';
import { type Entry, RecordingIndex } from './index.ts';
import { parseNavigations } from './journal.ts';
import { Shelf, type Writing } from './shelf.ts';

/** Why a recording was removed. deleted: somebody asked for it. The others are limits of the service. */
export type RemovalReason = 'age' | 'bytes' | 'tenant_bytes' | 'deleted';

/** A recording that is gone, as it is told to whoever listens. */
export interface Removal {
  readonly sandboxId: string;
  readonly filename: string;
  readonly owner: string | undefined;
  readonly reason: RemovalReason;
}

/** What a {@link Library} works on and whom it tells. */
export interface LibraryOptions extends CloserOptions {
  /** Path of the index; a cache, so it may be deleted while the service is down. */
  readonly indexFile: string;
  readonly archive?: Archive;
  readonly onRemoved: (removal: Removal) => void;
  /** The recording is nowhere any more, however that came: what was made of it can go. */
  readonly onGone: (name: SegmentName) => Promise<void>;
}

/** A file that is not in the index: it is being written, or nobody has looked into it yet. */
export interface Unread extends SegmentName {
  readonly size: number;
  /** Unix milliseconds. */
  readonly startedAt: number;
  readonly owner?: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly isWritten: boolean;
}

/** How often the folders are compared with the index, in milliseconds. */
const SWEEP_EVERY_MS = 10_000;
/** How long a list waits for files to be closed that a recorder has just finished, in milliseconds. */
const CLOSING_MS = 500;
/** How long the end of the service waits for the same, in milliseconds. */
const LAST_CLOSING_MS = 5000;

/**
 * All recordings, on disk and in the archive. Those two are the truth. The library finds out what is there from what the
 * recorders say and from a sweep every ten seconds, and keeps an index so that nobody has to look into folders and files
 * to answer a request. Files that are no longer written are looked into once, and then never again.
 */
export class Library implements UploadQueue {
  readonly #options: LibraryOptions;
  readonly #index: RecordingIndex;
  readonly #shelf: Shelf;
  readonly #closer: Closer;
  readonly #now: () => number;
  /** Closings under way: those of files that a recorder has just finished, and all. */
  readonly #urgent = new Set<Promise<void>>();
  readonly #running = new Set<Promise<void>>();
  readonly #stopping = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  /** The index began empty, and the archive has yet to say what it has. */
  #archiveUnknown = false;
  #asking: Promise<void> | undefined;

  private constructor(options: LibraryOptions, index: RecordingIndex) {
    this.#options = options;
    this.#index = index;
    this.#now = options.now ?? Date.now;
    const onUnreadable = (sandboxId: string, err: unknown): void =>
      options.log.error({ sandboxId, err }, 'could not read a folder of recordings');
    const events = { onGone: (entry: Entry) => void this.#forget(entry, true), onUnreadable };
    this.#shelf = new Shelf(options.storage, index, events, this.#now);
    this.#closer = new Closer(options, index, this.#shelf);
  }

  /** Reads the index. {@link start} compares it with what is there. Rejects when the index's file can be neither read nor made. */
  static async open(options: LibraryOptions): Promise<Library> {
    const onError = (err: unknown): void => options.log.error({ err }, 'could not write the index of recordings');
    return new Library(options, await RecordingIndex.open(options.indexFile, onError));
  }

  /**
   * Reads the names in all folders and then keeps looking. Call it when {@link saw} was told of all live sandboxes, so that
   * nothing is taken for finished that is being written. Where the index knows nothing, the archive is asked what it has.
   */
  async start(): Promise<void> {
    this.#archiveUnknown = this.#index.size === 0 && this.#options.archive !== undefined;
    await this.#shelf.look();
    // First: the archive spares us the look into files that it has.
    this.#track(this.#askArchive().then(() => this.#closeAll()));
    this.#sweepLater();
  }

  /** Hears what a sandbox's recorder is writing now, if anything. It comes from inside the sandbox and may be anything. */
  saw(sandboxId: string, recorder: Writing | undefined): void {
    if (!this.#shelf.saw(sandboxId, recorder)) return;
    const closing = this.#track(this.#shelf.read(sandboxId).then(() => this.#closer.closeFiles(sandboxId)));
    this.#urgent.add(closing);
    void closing.finally(() => this.#urgent.delete(closing));
  }

  /** Closed segments, newest first, and live: copy it before you wait. Of one sandbox when an id is given. */
  closed(sandboxId?: string): readonly Entry[] {
    return sandboxId === undefined ? this.#index.all : this.#index.of(sandboxId);
  }

  find(filename: string): Entry | undefined {
    return this.#index.get(filename);
  }

  /** Files that are being written, with their sizes now, and those that wait to be looked into; in no particular order. */
  async unread(sandboxId?: string): Promise<Unread[]> {
    await this.#justFinished(CLOSING_MS);
    const folders = await this.#shelf.grown(sandboxId);
    return folders.flatMap(([id, folder]) =>
      [...folder.unclosed.values()].map((file) => ({
        ...file,
        ...ownerOf(folder, file, this.#options.about(id)),
        isWritten: this.#shelf.isWritten(folder, file),
      })),
    );
  }

  /** Whose a file is and whether it is written, without a look at it. Undefined when nothing is known of it. */
  unreadOwner(name: SegmentName): string | undefined {
    const folder = this.#shelf.folder(name.sandboxId);
    const file = folder?.unclosed.get(name.filename);
    const about = this.#options.about(name.sandboxId);
    return folder && file ? ownerOf(folder, file, about).owner : about?.owner;
  }

  /** Where the tabs went during a session, as long as one of its files is on disk. */
  async navigations(sandboxId: string, sessionId: string): Promise<Navigation[]> {
    return parseNavigations((await this.#options.storage.journal(sandboxId, sessionId)) ?? '');
  }

  /** Whether the file is being written now. */
  isWritten(name: SegmentName): boolean {
    const folder = this.#shelf.folder(name.sandboxId);
    return folder !== undefined && this.#shelf.isWritten(folder, name);
  }

  /** From the disk, else from the archive. Undefined when it is in neither, and then it is forgotten. Rejects when the archive cannot be asked. */
  async open(name: SegmentName): Promise<OpenedFile | undefined> {
    const { archive } = this.#options;
    const file = await this.openLocal(name);
    if (file) return file;
    const archived = this.#index.get(name.filename);
    if (!archived || !archive) return undefined;
    const found = await archive.open(name);
    if (!found) this.#forget(archived, false);
    return found;
  }

  /**
   * Removes it everywhere, says so, and resolves with false when it was nowhere. Rejects when the archive has it and cannot
   * be asked; nothing is removed then. Readers that have it open keep it.
   */
  async remove(name: SegmentName, reason: RemovalReason): Promise<boolean> {
    const { storage, archive, log, onRemoved, onChange } = this.#options;
    const { sandboxId, filename } = name;
    const entry = this.#index.get(filename);
    // Where no archive is set any more, its copies cannot be removed, and forgetting them would hide that.
    if (entry && !entry.onDisk && !archive) return false;
    const owner = entry ? entry.owner : this.unreadOwner(name);
    const inArchive = entry?.archivedAt !== undefined && archive ? await archive.remove(name) : undefined;
    const onDisk = await storage.remove(sandboxId, filename);
    this.#shelf.closed(name);
    // It may be on its way up.
    await this.#forget(name, inArchive === undefined && (entry !== undefined || onDisk));
    if (!inArchive && !onDisk) return false;
    await this.#shelf.removeJournalOf(name);
    log.info({ sandboxId, filename, reason }, 'recording removed');
    onRemoved({ sandboxId, filename, owner, reason });
    onChange?.();
    return true;
  }

  pending(): readonly Segment[] {
    return this.#index.all.filter((entry) => entry.onDisk && entry.archivedAt === undefined).reverse();
  }

  /** Also finds out when the disk has not what the index says: then the file is looked into again, or forgotten. */
  async openLocal({ sandboxId, filename }: SegmentName): Promise<OpenedFile | undefined> {
    const file = await this.#options.storage.open(sandboxId, filename);
    const entry = this.#index.get(filename);
    if (file && entry && entry.size !== file.size) this.#shelf.reopen(entry);
    if (!file && entry?.onDisk) this.#shelf.lost(entry);
    return file;
  }

  async archived({ filename }: SegmentName): Promise<boolean> {
    const entry = this.#index.get(filename);
    // One that was put back goes up anew when the copy of the deleted one is gone.
    if (!entry || this.#index.unwanted.has(filename)) return false;
    this.#index.put({ ...entry, archivedAt: this.#now() });
    return true;
  }

  unwanted(): readonly SegmentName[] {
    return [...this.#index.unwanted.values()];
  }

  cleared(name: SegmentName): void {
    this.#index.deleteUnwanted(name);
  }

  evictable(graceMs: number): readonly Segment[] {
    const until = this.#now() - graceMs;
    return this.#index.all.filter(
      (entry) => entry.onDisk && entry.archivedAt !== undefined && entry.archivedAt <= until,
    );
  }

  async evict(segment: SegmentName): Promise<void> {
    const entry = this.#index.get(segment.filename);
    if (entry?.archivedAt === undefined) return;
    // Told before it is so: whoever asks meanwhile gets it from the archive.
    this.#index.put({ ...entry, onDisk: false });
    try {
      await this.#options.storage.remove(segment.sandboxId, segment.filename);
    } catch (err) {
      // A failure does not change the folder, so no sweep would find out that the file is still there.
      const still = this.#index.get(segment.filename);
      if (still) this.#index.put({ ...still, onDisk: true });
      throw err;
    }
    await this.#shelf.removeJournalOf(segment);
  }

  /** Looks for files that came and went unsaid. Resolves when folders are read; {@link settled} also waits for the files. */
  async sweep(): Promise<void> {
    await this.#shelf.look();
    await this.#askArchive();
    this.#closeAll();
  }

  /** Looks into one sandbox's folder now. */
  reread(sandboxId: string): Promise<void> {
    return this.#shelf.read(sandboxId);
  }

  /** Resolves when no file is being looked into. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  /** Stops looking. Files that recorders have just finished are still closed; others that wait are left to the next start. */
  async close(): Promise<void> {
    // By the next start nobody may remember whose they are.
    await this.#justFinished(LAST_CLOSING_MS);
    this.#stopping.abort();
    this.#closer.stop();
    clearTimeout(this.#timer);
    await this.settled();
    await this.#index.close();
  }

  #sweepLater(): void {
    if (this.#stopping.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#track(this.sweep()).finally(() => this.#sweepLater());
    }, SWEEP_EVERY_MS);
    this.#timer.unref();
  }

  /** Until it has answered once. Who asks meanwhile shares the answer. */
  #askArchive(): Promise<void> {
    if (!this.#archiveUnknown) return Promise.resolve();
    this.#asking ??= this.#refresh()
      .then(() => {
        this.#archiveUnknown = false;
      })
      .catch((err: unknown) => {
        const what = 'the archive cannot be asked for its recordings: those that only it has are not listed';
        if (!this.#stopping.signal.aborted) this.#options.log.error({ err }, what);
      })
      .finally(() => {
        this.#asking = undefined;
      });
    return this.#asking;
  }

  /** Takes over what the archive has and the index has not. Rejects when it cannot be asked. */
  async #refresh(): Promise<void> {
    const { archive } = this.#options;
    if (!archive) return;
    for await (const segment of archive.list(this.#stopping.signal)) {
      if (this.#index.unwanted.has(segment.filename)) continue;
      const known = this.#index.get(segment.filename);
      const onDisk = this.#shelf.unclosed(segment);
      if (known ? known.size !== segment.size : onDisk && onDisk.size !== segment.size) continue;
      if (known?.archivedAt !== undefined) continue;
      if (!known) this.#shelf.closed(segment);
      this.#index.put({ ...(known ?? { ...segment, onDisk: onDisk !== undefined }), archivedAt: this.#now() });
    }
  }

  /** Waits, but not longer, for files to be closed that a recorder has just finished. */
  async #justFinished(atMostMs: number): Promise<void> {
    if (this.#urgent.size === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const enough = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, atMostMs);
    });
    await Promise.race([Promise.all(this.#urgent), enough]);
    clearTimeout(timer);
  }

  #closeAll(): void {
    for (const [sandboxId, folder] of this.#shelf.folders) {
      if (folder.unclosed.size > 0) this.#track(this.#closer.closeFiles(sandboxId));
    }
  }

  /** `mayBeArchived`: nobody knows whether the archive has something of it, which then has to go, too. */
  async #forget(name: SegmentName, mayBeArchived: boolean): Promise<void> {
    const { filename, sandboxId, sessionId, segment } = name;
    // First: a service that dies between the two still knows what it has to remove.
    if (mayBeArchived && this.#options.archive) this.#index.addUnwanted({ filename, sandboxId, sessionId, segment });
    this.#index.delete(filename);
    await this.#options
      .onGone(name)
      .catch((err: unknown) =>
        this.#options.log.error({ ...name, err }, 'could not remove what was made of a recording'),
      );
  }

  #track(work: Promise<void>): Promise<void> {
    const tracked = work
      .catch((err: unknown) => this.#options.log.error({ err }, 'could not look for recordings'))
      .finally(() => this.#running.delete(tracked));
    this.#running.add(tracked);
    return tracked;
  }
}
