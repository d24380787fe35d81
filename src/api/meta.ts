import type { Router } from '@koa/router';

/** What `/readyz` tells of a service that can start sandboxes. */
export interface Readiness {
  /** Where closed recordings go; undefined when they stay on the disk. */
  readonly archive: 'ok' | 'unreachable' | undefined;
}

interface MetaRoutesDeps {
  /** Rejects when no sandboxes can be started. */
  readonly ready: () => Promise<Readiness>;
  readonly openapiYaml: string;
}

/** Health, readiness and the contract itself. */
export function metaRoutes(router: Router, deps: MetaRoutesDeps): void {
  router.get('/health', (ctx) => {
    ctx.body = { status: 'ok' };
  });
  router.get('/readyz', async (ctx) => {
    const { archive } = await deps.ready();
    // Recordings wait on the disk while the archive is away: no reason to send the sandboxes elsewhere.
    ctx.body = { status: archive === 'unreachable' ? 'degraded' : 'ok', ...(archive ? { archive } : {}) };
  });
  router.get('/openapi.yaml', (ctx) => {
    ctx.type = 'application/yaml';
    ctx.body = deps.openapiYaml;
  });
}
