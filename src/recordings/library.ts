import type { Archive, Log, OpenedFile, Storage, UploadQueue } from '../core/contracts.ts';
import type { MediaFacts, Segment, SegmentName } from '../core/recording.ts';
import { type Entry, RecordingIndex } from './index.ts';
import { type Folder, Shelf, type Unclosed, type Writing } from './shelf.ts';
import { Turns } from './turns.ts';

/** Why a recording was removed. deleted: somebody asked for it. The others are limits of the service. */
export type RemovalReason = 'age' | 'bytes' | 'tenant_bytes' | 'deleted';

/** What the library knows of a sandbox that lives or is remembered. */
export interface About {
  readonly owner: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** Unix milliseconds. */
  readonly createdAt: number;
}

/** A recording that is gone, as it is told to whoever listens. */
export interface Removal {
  readonly sandboxId: string;
  readonly filename: string;
  readonly owner: string | undefined;
  readonly reason: RemovalReason;
}

/** What a {@link Library} works on and whom it tells. */
export interface LibraryOptions {
  readonly storage: Storage;
  /** Path of the index; a cache, so it may be deleted while the service is down. */
  readonly indexFile: string;
  readonly archive?: Archive;
  /** Reads a whole segment. Rejects when it cannot be read, not when it makes no sense. */
  readonly scan: (file: OpenedFile) => Promise<MediaFacts>;
  readonly about: (sandboxId: string) => About | undefined;
  /** A file was looked into, and will not change any more. */
  readonly onClosed?: (segment: Segment) => void;
  readonly onRemoved: (removal: Removal) => void;
  /** Segments were closed or deleted: whoever works on the queue of uploads has something to look at. */
  readonly onChange?: () => void;
  /** The recording is nowhere any more, however that came: what was made of it can go. */
  readonly onGone: (name: SegmentName) => Promise<void>;
  readonly log: Log;
  /** Unix milliseconds; the machine's clock by default. */
  readonly now?: () => number;
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
/** Scans at once: each reads a file as fast as the disk gives it. */
const SCANS = 2;
/** How long a list waits for files to be closed that a recorder has just finished, in milliseconds. */
const CLOSING_MS = 500;
/** How long the end of the service waits for the same, in milliseconds. */
const LAST_CLOSING_MS = 5000;
/** Who copies a file into a folder by hand is taken to be done when it was not written to for this long, in milliseconds. */
const SETTLED_MS = 10_000;

/**
 * All recordings, on disk and in the archive. Those two are the truth. The library finds out what is there from what the
 * recorders say and from a sweep every ten seconds, and keeps an index so that nobody has to look into folders and files
 * to answer a request. Files that are no longer written are looked into once, and then never again.
 */
export class Library implements UploadQueue {
  readonly #options: LibraryOptions;
  readonly #index: RecordingIndex;
  readonly #shelf: Shelf;
  readonly #now: () => number;
  readonly #scans = new Turns(SCANS);
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

  /** Takes over what the archive has and the index has not. Rejects when it cannot be asked. */
  async refresh(): Promise<void> {
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

  /** Hears what a sandbox's recorder is writing now, if anything. It comes from inside the sandbox and may be anything. */
  saw(sandboxId: string, recorder: Writing | undefined): void {
    if (!this.#shelf.saw(sandboxId, recorder)) return;
    const closing = this.#track(this.#shelf.read(sandboxId).then(() => this.#close(sandboxId)));
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
        ...this.#ownerOf(folder, file, this.#options.about(id)),
        isWritten: this.#shelf.isWritten(folder, file),
      })),
    );
  }

  /** Whose a file is and whether it is written, without a look at it. Undefined when nothing is known of it. */
  unreadOwner(name: SegmentName): string | undefined {
    const folder = this.#shelf.folder(name.sandboxId);
    const file = folder?.unclosed.get(name.filename);
    const about = this.#options.about(name.sandboxId);
    return folder && file ? this.#ownerOf(folder, file, about).owner : about?.owner;
  }

  /** Whether the file is being written now. */
  isWritten(name: SegmentName): boolean {
    const folder = this.#shelf.folder(name.sandboxId);
    return folder !== undefined && this.#shelf.isWritten(folder, name);
  }

  /** From the disk, else from the archive. Undefined when it is in neither, and then it is forgotten. Rejects when the archive cannot be asked. */
  async open(name: SegmentName): Promise<OpenedFile | undefined> {
    const { storage, archive } = this.#options;
    const file = await storage.open(name.sandboxId, name.filename);
    const entry = this.#index.get(name.filename);
    if (file) {
      if (entry && entry.size !== file.size) this.#shelf.reopen(entry);
      return file;
    }
    if (entry?.onDisk) this.#shelf.lost(entry);
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

  async openLocal(segment: SegmentName): Promise<OpenedFile | undefined> {
    const file = await this.#options.storage.open(segment.sandboxId, segment.filename);
    const entry = this.#index.get(segment.filename);
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
    this.#asking ??= this.refresh()
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
      if (folder.unclosed.size > 0) this.#track(this.#close(sandboxId));
    }
  }

  /** Looks into the files of a sandbox that are no longer written, one after the other. What fails is tried again at the next sweep. */
  #close(sandboxId: string): Promise<void> {
    const folder = this.#shelf.folder(sandboxId);
    if (!folder) return Promise.resolve();
    folder.again = true;
    folder.closing ??= this.#closeEach(folder).finally(() => {
      folder.closing = undefined;
      // Up to a MiB of text, and of no use to a sandbox that has ended.
      folder.journal = undefined;
    });
    return folder.closing;
  }

  async #closeEach(folder: Folder): Promise<void> {
    while (folder.again) {
      folder.again = false;
      for (const file of [...folder.unclosed.values()]) {
        if (this.#stopping.signal.aborted) return;
        if (await this.#isSettled(folder, file)) await this.#scans.run(() => this.#closeOne(folder, file));
      }
    }
  }

  /** What no recorder has told us about may be a file that somebody is still copying. */
  async #isSettled(folder: Folder, file: Unclosed): Promise<boolean> {
    if (this.#shelf.isWritten(folder, file)) return false;
    if (folder.sessions.has(file.sessionId)) return true;
    const { modifiedAt = 0 } = (await this.#shelf.refreshed(folder, file)) ?? {};
    const ageMs = this.#now() - modifiedAt;
    // One whose time lies ahead is from before the clock was set back.
    return ageMs >= SETTLED_MS || ageMs < 0;
  }

  async #closeOne(folder: Folder, file: Unclosed): Promise<void> {
    const { storage, scan, about, log } = this.#options;
    const { filename, sandboxId, sessionId, segment, startedAt } = file;
    if (this.#stopping.signal.aborted) return;
    try {
      const opened = await storage.open(sandboxId, filename);
      if (!opened) return this.#shelf.closed(file);
      const facts = await scan(opened).finally(() => opened.close());
      const line = await this.#shelf.journalLine(folder, sessionId, segment);
      // It was deleted meanwhile, or is written after all.
      if (!folder.unclosed.has(filename) || this.#shelf.isWritten(folder, file)) return;
      const { reason = 'interrupted', dropped = null } = line ?? {};
      const name = { filename, sandboxId, sessionId, segment };
      const whose = this.#ownerOf(folder, file, about(sandboxId));
      this.#shelf.closed(file);
      const closed = { ...name, ...facts, size: opened.size, startedAt, ...whose, reason, dropped };
      this.#index.put({ ...closed, onDisk: true });
      this.#options.onClosed?.(closed);
      this.#options.onChange?.();
    } catch (err) {
      log.error({ sandboxId, filename, err }, 'could not look into a recording');
    }
  }

  /** An id may be taken again when its sandbox is forgotten: then its older files are not the new owner's. */
  #ownerOf(folder: Folder, file: Unclosed, about: About | undefined): Pick<Entry, 'owner' | 'metadata'> {
    const isIts = about && (folder.sessions.has(file.sessionId) || file.startedAt >= about.createdAt);
    return isIts ? { owner: about.owner, metadata: about.metadata } : { metadata: {} };
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
