import type { Context } from 'koa';
import type { OpenedFile } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';

/** A file for a download, whatever it is. */
export interface SentFile extends Pick<OpenedFile, 'size' | 'stream' | 'close'> {
  /** What tells this state of the file from others, in characters that a tag may have. */
  readonly tag: string;
  /** Nobody writes to it any more, so the same tag means the same bytes. Default: it may be written to at any time. */
  readonly isFinal?: boolean;
  readonly type: string;
  /** As the header has it. */
  readonly disposition: string;
}

/** Answers a GET or HEAD from an open file, with one range if one is asked for, and sees to it that the file is closed. */
export async function sendFile(ctx: Context, file: SentFile): Promise<void> {
  // Only a body takes the file over: koa destroys it when the response ends, however it ends.
  let streamed = false;
  try {
    streamed = answer(ctx, file);
  } finally {
    if (!streamed) await file.close();
  }
}

/** True when the body streams the file. */
function answer(ctx: Context, file: SentFile): boolean {
  const etag = `${file.isFinal ? '' : 'W/'}"${file.tag}"`;
  const fresh = noneMatch(ctx.get('If-None-Match'), etag);
  const range = fresh || !ifRange(ctx.get('If-Range'), etag) ? undefined : requestedRange(ctx, file.size);

  // Headers come after everything that can throw, so that an error body does not wear them.
  ctx.set('ETag', etag);
  ctx.set('Accept-Ranges', 'bytes');
  if (fresh) {
    ctx.status = 304;
    return false;
  }
  ctx.status = range ? 206 : 200;
  if (range) ctx.set('Content-Range', `bytes ${range.start}-${range.end}/${file.size}`);
  const { start, end } = range ?? { start: 0, end: file.size - 1 };
  ctx.set('Content-Type', file.type);
  ctx.set('Content-Disposition', file.disposition);
  // Kept so that a browser may go on with a download that was cut, but asked about each time.
  ctx.set('Cache-Control', 'private, no-cache');
  ctx.length = end - start + 1;
  if (ctx.method === 'HEAD') return false;
  if (file.size === 0) {
    ctx.body = Buffer.alloc(0);
    return false;
  }
  ctx.body = file.stream(start, end);
  return true;
}

/** RFC 9110 13.1.2, by weak comparison. Our own tags have no comma, so splitting at commas cannot miss one. */
function noneMatch(header: string, etag: string): boolean {
  if (header.trim() === '*') return true;
  const opaque = (tag: string) => tag.trim().replace(/^W\//, '');
  return header.split(',').some((tag) => opaque(tag) === opaque(etag));
}

/** RFC 9110 13.1.5: a range is for who has this very state. Weak tags never match, nor do dates, since we send none. */
function ifRange(header: string, etag: string): boolean {
  return header === '' || (header === etag && !etag.startsWith('W/'));
}

/**
 * The single byte range that the request asks for, or undefined for the whole file: RFC 9110 14.2 lets a server ignore
 * ranges, and that is what malformed and multiple ones get. Throws RANGE_NOT_SATISFIABLE past the end.
 */
function requestedRange(ctx: Context, size: number): { start: number; end: number } | undefined {
  // HEAD has no ranges (14.2).
  if (ctx.method !== 'GET') return undefined;
  const match = /^bytes=(\d*)-(\d*)$/i.exec(ctx.get('Range').trim());
  const [, from = '', to = ''] = match ?? [];
  if (from === '' && to === '') return undefined;
  const isSuffix = from === '';
  const start = isSuffix ? Math.max(0, size - Number(to)) : Number(from);
  const end = isSuffix || to === '' ? size - 1 : Math.min(Number(to), size - 1);
  if (!isSuffix && to !== '' && Number(to) < start) return undefined;
  // The last bytes of an empty file are all of it, and Content-Range has no way to say so.
  if (isSuffix && size === 0 && Number(to) > 0) return undefined;
  if (start < size) return { start, end };
  throw new AppError('RANGE_NOT_SATISFIABLE', `The file has ${size} bytes.`, {
    'Content-Range': `bytes */${size}`,
  });
}
