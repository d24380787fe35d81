import type { Context } from 'koa';
import type { Access, TicketRole } from '../core/access.ts';
import type { SandboxInfo } from '../core/live.ts';

/** The addresses that Berth hands out: absolute, as the caller can reach them, carrying tickets and never keys. */
export class Urls {
  readonly #access: Access;
  readonly #publicUrl: string | undefined;

  constructor(access: Access, publicUrl: string | undefined) {
    this.#access = access;
    this.#publicUrl = publicUrl;
  }

  automation(ctx: Context, info: SandboxInfo): string {
    return this.#url(ctx, 'ws', info, 'automation', '/ws/automation');
  }

  livestream(ctx: Context, info: SandboxInfo): string {
    return this.#url(ctx, 'ws', info, 'control', '/ws/livestream');
  }

  live(ctx: Context, info: SandboxInfo): string {
    return this.#url(ctx, 'http', info, 'control', '/live');
  }

  target(ctx: Context, info: SandboxInfo, targetId: string): string {
    return this.#url(ctx, 'ws', info, 'automation', `/devtools/page/${targetId}`);
  }

  #url(ctx: Context, scheme: 'ws' | 'http', info: SandboxInfo, role: TicketRole, path: string): string {
    // Behind a proxy the Host header is not enough; BERTH_PUBLIC_URL is what counts there.
    const base = this.#publicUrl ?? `http://${ctx.host}`;
    const expiresAt = info.spec.createdAt + info.spec.maxLifetimeSeconds * 1000;
    const ticket = this.#access.ticket(info.spec.id, role, expiresAt);
    const url = `${base}/sandboxes/${info.spec.id}${path}${ticket === undefined ? '' : `?ticket=${ticket}`}`;
    return scheme === 'ws' ? url.replace(/^http/, 'ws') : url;
  }
}
