import { execFile } from 'node:child_process';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { BrowserContext } from 'playwright-core';
import { LIMIT, type Service, waitFor } from './service.ts';

const run = promisify(execFile);

/** What H.264 at this quality may do to a flat colour, per channel. */
const TOLERANCE = 24;

export type Rgb = readonly [number, number, number];

export interface Probe {
  readonly codec: string;
  readonly width: number;
  readonly height: number;
  readonly pixels: string;
  readonly rate: string;
  readonly frames: number;
  /** Seconds; 0 when the file does not say. */
  readonly duration: number;
  /** What the decoder complained about. */
  readonly errors: string;
}

/** Decodes the whole file and counts. */
export async function probe(file: string): Promise<Probe> {
  const entries = 'stream=codec_name,width,height,pix_fmt,avg_frame_rate,nb_read_frames:format=duration';
  const args = [
    '-v',
    'error',
    '-count_frames',
    '-select_streams',
    'v:0',
    '-show_entries',
    entries,
    '-of',
    'json',
    file,
  ];
  // A file that was begun a moment ago may have no frame yet, which ffprobe takes for an error.
  const { stdout, stderr } = await run('ffprobe', args, { ...LIMIT }).catch(
    (err: Error & { stdout?: string; stderr?: string }) => ({
      stdout: err.stdout || '{}',
      stderr: err.stderr || err.message,
    }),
  );
  const { streams = [], format = {} } = JSON.parse(stdout) as {
    streams?: Record<string, string | number>[];
    format?: { duration?: string };
  };
  const stream = streams[0] ?? {};
  return {
    codec: String(stream.codec_name),
    width: Number(stream.width),
    height: Number(stream.height),
    pixels: String(stream.pix_fmt),
    rate: String(stream.avg_frame_rate),
    frames: Number(stream.nb_read_frames ?? 0),
    duration: Number(format.duration ?? 0),
    errors: stderr.trim(),
  };
}

/** Waits until the file that is being written of a sandbox has so many frames: on a busy machine they come late. */
export async function onTape(service: Service, id: string, frames = 5): Promise<void> {
  await waitFor(async () => {
    const [newest] = await service.client.recordings(id);
    if (newest?.status !== 'recording' || newest.size === 0) return false;
    return (await probe(join(service.dataDir, 'recordings', id, newest.filename))).frames >= frames;
  }, `${frames} frames of ${id} on tape`);
}

/** Every pixel of this part of the screen, frame after frame. */
export async function pixels(
  file: string,
  part: { x: number; y: number; width: number; height: number },
): Promise<Rgb[]> {
  const crop = `crop=${part.width}:${part.height}:${part.x}:${part.y}`;
  const args = ['-v', 'error', '-i', file, '-vf', crop, '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-'];
  const { stdout } = await run('ffmpeg', args, { ...LIMIT, encoding: 'buffer', maxBuffer: 64 * 1024 * 1024 });
  const found: Rgb[] = [];
  for (let i = 0; i + 2 < stdout.length; i += 3)
    found.push([stdout[i] as number, stdout[i + 1] as number, stdout[i + 2] as number]);
  return found;
}

export function isNear(a: Rgb, b: Rgb): boolean {
  return a.every((channel, i) => Math.abs(channel - (b[i] as number)) <= TOLERANCE);
}

/** A file with single ranges, as players ask for them. */
export function sendRange(req: IncomingMessage, res: ServerResponse, bytes: Buffer, type: string): void {
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? '') ?? [];
  const start = Number(from ?? 0);
  const end = to ? Number(to) : bytes.length - 1;
  res.statusCode = from === undefined ? 200 : 206;
  if (from !== undefined) res.setHeader('content-range', `bytes ${start}-${end}/${bytes.length}`);
  res.setHeader('accept-ranges', 'bytes');
  res.setHeader('content-type', type);
  res.end(bytes.subarray(start, end + 1));
}

export interface Played {
  readonly width: number;
  readonly height: number;
  readonly reached: number;
  /** Of the background at that moment; none for another site's video. */
  readonly pixel: Rgb | undefined;
}

/** Plays a video in a page until its clock runs, and looks at one point of it. */
export async function playOnce(
  player: BrowserContext,
  pageUrl: string,
  url: string,
  point: { readonly x: number; readonly y: number },
): Promise<Played> {
  const page = await player.newPage();
  try {
    await page.goto(pageUrl);
    return await page.evaluate(
      async ([src, x, y]) => {
        const video = document.createElement('video');
        video.muted = true;
        const failed = new Promise<never>((_, reject) => {
          video.addEventListener('error', () =>
            reject(new Error(`video error ${video.error?.code}: ${video.error?.message}`)),
          );
          setTimeout(() => reject(new Error(`the video got no further than readyState ${video.readyState}`)), 60_000);
        });
        const event = (name: string): Promise<unknown> =>
          new Promise((resolve) => video.addEventListener(name, resolve));
        const loaded = event('loadeddata');
        video.src = src;
        await Promise.race([loaded, failed]);
        const wanted = Math.min(0.5, video.duration / 2);
        const running = new Promise<void>((resolve) => {
          video.addEventListener('timeupdate', () => {
            if (video.currentTime >= wanted) resolve();
          });
        });
        await Promise.race([Promise.all([video.play(), running]), failed]);
        const reached = video.currentTime;
        video.pause();
        // The end, since a sandbox's first frames come before its page.
        const sought = event('seeked');
        video.currentTime = Math.max(0, video.duration - 0.05);
        await Promise.race([sought, failed]);
        const canvas = document.createElement('canvas');
        canvas.width = video.videoWidth;
        canvas.height = video.videoHeight;
        const context = canvas.getContext('2d') as CanvasRenderingContext2D;
        context.drawImage(video, 0, 0);
        const own = new URL(src).origin === location.origin;
        const [r = 0, g = 0, b = 0] = own ? context.getImageData(x, y, 1, 1).data : [];
        return {
          width: video.videoWidth,
          height: video.videoHeight,
          reached,
          pixel: own ? ([r, g, b] as const) : undefined,
        };
      },
      [url, point.x, point.y] as const,
    );
  } finally {
    await page.close();
  }
}
