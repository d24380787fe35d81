import type { Context } from 'koa';
import type { Access } from '../core/access.ts';
import type { SandboxInfo } from '../core/live.ts';
import type { TicketRole } from '../core/ticket.ts';
import { principalOf } from './context.ts';

/** The addresses that Berth hands out: absolute, as the caller can reach them, carrying tickets and never keys. */
export class Urls {
  readonly #access: Access;
  readonly #publicUrl: string | undefined;

  constructor(access: Access, publicUrl: string | undefined) {
    this.#access = access;
    this.#publicUrl = publicUrl;
  }

  automation(ctx: Context, info: SandboxInfo): string {
    return this.ofRole(ctx, info, 'automation');
  }

  /** For control, or for looking where the caller may do no more. */
  livestream(ctx: Context, info: SandboxInfo): string {
    return this.ofRole(ctx, info, viewerRole(ctx));
  }

  live(ctx: Context, info: SandboxInfo): string {
    return this.#url(ctx, 'http', info, '/live', this.#ticket(ctx, info, viewerRole(ctx)));
  }

  target(ctx: Context, info: SandboxInfo, targetId: string): string {
    return this.#url(ctx, 'ws', info, `/devtools/page/${targetId}`, this.#ticket(ctx, info, 'automation'));
  }

  /**
   * Chromium's inspector for one page. With a ticket also where none is needed otherwise: the page has no origin, so it is
   * a stranger to whoever lets in those of this machine.
   */
  inspector(ctx: Context, info: SandboxInfo, targetId: string): string {
    const { id, createdAt, maxLifetimeSeconds } = info.spec;
    const ticket =
      this.#ticket(ctx, info, 'automation') ??
      this.#access.tickets.make(id, 'automation', createdAt + maxLifetimeSeconds * 1000).text;
    const socket = new URL(this.#url(ctx, 'ws', info, `/devtools/page/${targetId}`, ticket));
    const scheme = socket.protocol.slice(0, -1);
    const query = `${scheme}=${encodeURIComponent(socket.href.slice(`${scheme}://`.length))}`;
    return `${this.#base(ctx)}/sandboxes/${id}/inspector/${ticket}/inspector.html?${query}`;
  }

  /** The WebSocket that a ticket of this role opens, with this ticket or one that counts for as long as the sandbox may live. */
  ofRole(ctx: Context, info: SandboxInfo, role: TicketRole, ticket = this.#ticket(ctx, info, role)): string {
    return this.#url(ctx, 'ws', info, role === 'automation' ? '/ws/automation' : '/ws/livestream', ticket);
  }

  /** The page that a ticket of the roles control and view opens. */
  liveWith(ctx: Context, info: SandboxInfo, ticket: string): string {
    return this.#url(ctx, 'http', info, '/live', ticket);
  }

  /** Whether the addresses begin with `https`. */
  isSecure(ctx: Context): boolean {
    return this.#base(ctx).startsWith('https:');
  }

  /** Undefined where none is needed. Whoever came with a ticket gets that one again: it must not live on in another. */
  #ticket(ctx: Context, { spec }: SandboxInfo, role: TicketRole): string | undefined {
    const own = principalOf(ctx).ticket;
    if (own) return own.text;
    if (this.#access.open) return undefined;
    return this.#access.tickets.make(spec.id, role, spec.createdAt + spec.maxLifetimeSeconds * 1000).text;
  }

  #url(ctx: Context, scheme: 'ws' | 'http', info: SandboxInfo, path: string, ticket: string | undefined): string {
    const query = ticket === undefined ? '' : `?ticket=${ticket}`;
    const url = `${this.#base(ctx)}/sandboxes/${info.spec.id}${path}${query}`;
    return scheme === 'ws' ? url.replace(/^http/, 'ws') : url;
  }

  #base(ctx: Context): string {
    return this.#publicUrl ?? `${ctx.protocol}://${ctx.host}`;
  }
}

function viewerRole(ctx: Context): TicketRole {
  return principalOf(ctx).role === 'viewer' ? 'view' : 'control';
}
