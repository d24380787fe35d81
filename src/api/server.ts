import { chmodSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { Router } from '@koa/router';
import Koa, { type Context } from 'koa';
import { type Access, sees } from '../core/access.ts';
import type { Audit, Downloads, Log, TicketMemory } from '../core/contracts.ts';
import type { Counters } from '../core/counters.ts';
import { AppError, errorBody, errorStatus } from '../core/errors.ts';
import type { Events } from '../core/events.ts';
import type { Template } from '../core/input.ts';
import type { AddressLimits, TenantLimits } from '../core/limits.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import type { Stats } from '../core/stats.ts';
import type { Recordings } from '../recordings/recordings.ts';
import type { UploadStatus } from '../recordings/uploader.ts';
import { auditRoutes, recordAudit } from './audit.ts';
import { authenticate } from './authenticate.ts';
import { loggedPath, principalOf } from './context.ts';
import { devToolsRoutes } from './devtools.ts';
import { downloadRoutes } from './downloads.ts';
import { eventRoutes } from './events.ts';
import { frameAncestors, safeHeaders } from './headers.ts';
import { inspectorRoutes } from './inspector.ts';
import { answeredByLivePage, liveRoutes } from './live.ts';
import { metaRoutes, type Readiness } from './meta.ts';
import { metricsRoutes } from './metrics.ts';
import { Pages, pageRoutes } from './pages.ts';
import { recordingRoutes } from './recordings.ts';
import { sandboxRoutes } from './sandboxes.ts';
import { screenshotRoutes } from './screenshots.ts';
import { sessionRoutes } from './session.ts';
import { statsRoutes } from './stats.ts';
import { templateRoutes } from './templates.ts';
import { ticketRoutes } from './tickets.ts';
import { Urls } from './urls.ts';
import { Validator } from './validate.ts';
import { viewerRoutes } from './viewers.ts';

/** What the console is made of, beside what programs use. */
export interface ConsoleOptions {
  readonly pages: Pages;
  readonly templates: ReadonlyMap<string, Template>;
  readonly stats: Stats;
}

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
  /** For people, and absent where there are none: what the build has made of src/console, and what that shows. */
  readonly console?: ConsoleOptions;
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
  const pages = options.console?.pages ?? new Pages('');
  const framers = options.frameAncestors ?? frameAncestors(options.access.open);
  app.use(safeHeaders);
  app.use(
    answerErrors(options.log, options.counters, (ctx, status) => answeredByLivePage(ctx, status, pages, framers)),
  );
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
  inspectorRoutes(router, { sandboxes: options.sandboxes });
  devToolsRoutes(router, { sandboxes: options.sandboxes, urls });
  viewerRoutes(router, { sandboxes: options.sandboxes });
  liveRoutes(router, {
    sandboxes: options.sandboxes,
    urls,
    pages,
    novncDir: options.novncDir,
    frameAncestors: framers,
  });
  screenshotRoutes(router, { sandboxes: options.sandboxes, validator });
  if (options.console) consoleRoutes(router, options.console);

  app.use(router.routes());
  app.use(router.allowedMethods());
  return app;
}

function consoleRoutes(router: Router, options: ConsoleOptions): void {
  templateRoutes(router, options);
  statsRoutes(router, options);
  pageRoutes(router, options);
}

/** Request id, one log line a request, every failure as JSON, but where `asPage` has answered it for a person. */
function answerErrors(log: Log, counters: Counters, asPage: (ctx: Context, status: number) => boolean): Koa.Middleware {
  return async (ctx, next) => {
    const started = performance.now();
    const requestId = ctx.get('x-request-id');
    ctx.state.requestId = requestId;
    ctx.set('X-Request-Id', requestId);
    try {
      await next();
    } catch (err) {
      if (!asPage(ctx, errorStatus(err))) answerError(ctx, err, requestId);
      counters.refused(err);
      ctx.req.resume(); // Node does this only for a body of which nothing was read
      if (!(err instanceof AppError) || err.status >= 500)
        log.error({ requestId, path: loggedPath(ctx), err }, 'request failed');
    } finally {
      const ms = Math.round(performance.now() - started);
      const sandboxId = /^\/sandboxes\/([^/]+)/.exec(ctx.path)?.[1];
      const what = { requestId, ...(sandboxId ? { sandboxId } : {}), method: ctx.method, path: loggedPath(ctx) };
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
  if (ctx.status === 404) throw new AppError('NOT_FOUND', `There is nothing at ${loggedPath(ctx)}.`);
  if (ctx.status === 405 || ctx.status === 501)
    throw new AppError('METHOD_NOT_ALLOWED', `${ctx.path} does not take ${ctx.method}.`);
};
