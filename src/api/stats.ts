import type { Router } from '@koa/router';
import { assertAdmin } from '../core/access.ts';
import { isoTime } from '../core/recording.ts';
import { SAMPLE_EVERY_MS, type Stats } from '../core/stats.ts';
import { principalOf } from './context.ts';

/** `GET /stats`: the last hour in samples. For admins, as `/metrics`: it counts over all tenants. */
export function statsRoutes(router: Router, { stats }: { stats: Stats }): void {
  router.get('/stats', (ctx) => {
    assertAdmin(principalOf(ctx));
    const { startedAt, maxSandboxes, freeMemoryMb, pool } = stats.now;
    ctx.body = {
      code: 'SUCCESS',
      requestId: ctx.state.requestId,
      data: {
        startedAt: isoTime(startedAt),
        maxSandboxes,
        ...(freeMemoryMb === undefined ? {} : { freeMemoryMb: Math.round(freeMemoryMb) }),
        pool,
        everySeconds: SAMPLE_EVERY_MS / 1000,
        samples: stats.samples.map((sample) => ({ ...sample, at: isoTime(sample.at) })),
      },
    };
  });
}
