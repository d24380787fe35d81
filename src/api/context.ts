import type { Context } from 'koa';
import type { Principal } from '../core/access.ts';

/** Who is asking; the server has found out before any route runs. */
export function principalOf(ctx: { readonly state: Context['state'] }): Principal {
  return ctx.state.principal as Principal;
}

/** Where the client is, as the gateway says. */
export function addressOf(ctx: Context): string {
  return ctx.get('x-real-ip');
}

/** The path of the request without the ticket that stands in one of them: for logs. */
export function loggedPath(ctx: { readonly path: string }): string {
  return ctx.path.replace(/^(\/sandboxes\/[^/]+\/inspector\/)[^/]+/, '$1…');
}
