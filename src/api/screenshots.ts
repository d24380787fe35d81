import type { Router } from '@koa/router';
import type { Sandboxes } from '../core/sandboxes.ts';
import { principalOf } from './context.ts';
import type { Validator } from './validate.ts';

/** `GET /sandboxes/{id}/screenshot`: what a viewer would see now. */
export function screenshotRoutes(
  router: Router,
  { sandboxes, validator }: { readonly sandboxes: Sandboxes; readonly validator: Validator },
): void {
  router.get('/sandboxes/:id/screenshot', async (ctx) => {
    const { width } = validator.query<{ width: number }>('getScreenshot', new URLSearchParams(ctx.querystring));
    const picture = await sandboxes.screenshot(principalOf(ctx), ctx.params.id ?? '', width);
    ctx.set('Cache-Control', 'no-store');
    ctx.set('X-Content-Type-Options', 'nosniff');
    ctx.type = 'image/jpeg';
    ctx.body = picture;
  });
}
