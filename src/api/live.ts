import { createReadStream } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { join } from 'node:path';
import type { Router } from '@koa/router';
import { asksToLook } from '../core/control.ts';
import { AppError } from '../core/errors.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import { principalOf } from './context.ts';
import type { Urls } from './urls.ts';

/** The live view: one page, and the noVNC library beside it. */
export function liveRoutes(
  router: Router,
  deps: { sandboxes: Sandboxes; urls: Urls; novncDir: string; frameAncestors: string },
): void {
  router.get('/sandboxes/:id/live', (ctx) => {
    const info = deps.sandboxes.get(principalOf(ctx), ctx.params.id ?? '');
    if (info.ended)
      throw new AppError('SANDBOX_ENDED', `Sandbox ${info.spec.id} has ended: ${info.ended.endedReason}.`);
    ctx.type = 'text/html';
    ctx.set(
      'Content-Security-Policy',
      "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; connect-src *; img-src data:; " +
        `base-uri 'none'; form-action 'none'; frame-ancestors ${deps.frameAncestors}`,
    );
    const url = new URL(deps.urls.livestream(ctx, info));
    const looks = asksToLook(new URLSearchParams(ctx.querystring));
    if (looks) url.searchParams.set('view_only', 'true');
    ctx.body = livePage(url.href, looks || principalOf(ctx).role === 'viewer');
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

/** Who only looks is kept to it by the gateway; the page spares them the mouse pointer and the keys that go nowhere. */
function livePage(vncUrl: string, viewOnly: boolean): string {
  // JSON in a script: `<` would let a value close the element.
  const url = JSON.stringify(vncUrl).replaceAll('<', '\\u003c');
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Berth live view</title>
<style>html,body{margin:0;height:100%;background:#222;color:#eee;font:14px sans-serif}#screen{height:100%}#note{position:fixed;left:8px;bottom:8px}</style>
<div id="screen"></div><div id="note" role="status">connecting…</div>
<script type="module">
const note = document.getElementById('note');
// Chromium breaks off what it loads when an interface of its machine changes, as one does with every container.
const { default: RFB } = await import('/novnc/core/rfb.js').catch(() => {
  note.textContent = 'The viewer did not load; trying again…';
  setTimeout(() => location.reload(), 1000);
  return new Promise(() => {});
});
const rfb = new RFB(document.getElementById('screen'), ${url});
rfb.scaleViewport = true;
rfb.viewOnly = ${viewOnly};
rfb.addEventListener('connect', () => { note.textContent = ''; });
rfb.addEventListener('disconnect', (e) => { note.textContent = e.detail.clean ? 'The sandbox has ended or the connection was closed.' : 'The connection was lost; reload to try again.'; });
</script>
</html>
`;
}
