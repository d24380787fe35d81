import { mkdirSync, readdirSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import type { RuntimeConfig } from '../core/contracts.ts';
import {
  MAX_NAVIGATIONS,
  type Navigation,
  parseSegmentName,
  type SegmentReason,
  sessionName,
} from '../core/recording.ts';
import type { RecorderStatus, RecordingQuality } from '../core/sandbox.ts';
import { childEnv } from './desktop.ts';
import { writeJournal } from './journal.ts';
import { Child, Keeper } from './processes.ts';
import { Take } from './take.ts';

/** ffmpeg finishes its file on the first SIGINT, within milliseconds; a second one would abort it. */
const STOP_PHASES = [
  ['SIGINT', 10_000],
  ['SIGTERM', 2000],
] as const;

/** x264's constant rate factors: 6 less is about twice the bytes. */
const CRF: Readonly<Record<RecordingQuality, number>> = { low: 32, medium: 26, high: 20 };

/** What an ffmpeg is to record: sides in pixels, of the screen; `scale` is a factor; `fps` and `segmentSeconds` are whole numbers. */
export interface RecorderArgs {
  readonly display: number;
  readonly width: number;
  readonly height: number;
  readonly fps: number;
  readonly scale: number;
  readonly quality: RecordingQuality;
  readonly cursor: boolean;
  readonly segmentSeconds: number;
  /** Number of the first segment: above 0 when ffmpeg is started again within one session. */
  readonly firstSegment: number;
  /** Name of the session, relative to ffmpeg's working folder: a `%` in a path would be taken for a pattern. */
  readonly session: string;
}

/** ffmpeg's command line: desktop in, H.264 in playable Matroska segments out. */
export function recorderArgs(a: RecorderArgs): string[] {
  // 4:2:0 chroma wants even sides.
  const even = (side: number): number => Math.max(2, Math.floor(side / 2) * 2);
  const size = `${even(a.width)}x${even(a.height)}`;
  const scaled = a.scale === 1 ? [] : ['-vf', `scale=${even(a.width * a.scale)}:${even(a.height * a.scale)}`];
  return [
    ...['-hide_banner', '-loglevel', 'warning', '-nostdin'],
    // Says on descriptor 3 how many frames it has written.
    ...['-progress', 'pipe:3', '-stats_period', '0.2'],
    ...['-f', 'x11grab', '-draw_mouse', a.cursor ? '1' : '0', '-framerate', String(a.fps), '-video_size', size],
    ...['-i', `:${a.display}`, ...scaled],
    // Without it ffmpeg guesses the rate from its first frames, which on a busy machine come in a burst: 5 a second were
    // written as 25, four of five of them doubled, and counted as dropped.
    ...['-r', String(a.fps)],
    // ultrafast: a recorder must not take the browser's CPU. zerolatency: no frame waits inside the encoder, so a kill
    // loses nothing that was encoded. One thread: a still desktop at 10 fps needs no more.
    ...['-c:v', 'libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-crf', String(CRF[a.quality])],
    ...['-threads', '1'],
    // yuv420p is what every browser and player decodes.
    ...['-pix_fmt', 'yuv420p'],
    // Key frames where segments begin, so that each plays alone, and every 10 s between, so that players can seek.
    ...['-g', String(a.fps * 10), '-force_key_frames', `expr:gte(t,n_forced*${a.segmentSeconds})`],
    ...['-f', 'segment', '-segment_format', 'matroska', '-segment_time', String(a.segmentSeconds)],
    ...['-segment_start_number', String(a.firstSegment), '-reset_timestamps', '1'],
    // Says on its standard output which segment it has closed.
    ...['-segment_list', 'pipe:1', '-segment_list_type', 'csv', '-segment_list_flags', 'live'],
    // Matroska holds a cluster in memory until it ends: half a second is the most that a kill can cost.
    ...['-segment_format_options', 'cluster_time_limit=500:flush_packets=1'],
    `${a.session}_seg%03d.mkv`,
  ];
}

/** The disk keeps this much free, in bytes: a file that a full disk cuts off costs more than the seconds that are not recorded. */
const ROOM_BYTES = 64 * 1024 * 1024;
/** Recording goes on when there is this much, so that it does not begin and end all the time. */
const ROOM_AGAIN_BYTES = 2 * ROOM_BYTES;
/** How often it is looked how much room there is, in milliseconds. */
const ROOM_EVERY_MS = 2000;

/**
 * The recorder of one sandbox: one ffmpeg, started again if it dies, numbering on within the session. Beside the segments
 * it keeps `<session>.jsonl`, a line for each segment that was closed (why it ended there, and how many frames it lacks) and
 * for each address that a tab went to.
 */
export class Recorder {
  readonly #config: RuntimeConfig;
  readonly #display: number;
  readonly #onChange: () => void;
  #keeper: Keeper | undefined;
  #take: Take | undefined;
  #session: string | undefined;
  #navigations = 0;
  #looks: NodeJS.Timeout | undefined;
  #status: RecorderStatus = { state: 'off' };
  /** Starts and stops run one after the other, whoever asks. */
  #queue: Promise<void> = Promise.resolve();

  constructor(config: RuntimeConfig, display: number, onChange: () => void) {
    this.#config = config;
    this.#display = display;
    this.#onChange = onChange;
  }

  get status(): RecorderStatus {
    return this.#status;
  }

  /** Starts recording if it does not run. Without room on the disk it begins when there is some. */
  start(): Promise<void> {
    return this.#enqueue(async () => {
      if (this.#status.state === 'recording' || this.#status.state === 'paused') return;
      await this.#halt('stopped');
      this.#session = sessionName(this.#config.spec.id, new Date());
      this.#navigations = 0;
      await this.#record();
      this.#looks ??= setInterval(() => void this.#lookForRoom(), ROOM_EVERY_MS);
    });
  }

  /** Ends the current segment properly. Resolves when ffmpeg is gone. */
  stop(): Promise<void> {
    return this.#enqueue(async () => {
      clearInterval(this.#looks);
      this.#looks = undefined;
      await this.#halt('stopped');
      this.#session = undefined;
      if (this.#status.state !== 'off') this.#set({ state: 'off' });
    });
  }

  /** Ends the segment that is being written and goes on with the next, so that the former may be deleted. */
  cut(): Promise<void> {
    return this.#enqueue(async () => {
      if (this.#status.state !== 'recording') return;
      await this.#halt('cut');
      await this.#record().catch((err: Error) => {
        this.#set(this.#failedStatus(err.message));
        throw err;
      });
    });
  }

  /** Notes where a tab went, if that is recorded. */
  navigated(navigation: Navigation): void {
    if (this.#status.state !== 'recording' || !this.#session || this.#navigations >= MAX_NAVIGATIONS) return;
    this.#navigations += 1;
    writeJournal(this.#config.recordingsDir, this.#session, navigation);
  }

  #enqueue(step: () => Promise<void>): Promise<void> {
    const result = this.#queue.then(step);
    this.#queue = result.catch(() => {}); // the caller has the rejection; the queue goes on
    return result;
  }

  /** One ffmpeg after the other until it is halted. */
  async #record(): Promise<void> {
    const session = this.#session as string;
    if ((await this.#room()) < ROOM_BYTES) return this.#set(this.#pausedStatus());
    const keeper = new Keeper({
      start: async () => {
        if ((await this.#room()) < ROOM_BYTES) throw new Error('the disk is full');
        const folder = this.#config.recordingsDir;
        await this.#take?.closed;
        if (this.#keeper !== keeper) throw new Error('it was stopped');
        // Deleting the last recording of a sandbox takes the folder along.
        mkdirSync(folder, { recursive: true, mode: 0o700 });
        const first = nextSegment(folder, session);
        const take = new Take(this.#spawn(session, first), {
          folder,
          session,
          first,
          onSegment: () => this.#sayRecording(),
        });
        this.#take = take;
        // For a restart; of the first one it is said when all is well.
        if (this.#status.state === 'recording') this.#sayRecording();
        return take.child;
      },
      giveUp: (why) => void this.#enqueue(() => this.#giveUp(keeper, why)),
    });
    this.#keeper = keeper;
    await keeper.start();
    this.#sayRecording();
  }

  #sayRecording(): void {
    const sessionId = this.#session;
    if (sessionId && this.#take) this.#set({ state: 'recording', sessionId, segment: this.#take.segment });
  }

  async #halt(reason: SegmentReason): Promise<void> {
    // An interrupt before the first frame would leave a file with nothing in it.
    await this.#take?.firstFrame;
    if (this.#take) this.#take.ending = reason;
    await this.#keeper?.stop(STOP_PHASES);
    await this.#take?.closed;
    this.#keeper = undefined;
    this.#take = undefined;
  }

  /** ffmpeg died again and again; where the disk is full, that is why. */
  async #giveUp(keeper: Keeper, why: string): Promise<void> {
    if (this.#keeper !== keeper) return;
    await this.#halt('died');
    const full = (await this.#room()) < ROOM_BYTES;
    this.#set(full ? this.#pausedStatus() : this.#failedStatus(why));
  }

  async #lookForRoom(): Promise<void> {
    const room = await this.#room();
    const { state } = this.#status;
    if (state === 'recording' && room < ROOM_BYTES) {
      await this.#enqueue(async () => {
        if (this.#status.state !== 'recording') return;
        await this.#halt('disk_full');
        this.#set(this.#pausedStatus());
      });
    } else if (state === 'paused' && room >= ROOM_AGAIN_BYTES) {
      await this.#enqueue(async () => {
        if (this.#status.state === 'paused') await this.#record();
      }).catch((err: unknown) => console.error('recorder', err)); // the next look tries again
    }
  }

  /** Bytes that may still be written where the recordings lie. A disk that does not say is taken to have room. */
  async #room(): Promise<number> {
    try {
      const { bavail, bsize } = await statfs(this.#config.recordingsDir);
      return bavail * bsize;
    } catch {
      return Number.POSITIVE_INFINITY;
    }
  }

  #pausedStatus(): RecorderStatus {
    const error = `the disk is full: less than ${ROOM_BYTES / 1024 / 1024} MiB are left for recordings`;
    return { state: 'paused', sessionId: this.#session as string, error };
  }

  #failedStatus(error: string): RecorderStatus {
    return { state: 'failed', sessionId: this.#session as string, error };
  }

  #spawn(session: string, firstSegment: number): Child {
    const { spec, recordingsDir } = this.#config;
    return new Child({
      name: 'ffmpeg',
      command: 'ffmpeg',
      args: recorderArgs({
        display: this.#display,
        ...spec.viewport,
        fps: spec.recordingFps,
        scale: spec.recordingScale,
        quality: spec.recordingQuality,
        cursor: spec.recordingCursor,
        segmentSeconds: spec.recordingSegmentSeconds,
        firstSegment,
        session,
      }),
      pipe3: true,
      ownStdout: true,
      env: childEnv(this.#config, this.#display),
      cwd: recordingsDir,
      // As ourselves: the browser's user must not be able to touch a recording.
      user: null,
    });
  }

  #set(status: RecorderStatus): void {
    this.#status = status;
    this.#onChange();
  }
}

/** One above the highest segment of the session that is on disk, so that no file is ever written twice. */
function nextSegment(dir: string, session: string): number {
  let next = 0;
  for (const name of readdirSync(dir)) {
    const parsed = parseSegmentName(name);
    if (parsed?.sessionId === session) next = Math.max(next, parsed.segment + 1);
  }
  return next;
}
