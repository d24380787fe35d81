import type Koa from 'koa';
import { SAFE_HEADERS } from '../core/headers.ts';

/** A year: whoever came by TLS once does not come without it. */
const ALWAYS_TLS = 'max-age=31536000';

/** First in line: what every answer carries, until the route says otherwise. */
export const safeHeaders: Koa.Middleware = (ctx, next) => {
  ctx.set({ ...SAFE_HEADERS });
  // For `localhost` it would lock out all the other servers of the reader's own machine.
  if (ctx.secure && !/^(.*\.)?localhost$/i.test(ctx.hostname)) ctx.set('Strict-Transport-Security', ALWAYS_TLS);
  return next();
};

/** Who may frame the live view when nobody has said: anybody who has its ticket, or while there are no tickets, this machine's own pages. */
export function frameAncestors(open: boolean): string {
  return open ? "'self' http://localhost:* http://127.0.0.1:* https://localhost:* https://127.0.0.1:*" : '*';
}
