import type { Router, RouterContext } from '@koa/router';
import type { Context } from 'koa';
import { AppError } from '../core/errors.ts';
import type { ListQuery, Recordings, Scope, Visible } from '../recordings/recordings.ts';
import { sendFile } from './files.ts';

/** What the routes of recordings need. */
export interface RecordingRoutesDeps {
  readonly recordings: Recordings;
  /** What this caller may see; undefined for who may see everything. */
  readonly visible: (ctx: Context) => Visible | undefined;
}

const MAX_PAGE_SIZE = 100;
const DEFAULT_PAGE_SIZE = 20;
const TYPES = { mkv: 'video/x-matroska', mp4: 'video/mp4' } as const;

/**
 * The BrowserTool's recording routes with its bare bodies and ours beside them, and the same below `/sandboxes/:id`, where
 * files of other sandboxes do not exist. The router hands over names that it could not decode as they came; no valid name
 * has a `%`.
 */
export function recordingRoutes(router: Router, { recordings, visible }: RecordingRoutesDeps): void {
  const scopeOf = (ctx: RouterContext): Scope => {
    const id = ctx.params.id;
    const may = visible(ctx);
    return { ...(may ? { visible: may } : {}), ...(id === undefined ? {} : { sandboxId: id }) };
  };

  // Before the names, which would take it for one.
  router.get('/sandboxes/:id/recordings/timeline', async (ctx) => {
    const sandboxId = ctx.params.id ?? '';
    ctx.body = { sandboxId, recordings: await recordings.timeline(sandboxId, visible(ctx)) };
  });

  router.get('/recordings/sessions', async (ctx) => {
    const sandboxId = ctx.query.sandboxId;
    const scope = { ...scopeOf(ctx), ...(typeof sandboxId === 'string' ? { sandboxId } : {}) };
    ctx.body = await recordings.sessions({ ...listQuery(ctx), ...scope });
  });

  for (const base of ['/recordings', '/sandboxes/:id/recordings']) {
    router.get(base, async (ctx) => {
      ctx.body = await recordings.list({ ...listQuery(ctx), ...scopeOf(ctx) });
    });

    router.get(`${base}/:filename`, async (ctx) => {
      const filename = ctx.params.filename ?? '';
      // An address is signed for one method.
      const elsewhere = ctx.method === 'GET' ? await recordings.linkTo(filename, scopeOf(ctx)) : undefined;
      if (elsewhere !== undefined) {
        ctx.redirect(elsewhere);
        ctx.status = 307;
        // A later answer may be the file itself, and this address is good for minutes only.
        return;
      }
      const file = await recordings.open(filename, scopeOf(ctx));
      // While it is written this does not tell all states apart: ffmpeg goes back and patches the header at the end.
      const tag = `${file.size.toString(16)}-${file.createdAt.toString(16)}`;
      // Players sit in pages of their owners' own. Whoever gets here has shown a key, which a page of others has not: the cookie does
      // not count for it, and a service without keys turns it away.
      ctx.set('Cross-Origin-Resource-Policy', 'cross-origin');
      await sendFile(ctx, { ...file, tag, type: TYPES.mkv, disposition: `attachment; filename="${filename}"` });
    });

    router.get(`${base}/:filename/poster`, async (ctx) => {
      const picture = await recordings.poster(ctx.params.filename ?? '', scopeOf(ctx));
      ctx.type = 'image/jpeg';
      ctx.body = picture;
    });

    router.get(`${base}/:sessionId/export`, async (ctx) => {
      const sessionId = ctx.params.sessionId ?? '';
      await sendExport(ctx, recordings, sessionId, scopeOf(ctx));
    });

    router.delete(`${base}/:filename`, async (ctx) => {
      const filename = ctx.params.filename ?? '';
      await recordings.remove(filename, scopeOf(ctx));
      ctx.body = { message: 'Recording file deleted successfully', filename };
    });
  }
}

async function sendExport(ctx: Context, recordings: Recordings, sessionId: string, scope: Scope): Promise<void> {
  const format = queryWord(ctx, 'format', ['mkv', 'mp4']) ?? 'mkv';
  const { stream, length, estimatedLength } = await recordings.export(sessionId, format, scope);
  ctx.set('Content-Type', TYPES[format]);
  ctx.set('Cross-Origin-Resource-Policy', 'cross-origin');
  ctx.set('Content-Disposition', `attachment; filename="${sessionId}.${format}"`);
  if (length === undefined) ctx.set('Berth-Estimated-Length', String(estimatedLength));
  ctx.status = 200;
  if (ctx.method === 'HEAD') {
    if (length !== undefined) ctx.length = length;
    stream.on('error', () => {}); // of no use to anybody now
    stream.destroy();
    return;
  }
  // Half a file must not look like a whole one, and koa only tells of the error.
  stream.once('error', () => ctx.res.destroy());
  ctx.body = stream;
  if (length !== undefined) ctx.length = length;
}

function listQuery(ctx: RouterContext): ListQuery {
  const since = queryTime(ctx, 'since');
  const until = queryTime(ctx, 'until');
  const status = queryWord(ctx, 'status', ['recording', 'completed']);
  const metadata = [...new URLSearchParams(ctx.querystring)]
    .filter(([name]) => name.startsWith('metadata.'))
    .map(([name, value]) => [name.slice('metadata.'.length), value] as const);
  return {
    page: queryInt(ctx, 'page', 1),
    pageSize: queryInt(ctx, 'page_size', DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE),
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
    ...(status === undefined ? {} : { status }),
    metadata,
  };
}

function queryInt(ctx: Context, field: string, fallback: number, max = Number.MAX_SAFE_INTEGER): number {
  const given = ctx.query[field];
  if (given === undefined) return fallback;
  const value = typeof given === 'string' && /^\d+$/.test(given) ? Number(given) : 0;
  if (value >= 1 && value <= max) return value;
  const wanted = max === Number.MAX_SAFE_INTEGER ? 'of at least 1' : `from 1 to ${max}`;
  throw new AppError('INVALID_REQUEST', `${field}: must be an integer ${wanted}`);
}

/** RFC 3339's date-time, which is what our own answers have. */
const TIME = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/;

/** Unix milliseconds. */
function queryTime(ctx: Context, field: string): number | undefined {
  const given = ctx.query[field];
  if (given === undefined) return undefined;
  // A plus that nobody has encoded comes as a space.
  const text = typeof given === 'string' ? given.replace(/ (?=\d\d:\d\d$)/, '+') : '';
  const at = TIME.test(text) ? Date.parse(text.toUpperCase()) : Number.NaN;
  if (!Number.isNaN(at)) return at;
  throw new AppError('INVALID_REQUEST', `${field}: must be a date and time such as 2026-01-31T12:00:00Z`);
}

function queryWord<T extends string>(ctx: Context, field: string, words: readonly T[]): T | undefined {
  const given = ctx.query[field];
  if (given === undefined) return undefined;
  const word = words.find((candidate) => candidate === given);
  if (word !== undefined) return word;
  throw new AppError('INVALID_REQUEST', `${field}: must be one of ${words.join(', ')}`);
}
