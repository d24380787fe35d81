import type { Router } from '@koa/router';
import type Koa from 'koa';
import type { Context } from 'koa';
import { assertAdmin, auditedAs } from '../core/access.ts';
import type { Audit, AuditAction, AuditEntry, AuditQuery } from '../core/contracts.ts';
import { isoTime } from '../core/recording.ts';
import { addressOf, principalOf } from './context.ts';
import type { Validator } from './validate.ts';

/** What an answer's `data` may say about what was done. */
interface Said {
  readonly sandboxId?: string;
  readonly ticketId?: string;
  readonly role?: string;
}

interface Row {
  readonly method: string;
  readonly path: RegExp;
  readonly action: AuditAction;
  /** Only a first look counts: players ask for a file in many ranges. */
  readonly fromStart?: true;
}

const row = (method: string, path: RegExp, action: AuditAction): Row => ({ method, path, action });
const look = (path: RegExp, action: AuditAction): Row => ({ method: 'GET', path, action, fromStart: true });

/**
 * What goes into the audit log when it has succeeded. Of a path, `id` is the sandbox and `name` what else is named; a new
 * sandbox's and ticket's are in the answer. WebSockets are the gateway's to record.
 */
const AUDITED: readonly Row[] = [
  row('POST', /^\/session$/, 'session.begin'),
  row('DELETE', /^\/session$/, 'session.end'),
  row('POST', /^\/sandboxes$/, 'sandbox.create'),
  row('PATCH', /^\/sandboxes\/(?<id>[^/]+)$/, 'sandbox.change'),
  row('DELETE', /^\/sandboxes\/(?<id>[^/]+)$/, 'sandbox.stop'),
  row('POST', /^\/sandboxes\/(?<id>[^/]+)\/stop$/, 'sandbox.stop'),
  row('DELETE', /^\/sandboxes\/(?<id>[^/]+)\/pages\/(?<name>[^/]+)$/, 'page.close'),
  row('DELETE', /^\/sandboxes\/(?<id>[^/]+)\/viewers\/(?<name>[^/]+)$/, 'viewer.kick'),
  row('POST', /^\/sandboxes\/(?<id>[^/]+)\/viewers\/(?<name>[^/]+)\/control$/, 'control.give'),
  row('DELETE', /^\/sandboxes\/(?<id>[^/]+)\/viewers\/(?<name>[^/]+)\/control$/, 'control.take'),
  row('POST', /^\/sandboxes\/(?<id>[^/]+)\/tickets$/, 'ticket.create'),
  row('DELETE', /^\/sandboxes\/(?<id>[^/]+)\/tickets(\/(?<name>[^/]+))?$/, 'ticket.revoke'),
  row('POST', /^\/sandboxes\/(?<id>[^/]+)\/recordings\/start$/, 'recording.start'),
  row('POST', /^\/sandboxes\/(?<id>[^/]+)\/recordings\/stop$/, 'recording.stop'),
  row('DELETE', /^(\/sandboxes\/(?<id>[^/]+))?\/recordings\/(?<name>[^/]+)$/, 'recording.delete'),
  look(/^(\/sandboxes\/(?<id>[^/]+))?\/recordings\/(?<name>[^/]+\.mkv)$/, 'recording.download'),
  look(/^(\/sandboxes\/(?<id>[^/]+))?\/recordings\/(?<name>[^/]+)\/export$/, 'recording.download'),
  row('DELETE', /^\/sandboxes\/(?<id>[^/]+)\/downloads\/(?<name>[^/]+)$/, 'download.delete'),
  look(/^\/sandboxes\/(?<id>[^/]+)\/downloads\/(?<name>[^/]+)$/, 'download.download'),
];

/** Longest name that is written down, in characters. */
const MAX_NAME = 200;

/** Writes down who has done what, once it is done. */
export function recordAudit(audit: Audit): Koa.Middleware {
  return async (ctx, next) => {
    await next();
    if (ctx.status >= 400) return;
    for (const { method, path, action, fromStart } of AUDITED) {
      const match = method === ctx.method ? path.exec(ctx.path) : null;
      if (!match) continue;
      if (fromStart && !/^(bytes=0-.*)?$/.test(ctx.get('range'))) return;
      const data = (ctx.body as { data?: Said } | undefined)?.data;
      const sandboxId = match.groups?.id ?? data?.sandboxId;
      const detail = detailOf(match.groups?.name, action === 'ticket.create' ? data : undefined);
      return audit.record({
        action,
        requestId: ctx.state.requestId,
        ...auditedAs(principalOf(ctx)),
        address: addressOf(ctx),
        ...(sandboxId === undefined ? {} : { sandboxId }),
        ...(detail === undefined ? {} : { detail }),
      });
    }
  };
}

function detailOf(name: string | undefined, made: Said | undefined): AuditEntry['detail'] | undefined {
  if (name !== undefined) return { name: name.slice(0, MAX_NAME) };
  if (made?.ticketId === undefined || made.role === undefined) return undefined;
  return { ticketId: made.ticketId, role: made.role };
}

interface AuditParameters extends Omit<AuditQuery, 'since' | 'until'> {
  readonly since?: string;
  readonly until?: string;
}

/** The audit log, for those who run the service. */
export function auditRoutes(router: Router, { audit, validator }: { audit: Audit; validator: Validator }): void {
  router.get('/audit', async (ctx: Context) => {
    assertAdmin(principalOf(ctx));
    const { since, until, ...rest } = validator.query<AuditParameters>(
      'listAudit',
      new URLSearchParams(ctx.querystring),
    );
    const entries = await audit.find({
      ...rest,
      ...(since === undefined ? {} : { since: Date.parse(since) }),
      ...(until === undefined ? {} : { until: Date.parse(until) }),
    });
    const data = { entries: entries.map((entry) => ({ ...entry, at: isoTime(entry.at) })) };
    ctx.body = { code: 'SUCCESS', requestId: ctx.state.requestId, data };
  });
}
