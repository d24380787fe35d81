import { constants, type Stats } from 'node:fs';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { Readable } from 'node:stream';

/** All that one reader of a file holds in memory; a slow client pauses the reading. */
const READ_BUFFER_BYTES = 64 * 1024;

/** NOFOLLOW: a planted symlink must not lead to other files. NONBLOCK: opening a planted FIFO must not wait for its writer. */
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** What opening answers when the name is missing or is a symlink, a socket or below something that is no folder. */
const NOT_A_FILE = ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'];

/**
 * Opens for reading what `isWanted` says is the file, judged by what was opened and not by its name. Undefined when it is
 * not, when no file of the name is there, or opening fails with a code of `alsoMissing`. The caller closes it.
 */
export async function openFile(
  path: string,
  isWanted: (stats: Stats) => boolean,
  alsoMissing: readonly string[] = [],
): Promise<{ readonly handle: FileHandle; readonly stats: Stats } | undefined> {
  const handle = await unless([...NOT_A_FILE, ...alsoMissing], open(path, OPEN_FLAGS));
  if (!handle) return undefined;
  let wanted = false;
  try {
    const stats = await handle.stat();
    wanted = isWanted(stats);
    return wanted ? { handle, stats } : undefined;
  } finally {
    if (!wanted) await handle.close();
  }
}

/** False when nothing of the name is there. */
export async function unlinked(path: string): Promise<boolean> {
  const removed = unlink(path).then(() => true);
  return (await unless(['ENOENT'], removed)) ?? false;
}

/** Bytes from `start` to `end` inclusive; closes the file when it ends or is destroyed. */
export function streamOf(handle: FileHandle, start: number, end: number): Readable {
  // An empty range has no inclusive end; createReadStream would refuse it.
  if (end < start) {
    const empty = new Readable({
      read: () => {},
      destroy: (err, done) => void handle.close().then(() => done(err), done),
    });
    empty.push(null);
    return empty;
  }
  return handle.createReadStream({ start, end, autoClose: true, highWaterMark: READ_BUFFER_BYTES });
}

/** The result, or undefined when it failed with one of these codes. */
export async function unless<T>(codes: readonly string[], result: Promise<T>): Promise<T | undefined> {
  try {
    return await result;
  } catch (err) {
    if (codes.includes((err as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw err;
  }
}
