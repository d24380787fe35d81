import type { Router } from '@koa/router';
import type { Template } from '../core/input.ts';
import { DEFAULTS } from '../core/sandbox.ts';

/** What a template leaves out, by the names of `POST /sandboxes`. */
const { idleTimeoutSeconds: sandboxIdleTimeoutSeconds, ...others } = DEFAULTS;

/** `GET /templates`: their names, and what a create with each of them gets where it asks for nothing. */
export function templateRoutes(router: Router, { templates }: { templates: ReadonlyMap<string, Template> }): void {
  const all = [...templates].map(([name, fields]) => ({
    templateName: name,
    defaults: { sandboxIdleTimeoutSeconds, ...others, ...fields },
  }));
  router.get('/templates', (ctx) => {
    ctx.body = { code: 'SUCCESS', requestId: ctx.state.requestId, data: { templates: all } };
  });
}
