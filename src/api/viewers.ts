import type { Router } from '@koa/router';
import type { Context } from 'koa';
import { type Control, ticketBearer } from '../core/control.ts';
import { isoTime } from '../core/recording.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import { principalOf } from './context.ts';

/** Who sees a sandbox's screen, and who controls it. */
export function viewerRoutes(router: Router, { sandboxes }: { sandboxes: Sandboxes }): void {
  const controlOf = (ctx: Context & { params: Record<string, string> }): Control => {
    const id = ctx.params.id ?? '';
    sandboxes.get(principalOf(ctx), id);
    return sandboxes.viewers(id);
  };
  /** Whose viewers alone it may touch. */
  const asks = (ctx: Context): string | undefined => {
    const { ticket } = principalOf(ctx);
    return ticket && ticketBearer(ticket);
  };
  const answer = (ctx: Context, control: Control): void => {
    const viewers = control.list().map((viewer) => ({ ...viewer, since: isoTime(viewer.since) }));
    ctx.body = { code: 'SUCCESS', requestId: ctx.state.requestId, data: { control: control.mode, viewers } };
  };

  router.get('/sandboxes/:id/viewers', (ctx) => answer(ctx, controlOf(ctx)));
  router.delete('/sandboxes/:id/viewers/:viewerId', (ctx) => {
    const control = controlOf(ctx);
    control.kick(ctx.params.viewerId ?? '');
    answer(ctx, control);
  });
  router.post('/sandboxes/:id/viewers/:viewerId/control', (ctx) => {
    const control = controlOf(ctx);
    control.give(ctx.params.viewerId ?? '', asks(ctx));
    answer(ctx, control);
  });
  router.delete('/sandboxes/:id/viewers/:viewerId/control', (ctx) => {
    const control = controlOf(ctx);
    control.giveBack(ctx.params.viewerId ?? '', asks(ctx));
    answer(ctx, control);
  });
}
