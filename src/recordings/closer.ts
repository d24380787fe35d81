import type { Log, OpenedFile, Storage } from '../core/contracts.ts';
import type { MediaFacts, Segment } from '../core/recording.ts';
import type { Entry, RecordingIndex } from './index.ts';
import type { Folder, Shelf, Unclosed } from './shelf.ts';
import { Turns } from './turns.ts';

/** What the library knows of a sandbox that lives or is remembered. */
export interface About {
  readonly owner: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** Unix milliseconds. */
  readonly createdAt: number;
}

/** What a {@link Closer} works on and whom it tells. */
export interface CloserOptions {
  readonly storage: Storage;
  /** Reads a whole segment. Rejects when it cannot be read, not when it makes no sense. */
  readonly scan: (file: OpenedFile) => Promise<MediaFacts>;
  readonly about: (sandboxId: string) => About | undefined;
  /** A file was looked into, and will not change any more. */
  readonly onClosed?: (segment: Segment) => void;
  /** Segments were closed or deleted: whoever works on the queue of uploads has something to look at. */
  readonly onChange?: () => void;
  readonly log: Log;
  /** Unix milliseconds; the machine's clock by default. */
  readonly now?: () => number;
}

/** Scans at once: each reads a file as fast as the disk gives it. */
const SCANS = 2;
/** Who copies a file into a folder by hand is taken to be done when it was not written to for this long, in milliseconds. */
const SETTLED_MS = 10_000;

/** Looks into the files that are no longer written, once each, and puts them into the index. */
export class Closer {
  readonly #options: CloserOptions;
  readonly #index: RecordingIndex;
  readonly #shelf: Shelf;
  readonly #now: () => number;
  readonly #scans = new Turns(SCANS);
  #stopped = false;

  constructor(options: CloserOptions, index: RecordingIndex, shelf: Shelf) {
    this.#options = options;
    this.#index = index;
    this.#shelf = shelf;
    this.#now = options.now ?? Date.now;
  }

  /** Looks into nothing more. What is being looked into is still closed. */
  stop(): void {
    this.#stopped = true;
  }

  /** Looks into the files of a sandbox that are no longer written, one after the other. What fails is told, and tried again by the next call. */
  closeFiles(sandboxId: string): Promise<void> {
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
        if (this.#stopped) return;
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
    if (this.#stopped) return;
    try {
      const opened = await storage.open(sandboxId, filename);
      if (!opened) return this.#shelf.closed(file);
      const facts = await scan(opened).finally(() => opened.close());
      const line = await this.#shelf.journalLine(folder, sessionId, segment);
      // It was deleted meanwhile, or is written after all.
      if (!folder.unclosed.has(filename) || this.#shelf.isWritten(folder, file)) return;
      const { reason = 'interrupted', dropped = null } = line ?? {};
      const name = { filename, sandboxId, sessionId, segment };
      const whose = ownerOf(folder, file, about(sandboxId));
      this.#shelf.closed(file);
      const closed = { ...name, ...facts, size: opened.size, startedAt, ...whose, reason, dropped };
      this.#index.put({ ...closed, onDisk: true });
      this.#options.onClosed?.(closed);
      this.#options.onChange?.();
    } catch (err) {
      log.error({ sandboxId, filename, err }, 'could not look into a recording');
    }
  }
}

/** Whose a file is. An id may be taken again when its sandbox is forgotten: then its older files are not the new owner's. */
export function ownerOf(folder: Folder, file: Unclosed, about: About | undefined): Pick<Entry, 'owner' | 'metadata'> {
  const isIts = about && (folder.sessions.has(file.sessionId) || file.startedAt >= about.createdAt);
  return isIts ? { owner: about.owner, metadata: about.metadata } : { metadata: {} };
}
