import type { Router } from '@koa/router';

/** Health, readiness and the contract itself. */
export function metaRoutes(router: Router, deps: { ready: () => Promise<void>; openapiYaml: string }): void {
  router.get('/health', (ctx) => {
    ctx.body = { status: 'ok' };
  });
  router.get('/readyz', async (ctx) => {
    await deps.ready();
    ctx.body = { status: 'ok' };
  });
  router.get('/openapi.yaml', (ctx) => {
    ctx.type = 'application/yaml';
    ctx.body = deps.openapiYaml;
  });
}
