import type { Readable } from 'node:stream';
import type { Log, OpenedFile } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import { isoTime, parseSegmentName, type SegmentName, sandboxOfSession } from '../core/recording.ts';
import { SANDBOX_ID } from '../core/sandbox.ts';
import type { About } from './closer.ts';
import type { ExportedMkv, ExportSegment } from './export.ts';
import { info, isClosed, isPlayable, type Recording, type RecordingInfo, statusOf } from './info.ts';
import type { Library } from './library.ts';
import { newestFirst } from './order.ts';
import type { Posters } from './posters.ts';
import { type SessionInfo, sessionsOf } from './sessions.ts';
import { type TimelineSession, timeline } from './timeline.ts';

/** One page of a list. `total` counts all pages' recordings; pages begin with 1. */
export interface RecordingPage {
  readonly recordings: RecordingInfo[];
  readonly total: number;
  readonly page: number;
  readonly pageSize: number;
}

/** One page of sessions, as {@link RecordingPage}. */
export interface SessionPage extends Omit<RecordingPage, 'recordings'> {
  readonly sessions: SessionInfo[];
}

/** A session and where the browser's tabs went while it was recorded: without query and fragment, at an ISO 8601 time each. */
export interface RecordedSession extends TimelineSession {
  readonly navigations: { readonly at: string; readonly url: string }[];
}

/** Whether the caller may know of what this tenant owns, or of what nobody does. What is not visible looks exactly like what does not exist. */
export type Visible = (owner: string | undefined) => boolean;

/** What a call is about: the recordings that the caller may see, of all sandboxes or of one. */
export interface Scope {
  readonly visible?: Visible;
  readonly sandboxId?: string;
}

/** What a list is to have; what is absent does not matter. Pages begin with 1. */
export interface ListQuery extends Scope {
  readonly page: number;
  readonly pageSize: number;
  /** Unix milliseconds: those that began at this time or later. */
  readonly since?: number;
  /** Unix milliseconds: those that began before this time. */
  readonly until?: number;
  readonly status?: RecordingInfo['status'];
  /** Keys of the metadata and the values that they must have. */
  readonly metadata?: readonly (readonly [key: string, value: string])[];
}

/** A recording opened for download. */
export interface OpenedRecording extends OpenedFile {
  /** It is closed: its bytes are what they will always be. */
  readonly isFinal: boolean;
}

/** A session as one file. */
export interface Export {
  /** Ends with an error when a segment cannot be read; destroying it lets go of everything. */
  readonly stream: Readable;
  /** Bytes, where they are known beforehand. */
  readonly length?: number | undefined;
  /** Bytes of the segments that it is made of. */
  readonly estimatedLength: number;
}

/** Puts segments together to one MKV file, in their order; facts are those of closed ones. */
export type ExportMkv = (segments: readonly ExportSegment[]) => Promise<ExportedMkv>;

/** What {@link Recordings} works on. */
export interface RecordingsDeps {
  readonly library: Library;
  readonly posters: Posters;
  readonly about: (sandboxId: string) => About | undefined;
  /** Ends the segment that is being written and begins the next one. Rejects when it cannot, within a bounded time. */
  readonly cut: (sandboxId: string) => Promise<void>;
  readonly exportMkv: ExportMkv;
  /** Destroyed, it destroys the MKV. */
  readonly toMp4: (mkv: Readable, options: { readonly durationMs?: number | undefined }) => Readable;
  /** How long a file is kept after its end, in milliseconds; 0 or absent: for ever. */
  readonly keptMs?: number;
  /** Where a file that only the archive has may be fetched; absent when they all go through us. */
  readonly link?: (name: SegmentName) => Promise<string>;
  readonly log: Log;
}

const everything: Visible = () => true;

/** The recordings as the API speaks of them: who may see what, in the BrowserTool's words and ours. */
export class Recordings {
  readonly #deps: RecordingsDeps;

  constructor(deps: RecordingsDeps) {
    this.#deps = deps;
  }

  /** One page, newest first; a page past the end is empty. Throws SANDBOX_NOT_FOUND for an id that is malformed or not visible. */
  async list(query: ListQuery): Promise<RecordingPage> {
    const { page, pageSize, sandboxId } = query;
    this.#assertSandbox(query);
    const wanted = filterOf(query);
    const unread = await this.#deps.library.unread(sandboxId);
    const few = wanted ? unread.filter(wanted) : unread;
    const all = this.#deps.library.closed(sandboxId);
    const many = wanted ? all.filter(wanted) : all;
    const total = few.length + many.length;
    const first = Math.min((page - 1) * pageSize, total);
    return {
      recordings: merged(few, many, first, first + pageSize).map(info),
      total,
      page,
      pageSize,
    };
  }

  /** One page of sessions, newest first; a session counts by its files that the filters leave. Throws as {@link list}. */
  async sessions(query: ListQuery): Promise<SessionPage> {
    const { page, pageSize, sandboxId } = query;
    this.#assertSandbox(query);
    const wanted = filterOf(query);
    const all = [...(await this.#deps.library.unread(sandboxId)), ...this.#deps.library.closed(sandboxId)];
    const sessions = sessionsOf(wanted ? all.filter(wanted) : all, this.#deps.keptMs ?? 0);
    const first = (page - 1) * pageSize;
    return { sessions: sessions.slice(first, first + pageSize), total: sessions.length, page, pageSize };
  }

  /** All sessions of a sandbox, the first one first. Throws as {@link list}. */
  async timeline(sandboxId: string, visible: Visible = everything): Promise<RecordedSession[]> {
    const sessions = timeline(await this.#of({ sandboxId, visible }));
    return Promise.all(
      sessions.map(async (session) => {
        const navigations = await this.#deps.library.navigations(sandboxId, session.sessionId);
        return { ...session, navigations: navigations.map(({ at, url }) => ({ at: isoTime(at), url })) };
      }),
    );
  }

  /** Throws INVALID_FILENAME or RECORDING_NOT_FOUND. The caller streams the file or closes it. */
  async open(filename: string, scope: Scope = {}): Promise<OpenedRecording> {
    const { library } = this.#deps;
    const file = await library.open(this.#checked(filename, scope));
    if (!file) throw notFound(filename);
    return { ...file, isFinal: library.find(filename)?.size === file.size };
  }

  /** Where else it may be fetched from; undefined when it is to be fetched from us. Throws INVALID_FILENAME, RECORDING_NOT_FOUND. */
  async linkTo(filename: string, scope: Scope = {}): Promise<string | undefined> {
    const name = this.#checked(filename, scope);
    const { library, link } = this.#deps;
    return link && library.find(filename)?.onDisk === false ? link(name) : undefined;
  }

  /**
   * Throws INVALID_FILENAME or RECORDING_NOT_FOUND. Readers that have the file open keep it. One that is being written is
   * ended first; where that fails, what the recorder still writes into it is lost, and its next segment is whole.
   */
  async remove(filename: string, scope: Scope = {}): Promise<void> {
    const { library, cut, log } = this.#deps;
    const name = this.#checked(filename, scope);
    const { sandboxId } = name;
    if (library.isWritten(name))
      await cut(sandboxId).catch((err: unknown) =>
        log.warn({ sandboxId, filename, err }, 'deleted while it is written'),
      );
    if (!(await library.remove(name, 'deleted'))) throw notFound(filename);
  }

  /** Removes all of a sandbox that has ended. Throws SANDBOX_NOT_FOUND. */
  async removeAll(sandboxId: string, visible: Visible = everything): Promise<void> {
    // Its end may not have been heard yet.
    await this.#deps.library.reread(sandboxId);
    for (const name of await this.#of({ sandboxId, visible })) await this.#deps.library.remove(name, 'deleted');
  }

  /** A JPEG. Throws INVALID_FILENAME, STORAGE_UNAVAILABLE, and RECORDING_NOT_FOUND also for one of which there is none (yet). */
  async poster(filename: string, scope: Scope = {}): Promise<Buffer> {
    const { library, posters, log } = this.#deps;
    const name = this.#checked(filename, scope);
    const entry = library.find(filename);
    if (!entry || !isPlayable(entry)) throw noPoster(filename);
    const picture = await posters
      .of(name, () => library.open(name))
      .catch((err: unknown) => {
        // The recording plays, and may have a picture when the archive is back.
        if (err instanceof AppError && err.errorName === 'STORAGE_UNAVAILABLE') throw err;
        log.warn({ sandboxId: name.sandboxId, filename, err }, 'could not make a poster');
      });
    // Deleted meanwhile: the picture would lie about for ever.
    if (!library.find(filename)) await posters.remove(name);
    if (!picture) throw noPoster(filename);
    return picture;
  }

  /**
   * A session as one file: what there is to play, in order, as far as it is written. Throws INVALID_FILENAME for what is not
   * the name of a session, RECORDING_NOT_FOUND.
   */
  async export(sessionId: string, format: 'mkv' | 'mp4', scope: Scope = {}): Promise<Export> {
    const { library, exportMkv, toMp4 } = this.#deps;
    const sandboxId = sandboxOfSession(sessionId);
    if (sandboxId === undefined) throw invalidName('Sessions are named vnc_<sandboxId>_<YYYYMMDD>_<HHMMSS>.');
    if (scope.sandboxId !== undefined && scope.sandboxId !== sandboxId) throw notFound(sessionId);
    const all = await this.#files(sandboxId, scope.visible ?? everything);
    const files = all
      .filter((file) => file.sessionId === sessionId && (!isClosed(file) || isPlayable(file)))
      .sort((a, b) => a.segment - b.segment);
    if (files.length === 0) throw notFound(sessionId);
    const estimatedLength = files.reduce((sum, { size }) => sum + size, 0);
    const parts = files.map((file) => ({
      facts: isClosed(file) ? file : undefined,
      open: () => library.open(file),
    }));
    const mkv = await exportMkv(parts);
    if (format === 'mkv') return { ...mkv, estimatedLength };
    return { stream: toMp4(mkv.stream, { durationMs: mkv.durationMs }), estimatedLength };
  }

  /** All that the caller may see of one sandbox, in no particular order. Throws SANDBOX_NOT_FOUND. */
  async #of(scope: Scope & { readonly sandboxId: string }): Promise<Recording[]> {
    this.#assertSandbox(scope);
    return this.#files(scope.sandboxId, scope.visible ?? everything);
  }

  async #files(sandboxId: string, visible: Visible): Promise<Recording[]> {
    const { library } = this.#deps;
    const unread = await library.unread(sandboxId);
    return [...unread, ...library.closed(sandboxId)].filter(({ owner }) => visible(owner));
  }

  /** A sandbox exists for whoever may see it or anything that it has left. */
  #assertSandbox({ sandboxId, visible = everything }: Scope): void {
    if (sandboxId === undefined) return;
    const { library, about } = this.#deps;
    const isThere =
      SANDBOX_ID.test(sandboxId) &&
      (visible(about(sandboxId)?.owner) || library.closed(sandboxId).some(({ owner }) => visible(owner)));
    if (!isThere) throw new AppError('SANDBOX_NOT_FOUND', 'There is no such sandbox.');
  }

  #checked(filename: string, { visible = everything, sandboxId }: Scope): SegmentName {
    const { library } = this.#deps;
    const name = parseSegmentName(filename);
    if (!name) throw invalidName('Recordings are named vnc_<sandboxId>_<YYYYMMDD>_<HHMMSS>_seg<NNN>.mkv.');
    const entry = library.find(filename);
    const owner = entry ? entry.owner : library.unreadOwner(name);
    if ((sandboxId !== undefined && sandboxId !== name.sandboxId) || !visible(owner)) throw notFound(filename);
    return name;
  }
}

/** Undefined when everything is wanted: what is not asked costs nothing for each of very many. */
function filterOf({ visible, since, until, status, metadata = [] }: ListQuery) {
  const tests: ((recording: Recording) => boolean)[] = [];
  if (visible) tests.push(({ owner }) => visible(owner));
  if (since !== undefined) tests.push(({ startedAt }) => startedAt >= since);
  if (until !== undefined) tests.push(({ startedAt }) => startedAt < until);
  if (status !== undefined) tests.push((recording) => statusOf(recording) === status);
  // Nothing that an object inherits is a text.
  for (const [key, value] of metadata) tests.push((recording) => recording.metadata[key] === value);
  return tests.length === 0 ? undefined : (recording: Recording) => tests.every((test) => test(recording));
}

/** The places from `first` up to `end` of both lists together. The first list is the short one. */
function merged(few: readonly Recording[], many: readonly Recording[], first: number, end: number): Recording[] {
  // What stands before this in the long list stands before the page too, wherever those of the short one are.
  const from = Math.max(0, first - few.length);
  const near = [...few, ...many.slice(from, end)].sort(newestFirst);
  return near.slice(first - from, end - from);
}

function invalidName(sentence: string): AppError {
  return new AppError('INVALID_FILENAME', sentence);
}

function notFound(name: string): AppError {
  return new AppError('RECORDING_NOT_FOUND', `There is no recording ${name}.`);
}

function noPoster(filename: string): AppError {
  return new AppError('RECORDING_NOT_FOUND', `There is no picture of ${filename}.`);
}
