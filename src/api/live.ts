import { createReadStream } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { join } from 'node:path';
import type { Router } from '@koa/router';
import type { Context } from 'koa';
import { AppError } from '../core/errors.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import { principalOf } from './context.ts';
import type { Pages } from './pages.ts';
import type { Urls } from './urls.ts';

interface LiveRoutesDeps {
  readonly sandboxes: Sandboxes;
  readonly urls: Urls;
  readonly pages: Pages;
  readonly novncDir: string;
  /** Sources as in CSP of those who may frame the live view. */
  readonly frameAncestors: string;
}

const LIVE = /^\/sandboxes\/[^/]+\/live\/?$/;

/** The live view: one page, what it asks for when it is open, and the noVNC library for pages of others. */
export function liveRoutes(router: Router, deps: LiveRoutesDeps): void {
  router.get('/sandboxes/:id/live', (ctx) => {
    const info = deps.sandboxes.get(principalOf(ctx), ctx.params.id ?? '');
    if (info.ended)
      throw new AppError('SANDBOX_ENDED', `Sandbox ${info.spec.id} has ended: ${info.ended.endedReason}.`);
    ctx.vary('Accept');
    if (ctx.accepts('html', 'json') === 'html') return sendLivePage(ctx, deps.pages, deps.frameAncestors);
    const data = {
      sandboxId: info.spec.id,
      status: info.state,
      role: principalOf(ctx).role === 'viewer' ? 'view' : 'control',
      viewport: info.spec.viewport,
      vncUrl: deps.urls.livestream(ctx, info),
    };
    ctx.set('Cache-Control', 'no-store');
    ctx.body = { code: 'SUCCESS', requestId: ctx.state.requestId, data };
  });

  router.get('/novnc/*path', async (ctx) => {
    const file = join(deps.novncDir, ctx.params.path ?? '');
    const real = await realpath(file).catch(() => undefined);
    if (!real?.startsWith(`${await realpath(deps.novncDir)}/`) || !real.endsWith('.js')) {
      throw new AppError('NOT_FOUND', `There is nothing at ${ctx.path}.`);
    }
    ctx.type = 'text/javascript';
    ctx.set('Cache-Control', 'public, max-age=3600');
    ctx.body = createReadStream(real);
  });
}

function sendLivePage(ctx: Context, pages: Pages, frameAncestors: string): void {
  pages.send(ctx, 'live.html', ctx.path.endsWith('/') ? '../../../console/' : '../../console/', frameAncestors);
}

/**
 * A person who opens a live view that is refused gets the page with the status of the refusal: it asks for the sentence
 * itself, says it, and offers what helps. False where it is not a person who asks.
 */
export function answeredByLivePage(ctx: Context, status: number, pages: Pages, frameAncestors: string): boolean {
  if (ctx.method !== 'GET' || !LIVE.test(ctx.path) || ctx.accepts('json', 'html') !== 'html') return false;
  sendLivePage(ctx, pages, frameAncestors);
  ctx.status = status;
  return true;
}
