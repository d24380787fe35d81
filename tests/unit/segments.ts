import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readdirSync, readlinkSync } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import type { OpenedFile } from '../../src/core/contracts.ts';
import { scan } from '../../src/recordings/scan.ts';
import { recorderArgs } from '../../src/runtime/recorder.ts';
import { streamOf } from '../../src/storage/files.ts';

const run = promisify(execFile);

export interface TestVideo {
  readonly width?: number;
  readonly height?: number;
  readonly fps?: number;
  readonly segmentSeconds?: number;
  /** How long the video is. */
  readonly seconds: number;
  /** As a screen delivers it, and not as fast as it can be made. */
  readonly live?: boolean;
}

/** The recorder's own command line with a test picture where the desktop would be. */
export function recording(folder: string, session: string, video: TestVideo): ChildProcess {
  const { width = 160, height = 90, fps = 10, segmentSeconds = 2, seconds, live = false } = video;
  const picture = { display: 0, width, height, fps, scale: 1, quality: 'medium', cursor: true } as const;
  const args = recorderArgs({ ...picture, segmentSeconds, firstSegment: 0, session });
  const from = args.indexOf('x11grab') - 1;
  const to = args.indexOf('-i') + 2;
  const source = ['-f', 'lavfi', '-i', `testsrc2=s=${width}x${height}:r=${fps}:d=${seconds}`];
  args.splice(from, to - from, ...(live ? ['-re'] : []), ...source);
  const child = spawn('ffmpeg', args, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit', 'pipe'] });
  (child.stdio[3] as Readable).resume();
  return child;
}

/** The finished segments, in order. */
export async function record(folder: string, session: string, video: TestVideo): Promise<string[]> {
  const child = recording(folder, session, video);
  const code = await new Promise((resolve) => child.once('close', resolve));
  if (code !== 0) throw new Error(`ffmpeg ended with ${code}`);
  const names = (await readdir(folder)).filter((name) => name.startsWith(`${session}_seg`));
  return names.sort().map((name) => join(folder, name));
}

/** As the storage opens it. */
export async function openFile(path: string): Promise<OpenedFile> {
  const handle = await open(path);
  const { size } = await handle.stat();
  return {
    size,
    createdAt: 0,
    stream: (start, end) => streamOf(handle, start, end),
    close: () => handle.close(),
  };
}

/** A closed segment as the library hands it to the export. */
export async function closed(path: string) {
  return { facts: await scan(await openFile(path)), open: () => openFile(path) };
}

/** What the decoder makes of each frame, by its time in the file. Throws when it complains about anything. */
export async function decoded(path: string): Promise<{ times: number[]; frames: string[] }> {
  const args = ['-v', 'error', '-i', path, '-f', 'framemd5', '-fps_mode', 'passthrough', '-'];
  const { stdout, stderr } = await run('ffmpeg', args, { timeout: 60_000, maxBuffer: 64 * 1024 * 1024 });
  if (stderr) throw new Error(`${path}: ${stderr}`);
  const rows = stdout.split('\n').filter((line) => line && !line.startsWith('#'));
  const packets = ['-v', 'error', '-show_entries', 'packet=pts_time', '-of', 'csv=p=0', path];
  const times = (await run('ffprobe', packets, { timeout: 60_000, maxBuffer: 64 * 1024 * 1024 })).stdout;
  return {
    times: times.trim().split('\n').map(Number),
    frames: rows.map((row) => row.split(',').at(-1)?.trim() as string),
  };
}

/** Seconds that the file claims; undefined when it does not. */
export async function claimedDuration(path: string): Promise<number | undefined> {
  const { stdout } = await run('ffprobe', ['-v', 'error', '-show_entries', 'format=duration', '-of', 'csv=p=0', path]);
  return stdout.trim() === 'N/A' ? undefined : Number(stdout);
}

/** How many of our descriptors lead below this folder. */
export function openBelow(folder: string): number {
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // That of the listing itself.
    }
  });
  return links.filter((link) => link.startsWith(folder)).length;
}

/** An EBML element with a size of 8 bytes. */
export function element(id: number, ...payload: (Buffer | number[])[]): Buffer {
  const body = Buffer.concat(payload.map((part) => Buffer.from(part)));
  const size = Buffer.alloc(8);
  size.writeBigUInt64BE((1n << 56n) | BigInt(body.length));
  return Buffer.concat([idBytes(id), size, body]);
}

export function idBytes(id: number): Buffer {
  const hex = id.toString(16);
  return Buffer.from(hex.length % 2 ? `0${hex}` : hex, 'hex');
}
