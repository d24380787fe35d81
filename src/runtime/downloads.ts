import { lstat, readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { isUnfinished } from '../core/download.ts';

/** How often the folder is looked at, in milliseconds. What is written between two looks comes on top of the limit. */
const LOOK_EVERY_MS = 1000;
/** The least that a file counts for, in bytes, so that very many empty ones have a limit too. */
const LEAST = 4096;

/** A megabyte of the limit, in bytes. */
export const MIB = 1024 * 1024;

/** Calls `onOver` once when the folder, which may become another one, takes more than the limit, in bytes. Answers what stops the looking. */
export function watchDownloads(folder: () => string, limit: number, onOver: () => void): () => void {
  let stopped = false;
  let timer: NodeJS.Timeout;
  const look = async (): Promise<void> => {
    const taken = await sizeOf(folder());
    if (stopped) return;
    if (taken > limit) onOver();
    else wait();
  };
  const wait = (): void => {
    timer = setTimeout(() => void look(), LOOK_EVERY_MS);
  };
  wait();
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}

/**
 * Removes the unfinished files, and of the others the newest, until the folder takes no more than the limit: what was
 * there before the one that was too much stays. Folders inside are left alone, since we may be root and their owner
 * could swap them for links while we walk; Chromium makes none.
 */
export async function trimDownloads(folder: string, limit: number): Promise<void> {
  const files: { path: string; unfinished: boolean; mtimeMs: number; bytes: number }[] = [];
  for (const name of await namesIn(folder)) {
    const path = join(folder, name);
    const stats = await lstat(path).catch(() => undefined);
    if (stats?.isFile())
      files.push({ path, unfinished: isUnfinished(name), mtimeMs: stats.mtimeMs, bytes: weigh(stats) });
  }
  files.sort((a, b) => Number(b.unfinished) - Number(a.unfinished) || b.mtimeMs - a.mtimeMs);
  let taken = await sizeOf(folder);
  for (const { path, unfinished, bytes } of files) {
    if (!unfinished && taken <= limit) return;
    await unlink(path).catch(() => {}); // gone meanwhile
    taken -= bytes;
  }
}

/** What everything in the folder takes on disk, in bytes. It may change while it is counted. */
async function sizeOf(folder: string): Promise<number> {
  let taken = 0;
  for (const name of await namesIn(folder)) {
    const path = join(folder, name);
    const stats = await lstat(path).catch(() => undefined);
    if (stats) taken += weigh(stats);
    if (stats?.isDirectory()) taken += await sizeOf(path);
  }
  return taken;
}

/** Blocks, not the length: a file that is written in several places at once has holes at first. */
function weigh(stats: { readonly blocks: number }): number {
  return Math.max(LEAST, stats.blocks * 512);
}

/** Empty for a folder that is gone or that we may not read. */
async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch(() => []);
}
