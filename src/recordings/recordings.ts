import type { OpenedFile, Storage, StoredFile } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import { isoTime, parseSegmentName, type SegmentName } from '../core/recording.ts';
import { SANDBOX_ID } from '../core/sandbox.ts';

/** One recording as the BrowserTool describes it, field by field. */
export interface RecordingInfo {
  readonly filename: string;
  readonly sessionId: string;
  readonly segment: number;
  readonly size: number;
  /** ISO 8601. */
  readonly createdAt: string;
  readonly format: 'mkv';
  readonly downloadUrl: string;
  readonly recordingType: 'vnc';
  readonly status: 'recording' | 'completed';
}

export interface RecordingPage {
  readonly recordings: RecordingInfo[];
  readonly total: number;
  readonly page: number;
  readonly pageSize: number;
}

/** Whether the caller may know of this sandbox. What is not visible looks exactly like what does not exist. */
export type Visible = (sandboxId: string) => boolean;

export interface RecordingsDeps {
  readonly storage: Storage;
  /** The session that is being recorded right now in this sandbox. */
  readonly activeSession: (sandboxId: string) => string | undefined;
}

export interface ListQuery {
  readonly page: number;
  readonly pageSize: number;
  readonly sandboxId?: string;
  readonly visible?: Visible;
}

const everything: Visible = () => true;

/** The recordings of all sandboxes: what lies in storage, told in the BrowserTool's words. Holds no state of its own. */
export class Recordings {
  readonly #storage: Storage;
  readonly #activeSession: (sandboxId: string) => string | undefined;

  constructor(deps: RecordingsDeps) {
    this.#storage = deps.storage;
    this.#activeSession = deps.activeSession;
  }

  /**
   * One page, newest first; a page past the end is empty. Throws SANDBOX_NOT_FOUND for an id that is malformed or not
   * visible. Limit: in the time between the deletion of a segment that is being written and the start of the next
   * one, the segment before it counts as "recording".
   */
  async list({ page, pageSize, sandboxId, visible = everything }: ListQuery): Promise<RecordingPage> {
    if (sandboxId !== undefined && !(SANDBOX_ID.test(sandboxId) && visible(sandboxId))) {
      throw new AppError('SANDBOX_NOT_FOUND', 'There is no such sandbox.');
    }
    const segments = (await this.#storage.list(sandboxId))
      .map((file) => ({ file, name: parseSegmentName(file.filename) }))
      .filter((segment): segment is Segment => segment.name !== undefined && visible(segment.name.sandboxId))
      .sort(newestFirst);
    const growing = this.#growing(segments);
    const first = (page - 1) * pageSize;
    return {
      recordings: segments.slice(first, first + pageSize).map((segment) => info(segment, growing)),
      total: segments.length,
      page,
      pageSize,
    };
  }

  /** Throws INVALID_FILENAME or RECORDING_NOT_FOUND. The caller streams the file or closes it. */
  async open(filename: string, visible: Visible = everything): Promise<OpenedFile> {
    const { sandboxId } = checked(filename, visible);
    const file = await this.#storage.open(sandboxId, filename);
    if (!file) throw notFound(filename);
    return file;
  }

  /**
   * Throws INVALID_FILENAME or RECORDING_NOT_FOUND. Readers that have the file open keep it, and so does ffmpeg while
   * it writes it: the rest of that segment is lost and the next one is whole.
   */
  async remove(filename: string, visible: Visible = everything): Promise<void> {
    const { sandboxId } = checked(filename, visible);
    if (!(await this.#storage.remove(sandboxId, filename))) throw notFound(filename);
  }

  /** The file that is being written, for each session that is recorded now: its highest segment. */
  #growing(segments: readonly Segment[]): Set<string> {
    const newest = new Map<string, SegmentName>();
    for (const { name } of segments) {
      const known = newest.get(name.sessionId);
      if (!known || name.segment > known.segment) newest.set(name.sessionId, name);
    }
    const active = [...newest.values()].filter((name) => this.#activeSession(name.sandboxId) === name.sessionId);
    return new Set(active.map((name) => name.filename));
  }
}

interface Segment {
  readonly file: StoredFile;
  readonly name: SegmentName;
}

function newestFirst(a: Segment, b: Segment): number {
  return (
    b.file.createdAt - a.file.createdAt ||
    b.name.segment - a.name.segment ||
    // Two sandboxes may write in the same millisecond; pages need an order that is the same each time.
    (a.name.filename < b.name.filename ? -1 : 1)
  );
}

function info({ file, name }: Segment, growing: ReadonlySet<string>): RecordingInfo {
  return {
    filename: name.filename,
    sessionId: name.sessionId,
    segment: name.segment,
    size: file.size,
    createdAt: isoTime(file.createdAt),
    format: 'mkv',
    downloadUrl: `/recordings/${name.filename}`,
    recordingType: 'vnc',
    status: growing.has(name.filename) ? 'recording' : 'completed',
  };
}

function checked(filename: string, visible: Visible): SegmentName {
  const name = parseSegmentName(filename);
  if (!name) {
    throw new AppError('INVALID_FILENAME', 'Recordings are named vnc_<sandboxId>_<YYYYMMDD>_<HHMMSS>_seg<NNN>.mkv.');
  }
  if (!visible(name.sandboxId)) throw notFound(filename);
  return name;
}

function notFound(filename: string): AppError {
  return new AppError('RECORDING_NOT_FOUND', `There is no recording ${filename}.`);
}
