import type { Router, RouterContext } from '@koa/router';
import type { Context } from 'koa';
import { AppError } from '../core/errors.ts';
import type { Recordings, Visible } from '../recordings/recordings.ts';
import { sendFile } from './files.ts';

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
      // ffmpeg goes back and patches a segment's header when it closes it, which these two numbers may not show.
      const tag = `${file.size.toString(16)}-${file.createdAt.toString(16)}`;
      await sendFile(ctx, {
        ...file,
        tag,
        type: 'video/x-matroska',
        disposition: `attachment; filename="${filename}"`,
      });
    });

    router.delete(`${base}/:filename`, async (ctx) => {
      const filename = ctx.params.filename ?? '';
      await recordings.remove(filename, withinScope(ctx));
      ctx.body = { message: 'Recording file deleted successfully', filename };
    });
  }
}

function queryInt(ctx: Context, field: string, fallback: number, max = Number.MAX_SAFE_INTEGER): number {
  const given = ctx.query[field];
  if (given === undefined) return fallback;
  const value = typeof given === 'string' && /^\d+$/.test(given) ? Number(given) : 0;
  if (value >= 1 && value <= max) return value;
  const wanted = max === Number.MAX_SAFE_INTEGER ? 'of at least 1' : `from 1 to ${max}`;
  throw new AppError('INVALID_REQUEST', `${field}: must be an integer ${wanted}`);
}
