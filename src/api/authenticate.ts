import type Koa from 'koa';
import type { Context } from 'koa';
import { type Access, assertMayChange, isRefusal, isTicket, type Principal } from '../core/access.ts';
import type { Audit } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import type { AddressLimits } from '../core/limits.ts';
import { SANDBOX_ID } from '../core/sandbox.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import type { TicketRole } from '../core/ticket.ts';
import { assertSameSandbox } from '../core/tickets.ts';
import { addressOf, loggedPath } from './context.ts';

/** Who is let in by whom. */
export interface AuthenticateDeps {
  readonly access: Access;
  readonly sandboxes: Pick<Sandboxes, 'find'>;
  readonly audit: Audit;
  /** Of what comes from one address; absent: none. */
  readonly limits?: AddressLimits;
}

/** Paths that anybody may read: they say nothing about sandboxes. */
const PUBLIC_PATHS = /^\/(|health|readyz|openapi\.yaml|docs\/?|console(\/.*)?|novnc\/.*)$/;
/** Whoever signs in or out changes nothing but where they are signed in. */
const SESSION_PATH = '/session';

/** What tickets open here; everything else takes a key. The first group is the sandbox. */
const TICKET_PATHS: readonly (readonly [RegExp, readonly TicketRole[]])[] = [
  [/^\/sandboxes\/([^/]+)\/live(?:\/|$)/, ['control', 'view']],
  [/^\/sandboxes\/([^/]+)\/json(?:\/|$)/, ['automation']],
  // Who controls may see who else is there, and ask for control or give it back.
  [/^\/sandboxes\/([^/]+)\/viewers(?:\/[^/]+\/control)?\/?$/, ['control']],
  [/^\/sandboxes\/([^/]+)\/inspector(?:\/|$)/, ['automation']],
];

/** The inspector's own files are asked for by addresses that it makes, so its ticket stands in the path. */
const INSPECTOR = /^\/sandboxes\/([^/]+)\/inspector\/([^/]+)\//;

/** Who asks, or 401; a ticket opens only what belongs to its sandbox and role. */
export function authenticate(deps: AuthenticateDeps): Koa.Middleware {
  return async (ctx, next) => {
    if (!PUBLIC_PATHS.test(ctx.path)) {
      try {
        ctx.state.principal = principalFor(deps, ctx);
      } catch (err) {
        if (isRefusal(err)) {
          const detail = { to: `${ctx.method} ${loggedPath(ctx)}`, why: err.message };
          deps.audit.record({
            action: 'access.refused',
            requestId: ctx.state.requestId,
            address: addressOf(ctx),
            detail,
          });
        }
        throw err;
      }
    }
    await next();
  };
}

function principalFor({ access, sandboxes, limits }: AuthenticateDeps, ctx: Context): Principal {
  const from = { method: ctx.method, headers: ctx.headers, query: new URLSearchParams(ctx.querystring) };
  const inspector = INSPECTOR.exec(ctx.path);
  if (inspector) from.query.set('ticket', inspector[2] as string);
  const reading = /^(GET|HEAD|OPTIONS)$/.test(ctx.method);
  const identify = () => bearerOf(access, sandboxes, ctx.path, from);
  const principal = limits ? limits.authenticating(addressOf(ctx), identify) : identify();
  // Whatever the route: no other method changes anything.
  if (!reading && ctx.path !== SESSION_PATH) assertMayChange(principal);
  return principal;
}

function bearerOf(
  access: Access,
  sandboxes: AuthenticateDeps['sandboxes'],
  path: string,
  from: Parameters<Access['authenticateFor']>[0],
): Principal {
  for (const [pattern, roles] of TICKET_PATHS) {
    const id = pattern.exec(path)?.[1];
    if (id === undefined) continue;
    const bearer = access.authenticateFor(from, id, roles);
    if (!isTicket(bearer)) return bearer;
    const info = SANDBOX_ID.test(id) ? sandboxes.find(id) : undefined;
    if (!info) throw new AppError('SANDBOX_NOT_FOUND', `sandbox not found: ${id}`);
    assertSameSandbox(bearer, info.spec.createdAt);
    // The bearer acts for the owner, as far as these paths go.
    return { tenant: info.spec.owner, role: bearer.role === 'view' ? 'viewer' : 'user', ticket: bearer };
  }
  return access.authenticate(from);
}
