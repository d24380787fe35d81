import type { Router, RouterContext } from '@koa/router';
import { type Access, assertMayChange } from '../core/access.ts';
import type { TicketMemory, TicketRecord } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import type { TenantLimits } from '../core/limits.ts';
import type { SandboxInfo } from '../core/live.ts';
import { isoTime } from '../core/recording.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import type { TicketRole } from '../core/ticket.ts';
import { readJson } from './body.ts';
import { principalOf } from './context.ts';
import type { Urls } from './urls.ts';
import type { Validator } from './validate.ts';

interface TicketRoutesDeps {
  readonly access: Access;
  readonly tickets: TicketMemory;
  /** Absent: none. */
  readonly tenantLimits?: TenantLimits;
  readonly sandboxes: Sandboxes;
  readonly urls: Urls;
  readonly validator: Validator;
}

interface TicketInput {
  readonly role: TicketRole;
  readonly ttlSeconds?: number;
  readonly oneTime?: boolean;
}

/** How long a ticket counts that nobody said it of, in seconds. */
const DEFAULT_TTL_SECONDS = 3600;
/** Tickets of one sandbox that are listed at a time. */
const MAX_TICKETS = 1000;

/** Tickets of one sandbox: make one to hand on, list them, take them back. */
export function ticketRoutes(router: Router, deps: TicketRoutesDeps): void {
  const { access, tickets, tenantLimits, sandboxes, urls, validator } = deps;
  const infoOf = (ctx: RouterContext): SandboxInfo => sandboxes.get(principalOf(ctx), ctx.params.id ?? '');
  const success = (ctx: RouterContext, data: object, status = 200): void => {
    ctx.status = status;
    ctx.body = { code: 'SUCCESS', requestId: ctx.state.requestId, data };
  };

  router.post('/sandboxes/:id/tickets', async (ctx) => {
    const input = validator.body<TicketInput>('createTicket', await readJson(ctx.req));
    const info = infoOf(ctx);
    const { id } = info.spec;
    tenantLimits?.ticket(principalOf(ctx).tenant);
    if (info.ended) throw new AppError('SANDBOX_ENDED', `Sandbox ${id} has ended: ${info.ended.endedReason}.`);
    if (tickets.list(id).length >= MAX_TICKETS) {
      throw new AppError('INVALID_REQUEST', `The sandbox has ${MAX_TICKETS} tickets already; revoke some.`);
    }
    const { role, ttlSeconds = DEFAULT_TTL_SECONDS, oneTime = false } = input;
    const ticket = access.tickets.make(id, role, Date.now() + ttlSeconds * 1000, oneTime);
    await tickets.add(ticket);
    const addresses = {
      url: urls.ofRole(ctx, info, role, ticket.text),
      ...(role === 'automation' ? {} : { liveViewUrl: urls.liveWith(ctx, info, ticket.text) }),
    };
    success(ctx, { ...view({ ...ticket, used: false }), ticket: ticket.text, ...addresses }, 201);
  });

  router.get('/sandboxes/:id/tickets', (ctx) => {
    const info = infoOf(ctx);
    assertMayChange(principalOf(ctx)); // who may not make one need not know of them
    success(ctx, { tickets: tickets.list(info.spec.id).map(view) });
  });

  router.delete('/sandboxes/:id/tickets', async (ctx) => {
    const { id } = infoOf(ctx).spec;
    await tickets.revokeAll(id);
    sandboxes.endTicket(id);
    ctx.status = 204;
  });

  router.delete('/sandboxes/:id/tickets/:ticketId', async (ctx) => {
    const { id } = infoOf(ctx).spec;
    const ticketId = ctx.params.ticketId ?? '';
    if (!(await tickets.revoke(ticketId, id))) {
      throw new AppError('NOT_FOUND', 'This sandbox has no such ticket, or it has expired or was revoked before.');
    }
    sandboxes.endTicket(id, ticketId);
    ctx.status = 204;
  });
}

function view({ id, role, oneTime, createdAt, expiresAt, used }: TicketRecord): object {
  return { ticketId: id, role, oneTime, createdAt: isoTime(createdAt), expiresAt: isoTime(expiresAt), used };
}
