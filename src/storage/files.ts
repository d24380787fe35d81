import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { Readable } from 'node:stream';

/** All that one reader of a file holds in memory; a slow client pauses the reading. */
const READ_BUFFER_BYTES = 64 * 1024;

/** NOFOLLOW: a planted symlink must not lead to other files. NONBLOCK: opening a planted FIFO must not wait for its writer. */
export const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** What opening answers when the name is missing or is a symlink, a socket or below something that is no folder. */
export const NOT_A_FILE = ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'];

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
