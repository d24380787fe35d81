import type { Router, RouterContext } from '@koa/router';
import type { Downloads } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import { isoTime } from '../core/recording.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import { principalOf } from './context.ts';
import { sendFile } from './files.ts';

interface DownloadRoutesDeps {
  readonly downloads: Downloads;
  readonly sandboxes: Sandboxes;
}

/**
 * What a sandbox's browser downloaded, while it runs and for as long as it is remembered. The router hands over names
 * that it could not decode as they came, which no file is listed under.
 */
export function downloadRoutes(router: Router, { downloads, sandboxes }: DownloadRoutesDeps): void {
  /** Throws SANDBOX_NOT_FOUND for a sandbox of another tenant, before anything is said about its files. */
  const sandboxOf = (ctx: RouterContext): string => sandboxes.get(principalOf(ctx), ctx.params.id ?? '').spec.id;
  const success = (ctx: RouterContext, data: object): void => {
    ctx.body = { code: 'SUCCESS', requestId: ctx.state.requestId, data };
  };

  router.get('/sandboxes/:id/downloads', async (ctx) => {
    const found = await downloads.list(sandboxOf(ctx));
    success(ctx, { downloads: found.map((file) => ({ ...file, modifiedAt: isoTime(file.modifiedAt) })) });
  });

  router.get('/sandboxes/:id/downloads/:name', async (ctx) => {
    const id = sandboxOf(ctx);
    const name = ctx.params.name ?? '';
    const file = await downloads.open(id, name);
    if (!file) throw notFound();
    const tag = `${file.size.toString(16)}-${file.modifiedAt.toString(16)}`;
    await sendFile(ctx, { ...file, tag, type: 'application/octet-stream', disposition: attachment(name) });
  });

  router.delete('/sandboxes/:id/downloads/:name', async (ctx) => {
    const id = sandboxOf(ctx);
    const name = ctx.params.name ?? '';
    if (!(await downloads.remove(id, name))) throw notFound();
    success(ctx, { name });
  });
}

/** RFC 6266: a plain name for old programs, and the real one as RFC 5987 writes it. No byte of a name gets out unescaped. */
export function attachment(name: string): string {
  const plain = name.replace(/[^\x20-\x7e]|["\\%]/gu, '_');
  // encodeURIComponent leaves four characters alone that an ext-value may not have.
  const real = encodeURIComponent(name).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  return `attachment; filename="${plain}"; filename*=UTF-8''${real}`;
}

function notFound(): AppError {
  return new AppError('DOWNLOAD_NOT_FOUND', 'This sandbox has no download of that name.');
}
