import { spawn } from 'node:child_process';
import { setPriority } from 'node:os';
import type { Readable, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import ffmpeg from 'fluent-ffmpeg';
import { AppError } from '../core/errors.ts';
import { generated } from './generated.ts';
import { withDuration } from './mp4.ts';
import { Turns } from './turns.ts';

/** Of MP4s that are made at once; who comes next waits. */
const MP4S = 2;

const POSTER_WIDTH = 320;
/** A first key frame that needs more of the file than this makes no poster. */
const POSTER_INPUT_BYTES = 8 * 1024 * 1024;
const POSTER_OUTPUT_BYTES = 1024 * 1024;
/** Against one that hangs; long, for it gives way to everything else on a busy machine ({@link NICE}). */
const POSTER_MS = 60_000;

/** 8K: a frame that says it is larger is not decoded. */
const MAX_PIXELS = 7680 * 4320;
/** The largest piece of memory that ffmpeg may ask for. */
const MAX_ALLOC_BYTES = 256 * 1024 * 1024;

/** Below the sandboxes' browsers, as nice(1) counts. */
const NICE = 10;

/** As the recorder's. */
const DEFAULT_PATH = '/usr/local/bin:/usr/bin:/bin';

/** How much of ffmpeg's complaints an error repeats, in characters. */
const LAST_WORDS = 300;

/** How ffmpeg is found. */
export interface MediaOptions {
  /** Where ffmpeg is looked for, as in PATH; the default is that of the recorder. */
  readonly path?: string;
}

/** Options of {@link toMp4}. */
export interface Mp4Options extends MediaOptions {
  /** How much is done, in milliseconds of the video; several times a second. */
  readonly onProgress?: (doneMs: number) => void;
  /** How long the MKV is; the MP4 says it then. Without it players show as duration what has come so far. */
  readonly durationMs?: number | undefined;
}

const mp4Turns = new Turns(MP4S);

/**
 * The MKV as a fragmented MP4, not encoded again, made no faster than it is read. Two are made at once, others wait. Fails
 * when the MKV does, when ffmpeg cannot read it, and with AppError INTERNAL when there is no ffmpeg. Destroyed, it
 * kills its ffmpeg and destroys the MKV.
 */
export function toMp4(mkv: Readable, { onProgress, path, durationMs }: Mp4Options = {}): Readable {
  return converted(mkv, { args: mp4Args(), turns: mp4Turns, path, onProgress, durationMs });
}

/** Options of {@link poster}. */
export interface PosterOptions extends MediaOptions {
  /** How long it may take, in milliseconds; default 60,000. */
  readonly limitMs?: number;
}

/**
 * A JPEG of the first key frame, 320 pixels wide and at most 1 MiB. Reads at most 8 MiB of the file and destroys it. Rejects when
 * ffmpeg finds no frame or takes too long, and with AppError INTERNAL when there is no ffmpeg. Each is a process: it is the
 * caller who sees to it that they are few.
 */
export async function poster(file: Readable, { path, limitMs = POSTER_MS }: PosterOptions = {}): Promise<Buffer> {
  const limits = { inputBytes: POSTER_INPUT_BYTES, outputBytes: POSTER_OUTPUT_BYTES, ms: limitMs };
  const jpeg = await buffer(converted(file, { args: posterArgs(), path, ...limits }));
  if (jpeg.length === 0) throw new Error('ffmpeg found no frame to make a poster of.');
  return jpeg;
}

/** ffmpeg's command line: MKV on standard input, MP4 on standard output, progress on descriptor 3. */
export function mp4Args(): string[] {
  const command = ffmpeg('pipe:0')
    .inputOptions([...INPUT, '-progress', 'pipe:3', '-stats_period', '0.2'])
    .outputOptions(['-map', '0:v:0', '-c', 'copy'])
    // A pipe cannot be wound back: no index at the front, but fragments that each have their own.
    .outputOptions(['-movflags', 'frag_keyframe+empty_moov+default_base_moof'])
    .format('mp4')
    .output('pipe:1');
  return command._getArguments();
}

/** ffmpeg's command line: MKV on standard input, one JPEG on standard output. */
export function posterArgs(): string[] {
  const command = ffmpeg('pipe:0')
    // Nothing but what the recorder writes is decoded: ffmpeg has hundreds of decoders, each a way in.
    .inputOptions([...INPUT, '-codec_whitelist', 'h264', '-max_pixels', String(MAX_PIXELS)])
    .inputOptions(['-threads', '1', '-skip_frame', 'nokey'])
    .outputOptions(['-map', '0:v:0', '-frames:v', '1', '-vf', `scale=${POSTER_WIDTH}:-2`])
    .outputOptions(['-c:v', 'mjpeg', '-q:v', '5', '-threads', '1'])
    .format('image2pipe')
    .output('pipe:1');
  return command._getArguments();
}

/** The format is never guessed, and no file or address that the input names is opened. */
const INPUT = [
  ...['-hide_banner', '-loglevel', 'error', '-nostats'],
  ...['-max_alloc', String(MAX_ALLOC_BYTES)],
  ...['-f', 'matroska', '-protocol_whitelist', 'pipe'],
];

interface Conversion {
  readonly args: string[];
  /** It waits for one of them; without them it begins at once. */
  readonly turns?: Turns;
  readonly path?: string | undefined;
  readonly onProgress?: ((doneMs: number) => void) | undefined;
  /** Of an MP4, when it is known. */
  readonly durationMs?: number | undefined;
  /** ffmpeg gets no more than this. */
  readonly inputBytes?: number;
  /** More than this fails. */
  readonly outputBytes?: number;
  /** Taking longer than this fails. */
  readonly ms?: number;
}

function converted(source: Readable, conversion: Conversion): Readable {
  const stop = new AbortController();
  const stream = generated(convert(source, conversion, stop.signal), stop);
  source.once('error', (err) => stream.destroy(err));
  stop.signal.addEventListener('abort', () => source.destroy(), { once: true });
  return stream;
}

async function* convert(source: Readable, conversion: Conversion, stop: AbortSignal): AsyncGenerator<Buffer, void> {
  await conversion.turns?.enter(stop);
  try {
    yield* output(source, conversion, stop);
  } finally {
    conversion.turns?.leave();
  }
}

async function* output(source: Readable, conversion: Conversion, stop: AbortSignal): AsyncGenerator<Buffer, void> {
  const { args, path, onProgress, durationMs, inputBytes, outputBytes, ms } = conversion;
  const running = start(args, path);
  let late = false;
  const tooLate = (): void => {
    late = true;
    running.kill();
  };
  const timer = ms === undefined ? undefined : setTimeout(tooLate, ms);
  stop.addEventListener('abort', running.kill, { once: true });
  // It may have fired between the turn and here.
  if (stop.aborted) running.kill();
  try {
    running.attach(source, inputBytes ?? Number.POSITIVE_INFINITY, onProgress);
    let made = 0;
    const bytes = durationMs === undefined ? running.output : withDuration(running.output, durationMs);
    for await (const chunk of bytes) {
      made += chunk.length;
      if (outputBytes !== undefined && made > outputBytes)
        throw new Error(`ffmpeg made more than ${outputBytes} bytes.`);
      yield chunk;
    }
    const problem = await running.ended;
    if (late) throw new Error(`ffmpeg took more than ${(ms ?? 0) / 1000} s.`);
    if (problem) throw problem;
    if (source.destroyed && !source.readableEnded) throw new Error('The recording ended before all of it was read.');
  } finally {
    clearTimeout(timer);
    stop.removeEventListener('abort', running.kill);
    running.kill();
    source.destroy();
    await running.ended;
  }
}

interface Running {
  /** Connects the pipes. */
  attach(source: Readable, inputBytes: number, onProgress: Conversion['onProgress']): void;
  readonly output: AsyncIterable<Buffer>;
  /** Resolves when the process is gone, with what went wrong if something did. */
  readonly ended: Promise<Error | undefined>;
  kill(): void;
}

/**
 * fluent-ffmpeg only writes the command line. Started by it, ffmpeg would have our environment with the secrets in it,
 * and a machine out of processes or descriptors would end the service by an exception that nobody can catch.
 */
function start(args: readonly string[], path = DEFAULT_PATH): Running {
  const child = spawn('ffmpeg', args, { stdio: ['pipe', 'pipe', 'pipe', 'pipe'], env: { PATH: path }, cwd: '/' });
  let lastWords = '';
  const ended = new Promise<Error | undefined>((resolve) => {
    child.on('error', (err: NodeJS.ErrnoException) => resolve(notStarted(err)));
    child.once('close', (code, signal) => {
      const words = lastWords.trim().replaceAll('\n', '; ');
      const how = signal ? `was ended by ${signal}` : `failed with code ${code}`;
      resolve(code === 0 ? undefined : new Error(`ffmpeg ${how}${words ? `: ${words}` : '.'}`));
    });
  });
  const kill = (): void => {
    child.kill('SIGKILL');
    // It is gone for good only when nobody has to read its last bytes any more.
    child.stdout?.destroy();
  };
  // Without descriptors there are no pipes, whatever the types say; `ended` has the reason.
  const stdin: Writable | undefined = child.stdin;
  const stdout: Readable | undefined = child.stdout;
  const stderr: Readable | undefined = child.stderr;
  const progress = child.stdio?.[3] as Readable | undefined;
  if (child.pid !== undefined) lowerPriority(child.pid);
  stderr?.on('data', (chunk: Buffer) => {
    lastWords = (lastWords + chunk.toString()).slice(-LAST_WORDS);
  });
  return {
    attach: (source, inputBytes, onProgress) => {
      if (stdin) feed(source, stdin, inputBytes);
      if (progress) reportProgress(progress, onProgress);
    },
    output: outputOf(stdout),
    ended,
    kill,
  };
}

/** Its bytes until it ends or is destroyed. Whether that was in order, the process says at its end. */
async function* outputOf(stdout: Readable | undefined): AsyncGenerator<Buffer, void> {
  try {
    if (stdout) yield* stdout as AsyncIterable<Buffer>;
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') throw err;
  }
}

function notStarted(err: NodeJS.ErrnoException): Error {
  if (err.code !== 'ENOENT') return err;
  return new AppError('INTERNAL', 'There is no ffmpeg on this machine: MP4s and posters need it.', {}, err);
}

function lowerPriority(pid: number): void {
  try {
    setPriority(pid, NICE);
  } catch {
    // Gone already.
  }
}

/** Passes on at most so many bytes, as fast as they are taken. */
function feed(source: Readable, stdin: Writable, inputBytes: number): void {
  // ffmpeg may have seen enough, or be gone: its end says which.
  stdin.on('error', () => {});
  if (source.destroyed) stdin.end();
  let left = inputBytes;
  source.on('data', (chunk: Buffer) => {
    const room = stdin.write(chunk.subarray(0, left));
    left -= chunk.length;
    if (left <= 0) stdin.end();
    if (left <= 0 || !room) source.pause();
  });
  stdin.on('drain', () => {
    if (left > 0) source.resume();
  });
  source.once('close', () => stdin.end());
}

function reportProgress(pipe: Readable, onProgress: Conversion['onProgress']): void {
  let text = '';
  pipe.on('data', (chunk: Buffer) => {
    const lines = (text + chunk.toString('latin1')).split('\n');
    text = (lines.pop() ?? '').slice(-1000);
    for (const line of lines) {
      const done = /^out_time_us=(\d+)$/.exec(line);
      if (done) onProgress?.(Math.floor(Number(done[1]) / 1000));
    }
  });
}
