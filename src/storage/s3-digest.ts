import { createHash } from 'node:crypto';
import type { OpenedFile } from '../core/contracts.ts';

/** Bytes of one part of an upload, and what one upload holds in memory. S3 takes at most 10,000 parts: 78 GiB. */
export const PART_BYTES = 8 * 1024 * 1024;

/** What a file on disk has to become in the archive. */
export interface Digests {
  readonly size: number;
  /** In hex. */
  readonly sha256: string;
  /**
   * ETags that only these bytes can have, without quotes: the MD5 of the whole, and what S3 makes of the MD5s of parts
   * of {@link PART_BYTES}. Servers that encrypt with keys of their own, among others, give ETags that prove nothing.
   */
  readonly etags: readonly string[];
}

/** Reads the file once. Throws when it is not as long as it said. */
export async function digestsOf(file: OpenedFile, signal: AbortSignal): Promise<Digests> {
  const sha256 = createHash('sha256');
  const md5 = createHash('md5');
  const parts: Buffer[] = [];
  let part = createHash('md5');
  let size = 0;
  for await (const chunk of file.stream(0, file.size - 1) as AsyncIterable<Buffer>) {
    signal.throwIfAborted();
    sha256.update(chunk);
    md5.update(chunk);
    for (let rest = chunk; rest.length > 0; ) {
      const piece = rest.subarray(0, PART_BYTES - (size % PART_BYTES));
      part.update(piece);
      size += piece.length;
      rest = rest.subarray(piece.length);
      if (size % PART_BYTES > 0) continue;
      parts.push(part.digest());
      part = createHash('md5');
    }
  }
  if (size !== file.size) throw new Error(`the file ended after ${size} of ${file.size} bytes`);
  if (size % PART_BYTES > 0) parts.push(part.digest());
  const ofParts = createHash('md5').update(Buffer.concat(parts)).digest('hex');
  return { size, sha256: sha256.digest('hex'), etags: [md5.digest('hex'), `${ofParts}-${parts.length}`] };
}

/** What went wrong with the file while it was uploaded, as `cause`: not the archive's fault. */
export class Unreadable extends Error {}

/** Bytes from `start` to the end of `into`, or fewer where the file ends before. Throws {@link Unreadable}, also when the file is cut meanwhile. */
export async function readPart(open: () => Promise<OpenedFile>, start: number, into: Buffer): Promise<Buffer> {
  try {
    const file = await open();
    const wanted = Math.min(into.length, file.size - start);
    let filled = 0;
    for await (const chunk of file.stream(start, start + wanted - 1) as AsyncIterable<Buffer>) {
      filled += chunk.copy(into, filled);
    }
    if (filled !== wanted) throw new Error(`the file has ${start + filled} bytes, not ${file.size}`);
    return into.subarray(0, wanted);
  } catch (cause) {
    throw new Unreadable('the file cannot be read', { cause });
  }
}
