import type { Router } from '@koa/router';
import type { Context } from 'koa';
import { type Access, SESSION_COOKIE } from '../core/access.ts';
import { isoTime } from '../core/recording.ts';
import { principalOf } from './context.ts';
import type { Urls } from './urls.ts';

/** Where a browser signs in with a key, to be known by a cookie that its scripts cannot read. */
export function sessionRoutes(router: Router, { access, urls }: { access: Access; urls: Urls }): void {
  const answer = (ctx: Context, expiresAt?: number): void => {
    const { tenant, role } = principalOf(ctx);
    const data = {
      tenant,
      role,
      open: access.open,
      ...(expiresAt === undefined ? {} : { expiresAt: isoTime(expiresAt) }),
    };
    ctx.body = { code: 'SUCCESS', requestId: ctx.state.requestId, data };
  };
  const setCookie = (ctx: Context, value: string, expires: Date): void => {
    const attributes = `Path=/; Expires=${expires.toUTCString()}; HttpOnly; SameSite=Strict`;
    ctx.set('Set-Cookie', `${SESSION_COOKIE}=${value}; ${attributes}${urls.isSecure(ctx) ? '; Secure' : ''}`);
  };

  router.get('/session', (ctx) => answer(ctx));
  router.post('/session', (ctx) => {
    const session = access.session(principalOf(ctx));
    if (session) setCookie(ctx, session.value, new Date(session.expiresAt));
    answer(ctx, session?.expiresAt);
  });
  router.delete('/session', (ctx) => {
    setCookie(ctx, '', new Date(0));
    ctx.status = 204;
  });
}
