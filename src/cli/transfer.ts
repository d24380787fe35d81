import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as WebStream } from 'node:stream/web';
import type { Transfer } from '../client/client.ts';
import { EXIT, Failure, misuse } from './failure.ts';
import type { Io } from './io.ts';
import type { Progress } from './progress.ts';

/** Where a file goes: `named` itself, or into it when it is a folder (or says so with a slash at its end) under the name `own`. */
export async function placeFor(named: string | undefined, own: string): Promise<string> {
  // The name comes from the service; whatever it says, it stays in the folder.
  const safe = basename(own);
  if (named === undefined) return safe;
  const found = await stat(named).catch(() => undefined);
  if (found?.isDirectory()) return join(named, safe);
  if (named.endsWith('/')) throw misuse(`There is no folder ${named}.`);
  const folder = await stat(dirname(named)).catch(() => undefined);
  if (!folder?.isDirectory()) throw misuse(`There is no folder ${dirname(named)} for ${basename(named)}.`);
  return named;
}

/** Writes a file whole or not at all. */
export async function writeWhole(file: string, content: Uint8Array): Promise<void> {
  await beside(file, (part) => writeFile(part, content));
}

/** Receives a file whole or not at all, or, with `-`, into stdout. Answers its bytes. */
export async function receive(io: Io, file: string, transfer: Transfer, progress: Progress): Promise<number> {
  const { body, bytes, exact } = transfer;
  let done = 0;
  progress.transfer(file === '-' ? 'receiving' : basename(file), () => done, bytes);
  const source = Readable.fromWeb(body as WebStream);
  const counted = async function* (chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
    for await (const chunk of chunks) {
      done += chunk.length;
      yield chunk;
    }
    if (exact && bytes !== undefined && done !== bytes)
      throw new Failure(EXIT.failed, `Only ${done} of ${bytes} bytes came.`);
  };
  if (file === '-') await pipeline(source, counted, io.stdout, { signal: io.signal, end: false });
  else await beside(file, (part) => pipeline(source, counted, createWriteStream(part), { signal: io.signal }));
  return done;
}

async function beside(file: string, write: (part: string) => Promise<unknown>): Promise<void> {
  const part = join(dirname(file), `.${basename(file)}.${randomBytes(4).toString('hex')}.part`);
  try {
    await write(part);
    await rename(part, file);
  } catch (err) {
    await rm(part, { force: true });
    const { code, syscall } = err as NodeJS.ErrnoException;
    // Of the disk, not of the way: told by the file's own name, not the one that it had for the time being.
    if (syscall !== undefined && /^(EACCES|EROFS|ENOSPC|EISDIR|EPERM|ENOENT|ENOTDIR|EDQUOT)$/.test(code ?? ''))
      throw new Failure(EXIT.failed, `${file} cannot be written (${code}).`, err);
    throw err;
  }
}
