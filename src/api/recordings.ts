import type { Router, RouterContext } from '@koa/router';
import type { Context } from 'koa';
import type { OpenedFile } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import type { Recordings, Visible } from '../recordings/recordings.ts';

export interface RecordingRoutesDeps {
  readonly recordings: Recordings;
  /** What this caller may see. */
  readonly visible: (ctx: Context) => Visible;
}

const MAX_PAGE_SIZE = 100;
const DEFAULT_PAGE_SIZE = 20;

/**
 * The BrowserTool's recording routes with its bare bodies, and the same below `/sandboxes/:id`, where files of other
 * sandboxes do not exist. The router hands over names that it could not decode as they came; no valid name has a `%`.
 */
export function recordingRoutes(router: Router, { recordings, visible }: RecordingRoutesDeps): void {
  const withinScope = (ctx: RouterContext): Visible => {
    const id = ctx.params.id;
    const may = visible(ctx);
    return id === undefined ? may : (sandboxId) => sandboxId === id && may(sandboxId);
  };

  for (const base of ['/recordings', '/sandboxes/:id/recordings']) {
    router.get(base, async (ctx) => {
      const id = ctx.params.id;
      const page = queryInt(ctx, 'page', 1);
      const pageSize = queryInt(ctx, 'page_size', DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE);
      const sandbox = id === undefined ? {} : { sandboxId: id };
      ctx.body = await recordings.list({ page, pageSize, ...sandbox, visible: visible(ctx) });
    });

    router.get(`${base}/:filename`, async (ctx) => {
      const filename = ctx.params.filename ?? '';
      const file = await recordings.open(filename, withinScope(ctx));
      // Only a body takes the file over: koa destroys it when the response ends, however it ends.
      let streamed = false;
      try {
        streamed = download(ctx, filename, file);
      } finally {
        if (!streamed) await file.close();
      }
    });

    router.delete(`${base}/:filename`, async (ctx) => {
      const filename = ctx.params.filename ?? '';
      await recordings.remove(filename, withinScope(ctx));
      ctx.body = { message: 'Recording file deleted successfully', filename };
    });
  }
}

/** Answers a GET or HEAD from an open file; true when the body streams it. */
function download(ctx: Context, filename: string, file: OpenedFile): boolean {
  // Weak: ffmpeg goes back and patches a segment's header when it closes it, which these two numbers may not show.
  const etag = `W/"${file.size.toString(16)}-${file.createdAt.toString(16)}"`;
  const fresh = noneMatch(ctx.get('If-None-Match'), etag);
  const range = fresh ? undefined : requestedRange(ctx, file.size);

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
  ctx.set('Content-Type', 'video/x-matroska');
  ctx.set('Content-Disposition', `attachment; filename="${filename}"`);
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

/**
 * The single byte range that the request asks for, or undefined for the whole file: RFC 9110 14.2 lets a server ignore
 * ranges, and that is what malformed and multiple ones get. Throws RANGE_NOT_SATISFIABLE past the end.
 */
function requestedRange(ctx: Context, size: number): { start: number; end: number } | undefined {
  // HEAD has no ranges (14.2), and If-Range needs a strong validator, which a growing file has not (13.1.5).
  if (ctx.method !== 'GET' || ctx.get('If-Range') !== '') return undefined;
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
  throw new AppError('RANGE_NOT_SATISFIABLE', `The recording has ${size} bytes.`, {
    'Content-Range': `bytes */${size}`,
  });
}

function queryInt(ctx: Context, field: string, fallback: number, max = Number.MAX_SAFE_INTEGER): number {
  const given = ctx.query[field];
  if (given === undefined) return fallback;
  const value = typeof given === 'string' && /^\d+$/.test(given) ? Number(given) : 0;
  if (value >= 1 && value <= max) return value;
  const wanted = max === Number.MAX_SAFE_INTEGER ? 'of at least 1' : `from 1 to ${max}`;
  throw new AppError('INVALID_REQUEST', `${field}: must be an integer ${wanted}`);
}
