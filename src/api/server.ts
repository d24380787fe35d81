import { chmodSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { Router } from '@koa/router';
import Koa, { type Context } from 'koa';
import { type Access, sees } from '../core/access.ts';
import type { Audit, Downloads, Log, TicketMemory } from '../core/contracts.ts';
import type { Counters } from '../core/counters.ts';
import { AppError, errorBody, errorStatus } from '../core/errors.ts';
import type { Events } from '../core/events.ts';
import type { AddressLimits, TenantLimits } from '../core/limits.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import type { Recordings } from '../recordings/recordings.ts';
import type { UploadStatus } from '../recordings/uploader.ts';
import { auditRoutes, recordAudit } from './audit.ts';
import { authenticate } from './authenticate.ts';
import { principalOf } from './context.ts';
import { devToolsRoutes } from './devtools.ts';
import { downloadRoutes } from './downloads.ts';
import { eventRoutes } from './events.ts';
import { frameAncestors, safeHeaders } from './headers.ts';
import { liveRoutes } from './live.ts';
import { metaRoutes, type Readiness } from './meta.ts';
import { metricsRoutes } from './metrics.ts';
import { recordingRoutes } from './recordings.ts';
import { sandboxRoutes } from './sandboxes.ts';
import { sessionRoutes } from './session.ts';
import { ticketRoutes } from './tickets.ts';
import { Urls } from './urls.ts';
import { Validator } from './validate.ts';
import { viewerRoutes } from './viewers.ts';

/** What the API is made of. */
export interface ApiOptions {
  readonly access: Access;
  readonly tickets: TicketMemory;
  readonly audit: Audit;
  readonly sandboxes: Sandboxes;
  readonly recordings: Recordings;
  readonly downloads: Downloads;
  readonly events: Events;
  readonly counters: Counters;
  /** Absent: none. */
  readonly limits?: AddressLimits;
  readonly tenantLimits?: TenantLimits;
  /** Throws when no sandbox could be started now. */
  readonly ready: () => Promise<Readiness>;
  /** How the uploads into the archive stand, where there is one. */
  readonly uploads?: () => UploadStatus;
  readonly openapiYaml: string;
  readonly publicUrl: string | undefined;
  /** Sources as in CSP of those who may frame the live view; absent: see {@link frameAncestors}. */
  readonly frameAncestors?: string | undefined;
  /** Folder of the noVNC library. */
  readonly novncDir: string;
  readonly log: Log;
}

/** The API on its private socket; only the gateway talks to it. */
export class Api {
  readonly #server: Server;
  readonly #socket: string;

  constructor(options: ApiOptions, socket: string) {
    this.#socket = socket;
    // What the gateway lets in has its own headers besides.
    this.#server = createServer({ maxHeaderSize: 32 * 1024 }, buildApp(options).callback());
    // Creation holds its request open for as long as a start may take; the runtime has its own limit.
    this.#server.requestTimeout = 0;
    this.#server.keepAliveTimeout = 60_000;
  }

  listen(): Promise<void> {
    rmSync(this.#socket, { force: true });
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ path: this.#socket }, () => {
        chmodSync(this.#socket, 0o600);
        resolve();
      });
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }
}

function buildApp(options: ApiOptions): Koa {
  // The gateway has removed all that a client may have written into these headers.
  const app = new Koa({ proxy: true, proxyIpHeader: 'X-Real-IP' });
  const urls = new Urls(options.access, options.publicUrl);
  const validator = new Validator(options.openapiYaml);
  const router = new Router();
  // Unanswered errors are already answered and logged by the first middleware.
  app.silent = true;
  app.use(safeHeaders);
  app.use(answerErrors(options.log, options.counters));
  app.use(authenticate(options));
  app.use(recordAudit(options.audit));
  app.use(refuseUnrouted);

  metaRoutes(router, { ready: options.ready, openapiYaml: options.openapiYaml });
  sessionRoutes(router, { access: options.access, urls });
  auditRoutes(router, { audit: options.audit, validator });
  ticketRoutes(router, { ...options, urls, validator });
  sandboxRoutes(router, { sandboxes: options.sandboxes, recordings: options.recordings, urls, validator });
  eventRoutes(router, { sandboxes: options.sandboxes, events: options.events, validator });
  metricsRoutes(router, options);
  const visible = (ctx: Context) => {
    const principal = principalOf(ctx);
    return principal.role === 'admin' ? undefined : (owner: string | undefined) => sees(principal, owner);
  };
  recordingRoutes(router, { recordings: options.recordings, visible });
  downloadRoutes(router, { downloads: options.downloads, sandboxes: options.sandboxes });
  devToolsRoutes(router, { sandboxes: options.sandboxes, urls });
  viewerRoutes(router, { sandboxes: options.sandboxes });
  const framers = options.frameAncestors ?? frameAncestors(options.access.open);
  liveRoutes(router, { sandboxes: options.sandboxes, urls, novncDir: options.novncDir, frameAncestors: framers });

  app.use(router.routes());
  app.use(router.allowedMethods());
  return app;
}

/** Request id, one log line a request, every failure as JSON. */
function answerErrors(log: Log, counters: Counters): Koa.Middleware {
  return async (ctx, next) => {
    const started = performance.now();
    const requestId = ctx.get('x-request-id');
    ctx.state.requestId = requestId;
    ctx.set('X-Request-Id', requestId);
    try {
      await next();
    } catch (err) {
      answerError(ctx, err, requestId);
      counters.refused(err);
      ctx.req.resume(); // Node does this only for a body of which nothing was read
      if (!(err instanceof AppError) || err.status >= 500)
        log.error({ requestId, path: ctx.path, err }, 'request failed');
    } finally {
      const ms = Math.round(performance.now() - started);
      const sandboxId = /^\/sandboxes\/([^/]+)/.exec(ctx.path)?.[1];
      const what = { requestId, ...(sandboxId ? { sandboxId } : {}), method: ctx.method, path: ctx.path };
      log.info({ ...what, status: ctx.status, ms }, 'request');
    }
  };
}

function answerError(ctx: Context, err: unknown, requestId: string): void {
  ctx.status = errorStatus(err);
  if (err instanceof AppError) {
    for (const [name, value] of Object.entries(err.headers)) ctx.set(name, value);
    // The BrowserTool's documented body, and nothing more.
    if (err.errorName === 'INVALID_FILENAME') {
      ctx.body = { error: 'Invalid filename' };
      return;
    }
  }
  ctx.body = errorBody(err, requestId);
}

/** What no route has answered. The router says 405, or 501 for methods it has nowhere, and puts Allow on the response. */
const refuseUnrouted: Koa.Middleware = async (ctx, next) => {
  await next();
  if (ctx.body != null) return;
  if (ctx.status === 404) throw new AppError('NOT_FOUND', `There is nothing at ${ctx.path}.`);
  if (ctx.status === 405 || ctx.status === 501)
    throw new AppError('METHOD_NOT_ALLOWED', `${ctx.path} does not take ${ctx.method}.`);
};
