import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseSegmentName, type SegmentReason, segmentFile } from '../core/recording.ts';
import { writeJournal } from './journal.ts';
import type { Child } from './processes.ts';

/** How long an ffmpeg may say nothing, in milliseconds. */
const SILENT_MS = 10_000;
/** How long the first frame is waited for, in milliseconds. */
const FIRST_FRAME_MS = 3000;
/** How often it is looked for the next file, in milliseconds. */
const NEXT_FILE_MS = 20;

/** Where a run of ffmpeg writes and who hears of it. */
export interface TakeOptions {
  readonly folder: string;
  readonly session: string;
  /** Number of its first segment. */
  readonly first: number;
  /** The next segment has begun. */
  readonly onSegment: () => void;
}

/** One run of ffmpeg, from its start to its end: what it says of its segments, written down in the session's journal. */
export class Take {
  readonly child: Child;
  /** Resolves when ffmpeg has written a frame, has ended, or has had three seconds. */
  readonly firstFrame: Promise<void>;
  /** Resolves when ffmpeg is gone and all it said is in the journal. */
  readonly closed: Promise<void>;
  /** Set before it is ended on purpose: why its last segment ends. */
  ending: SegmentReason | undefined;
  readonly #options: TakeOptions;
  #segment: number;
  #gone = false;
  /** Closed segments are noted one after the other. */
  #noting: Promise<void> = Promise.resolve();
  /** Frames that it had no time to take or to write, since its start. */
  #dropped = 0;
  #droppedBefore = 0;

  constructor(child: Child, options: TakeOptions) {
    this.child = child;
    this.#options = options;
    this.#segment = options.first;
    const progress = child.process.stdio[3] as Readable;
    endWhenSilent(child, progress);
    this.firstFrame = new Promise((resolve) => {
      const timer = setTimeout(resolve, FIRST_FRAME_MS);
      const done = (): void => {
        clearTimeout(timer);
        resolve();
      };
      onValues(progress, (values) => {
        this.#dropped = (values.get('dup_frames') ?? 0) + (values.get('drop_frames') ?? 0);
        if ((values.get('frame') ?? 0) > 0) done();
      });
      void child.exited.then(done);
    });
    // Its standard output is the list of closed segments: "vnc_x_20251116_103022_seg000.mkv,0.000000,60.000000".
    onLines(child.process.stdout as Readable, (line) => this.#onClosed(line.split(',')[0] ?? ''));
    // Not 'exit': what it said last may still be in the pipe.
    this.closed = new Promise((resolve) => child.process.once('close', resolve)).then(async () => {
      this.#gone = true;
      await this.#noting;
      this.#onGone();
    });
  }

  /** Number of the segment that is being written. */
  get segment(): number {
    return this.#segment;
  }

  #onClosed(filename: string): void {
    const name = parseSegmentName(filename);
    if (name?.sessionId !== this.#options.session) return;
    this.#noting = this.#noting.then(() => this.#closed(name.segment));
  }

  /** ffmpeg says so just before it writes the last bytes, and opens the next one after them. */
  async #closed(segment: number): Promise<void> {
    const next = join(this.#options.folder, segmentFile(this.#options.session, segment + 1));
    while (!this.#gone && !existsSync(next)) await sleep(NEXT_FILE_MS);
    this.#note(segment, this.ending ?? 'full');
    this.#segment = segment + 1;
    if (!this.ending) this.#options.onSegment();
  }

  #onGone(): void {
    const { folder, session } = this.#options;
    const open = existsSync(join(folder, segmentFile(session, this.#segment)));
    if (open) this.#note(this.#segment, this.ending ?? 'died');
    // With a full disk it still says that it has closed its segment.
    else if (!this.ending && this.#segment > this.#options.first) this.#note(this.#segment - 1, 'died');
  }

  /** The last line about a segment counts. */
  #note(segment: number, reason: SegmentReason): void {
    const dropped = this.#dropped - this.#droppedBefore;
    this.#droppedBefore = this.#dropped;
    writeJournal(this.#options.folder, this.#options.session, { segment, reason, dropped });
  }
}

/** Five times a second ffmpeg says how far it is; one that has said nothing for 10 s is stuck, and the next one takes over. */
function endWhenSilent(child: Child, progress: Readable): void {
  const timer = setTimeout(() => {
    console.error(`ffmpeg said nothing for ${SILENT_MS / 1000} s: it is killed`);
    void child.stop([['SIGKILL', 2000]]);
  }, SILENT_MS);
  progress.on('data', () => timer.refresh());
  void child.exited.then(() => clearTimeout(timer));
}

/** ffmpeg's progress: blocks of `key=value` lines, each ended by the key `progress`. Hands on the whole numbers of each block. */
function onValues(pipe: Readable, onBlock: (values: ReadonlyMap<string, number>) => void): void {
  let values = new Map<string, number>();
  onLines(pipe, (line) => {
    const [key = '', value = ''] = line.split('=');
    if (/^\s*\d+\s*$/.test(value)) values.set(key, Number(value));
    if (key !== 'progress') return;
    onBlock(values);
    values = new Map();
  });
}

function onLines(pipe: Readable, onLine: (line: string) => void): void {
  let rest = '';
  pipe.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString('latin1')).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) onLine(line);
  });
}
