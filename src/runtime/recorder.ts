import { mkdirSync, readdirSync } from 'node:fs';
import type { Readable } from 'node:stream';
import type { RuntimeConfig } from '../core/contracts.ts';
import { parseSegmentName, sessionName } from '../core/recording.ts';
import type { RecorderStatus } from '../core/sandbox.ts';
import { childEnv } from './desktop.ts';
import { Child, Keeper } from './processes.ts';

/** ffmpeg finishes its file on the first SIGINT, within milliseconds; a second one would abort it. */
const STOP_PHASES = [
  ['SIGINT', 10_000],
  ['SIGTERM', 2000],
] as const;

/** How long an ffmpeg may say nothing, in milliseconds. */
const SILENT_MS = 10_000;

export interface RecorderArgs {
  readonly display: number;
  readonly width: number;
  readonly height: number;
  readonly fps: number;
  readonly segmentSeconds: number;
  /** Number of the first segment: above 0 when ffmpeg is started again within one session. */
  readonly firstSegment: number;
  /** Name of the session, relative to ffmpeg's working folder: a `%` in a path would be taken for a pattern. */
  readonly session: string;
}

/** ffmpeg's command line: desktop in, H.264 in playable Matroska segments out. */
export function recorderArgs(a: RecorderArgs): string[] {
  // 4:2:0 chroma wants even sides.
  const size = `${a.width - (a.width % 2)}x${a.height - (a.height % 2)}`;
  return [
    ...['-hide_banner', '-loglevel', 'warning', '-nostdin'],
    // Says on descriptor 3 how many frames it has written.
    ...['-progress', 'pipe:3', '-stats_period', '0.2'],
    ...['-f', 'x11grab', '-draw_mouse', '1', '-framerate', String(a.fps), '-video_size', size, '-i', `:${a.display}`],
    // ultrafast: a recorder must not take the browser's CPU. zerolatency: no frame waits inside the encoder, so a kill
    // loses nothing that was encoded. One thread: a still desktop at 10 fps needs no more.
    ...['-c:v', 'libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-crf', '26', '-threads', '1'],
    // yuv420p is what every browser and player decodes.
    ...['-pix_fmt', 'yuv420p'],
    // Key frames where segments begin, so that each plays alone, and every 10 s between, so that players can seek.
    ...['-g', String(a.fps * 10), '-force_key_frames', `expr:gte(t,n_forced*${a.segmentSeconds})`],
    ...['-f', 'segment', '-segment_format', 'matroska', '-segment_time', String(a.segmentSeconds)],
    ...['-segment_start_number', String(a.firstSegment), '-reset_timestamps', '1'],
    // Matroska holds a cluster in memory until it ends: half a second is the most that a kill can cost.
    ...['-segment_format_options', 'cluster_time_limit=500:flush_packets=1'],
    `${a.session}_seg%03d.mkv`,
  ];
}

/** The recorder of one sandbox: one ffmpeg, started again if it dies, numbering on within the session. */
export class Recorder {
  readonly #config: RuntimeConfig;
  readonly #display: number;
  readonly #onChange: () => void;
  #keeper: Keeper | undefined;
  #firstFrame: Promise<void> | undefined;
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

  /** Starts recording if it does not run. */
  start(): Promise<void> {
    return this.#enqueue(async () => {
      if (this.#status.state === 'recording') return;
      await this.#keeper?.stop(STOP_PHASES);
      const session = sessionName(this.#config.spec.id, new Date());
      const keeper = new Keeper({
        start: async () => {
          const child = this.#spawn(session);
          this.#firstFrame = firstFrame(child);
          endWhenSilent(child);
          return child;
        },
        giveUp: (why) => this.#set({ state: 'failed', sessionId: session, error: why }),
      });
      this.#keeper = keeper;
      await keeper.start();
      this.#set({ state: 'recording', sessionId: session });
    });
  }

  /** Ends the current segment properly. Resolves when ffmpeg is gone. */
  stop(): Promise<void> {
    return this.#enqueue(async () => {
      // An interrupt before the first frame would leave a file with nothing in it.
      await this.#firstFrame;
      await this.#keeper?.stop(STOP_PHASES);
      this.#keeper = undefined;
      if (this.#status.state !== 'off') this.#set({ state: 'off' });
    });
  }

  #enqueue(step: () => Promise<void>): Promise<void> {
    const result = this.#queue.then(step);
    this.#queue = result.catch(() => {}); // the caller has the rejection; the queue goes on
    return result;
  }

  #spawn(session: string): Child {
    const { spec, recordingsDir } = this.#config;
    // Deleting the last recording of a sandbox takes the folder along.
    mkdirSync(recordingsDir, { recursive: true, mode: 0o700 });
    return new Child({
      name: 'ffmpeg',
      command: 'ffmpeg',
      args: recorderArgs({
        display: this.#display,
        ...spec.viewport,
        fps: spec.recordingFps,
        segmentSeconds: spec.recordingSegmentSeconds,
        firstSegment: nextSegment(recordingsDir, session),
        session,
      }),
      pipe3: true,
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

/** Five times a second ffmpeg says how far it is; one that has said nothing for 10 s is stuck, and the next one takes over. */
function endWhenSilent(child: Child): void {
  const timer = setTimeout(() => {
    console.error(`ffmpeg said nothing for ${SILENT_MS / 1000} s: it is killed`);
    void child.stop([['SIGKILL', 2000]]);
  }, SILENT_MS);
  (child.process.stdio[3] as Readable).on('data', () => timer.refresh());
  void child.exited.then(() => clearTimeout(timer));
}

/** Resolves when ffmpeg has written a frame, has ended, or has had three seconds. */
function firstFrame(child: Child): Promise<void> {
  const pipe = child.process.stdio[3] as Readable;
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 3000);
    let text = '';
    const onData = (chunk: Buffer): void => {
      text = (text + chunk.toString('latin1')).slice(-1000);
      if (/^frame=\s*[1-9]/m.test(text)) done();
    };
    const done = (): void => {
      clearTimeout(timer);
      // Somebody else reads on: ffmpeg would stand still once the pipe is full.
      pipe.off('data', onData);
      resolve();
    };
    pipe.on('data', onData);
    void child.exited.then(done);
  });
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
