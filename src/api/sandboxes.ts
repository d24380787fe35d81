import type { Router } from '@koa/router';
import type { Context } from 'koa';
import { sees } from '../core/access.ts';
import type { EgressSpec } from '../core/egress.ts';
import { AppError } from '../core/errors.ts';
import type { ChangeInput, CreateInput } from '../core/input.ts';
import type { SandboxInfo } from '../core/live.ts';
import { isoTime } from '../core/recording.ts';
import { DEFAULTS, hasEnded, type SandboxState } from '../core/sandbox.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import type { Recordings } from '../recordings/recordings.ts';
import { readJson } from './body.ts';
import { principalOf } from './context.ts';
import type { Urls } from './urls.ts';
import type { Validator } from './validate.ts';

interface SandboxRoutesDeps {
  readonly sandboxes: Sandboxes;
  readonly recordings: Recordings;
  readonly urls: Urls;
  readonly validator: Validator;
}

/** Sandboxes: create, look, end, record. */
export function sandboxRoutes(router: Router, { sandboxes, recordings, urls, validator }: SandboxRoutesDeps): void {
  const answer = (ctx: Context, info: SandboxInfo, status = 200): void => {
    ctx.status = status;
    ctx.body = { code: 'SUCCESS', requestId: ctx.state.requestId, data: sandboxView(ctx, info, urls) };
  };
  const idOf = (ctx: Context & { params?: Record<string, string> }): string => ctx.params?.id ?? '';

  router.post('/sandboxes', async (ctx) => {
    const { wait } = validator.query<{ wait: boolean }>('createSandbox', new URLSearchParams(ctx.querystring));
    const headers = validator.headers<{ 'idempotency-key'?: string }>('createSandbox', ctx.headers);
    const given = await readJson(ctx.req);
    const input = validator.body<CreateInput>('createSandbox', given === undefined ? {} : given);
    const gone = new AbortController();
    // Of the response: the request's own 'close' comes as soon as its body was read.
    ctx.res.once('close', () => gone.abort());
    const key = headers['idempotency-key'];
    answer(ctx, await sandboxes.create(principalOf(ctx), input, wait, gone.signal, key), wait ? 201 : 202);
  });

  router.get('/sandboxes', (ctx) => {
    const params = new URLSearchParams(ctx.querystring);
    const query = validator.query<{ status?: SandboxState; page: number; page_size: number }>('listSandboxes', params);
    const wanted = [...params].filter(([name]) => name.startsWith('metadata.'));
    const found = sandboxes.list(
      principalOf(ctx),
      (info) =>
        (query.status === undefined || info.state === query.status) &&
        wanted.every(([name, value]) => info.spec.metadata[name.slice('metadata.'.length)] === value),
    );
    const from = (query.page - 1) * query.page_size;
    const page = found.slice(from, from + query.page_size).map((info) => sandboxView(ctx, info, urls));
    const data = { sandboxes: page, total: found.length, page: query.page, pageSize: query.page_size };
    ctx.body = { code: 'SUCCESS', requestId: ctx.state.requestId, data };
  });

  router.get('/sandboxes/:id', (ctx) => answer(ctx, sandboxes.get(principalOf(ctx), idOf(ctx))));
  router.patch('/sandboxes/:id', async (ctx) => {
    const input = validator.body<ChangeInput>('changeSandbox', await readJson(ctx.req));
    answer(ctx, await sandboxes.change(principalOf(ctx), idOf(ctx), input));
  });
  router.get('/sandboxes/:id/pages', async (ctx) => {
    const pages = await sandboxes.pages(principalOf(ctx), idOf(ctx));
    ctx.body = { code: 'SUCCESS', requestId: ctx.state.requestId, data: { pages } };
  });
  router.delete('/sandboxes/:id/pages/:page', async (ctx) => {
    await sandboxes.closePage(principalOf(ctx), idOf(ctx), ctx.params.page ?? '');
    ctx.status = 204;
  });
  router.post('/sandboxes/:id/stop', async (ctx) => answer(ctx, await sandboxes.stop(principalOf(ctx), idOf(ctx))));
  router.delete('/sandboxes/:id', async (ctx) => {
    const params = new URLSearchParams(ctx.querystring);
    const query = validator.query<{ recordings: boolean }>('deleteSandbox', params);
    const principal = principalOf(ctx);
    const info = await sandboxes.stop(principal, idOf(ctx));
    if (query.recordings) await recordings.removeAll(idOf(ctx), (owner) => sees(principal, owner));
    answer(ctx, info);
  });
  router.post('/sandboxes/:id/recordings/start', async (ctx) =>
    answer(ctx, await sandboxes.setRecording(principalOf(ctx), idOf(ctx), true)),
  );
  router.post('/sandboxes/:id/recordings/stop', async (ctx) =>
    answer(ctx, await sandboxes.setRecording(principalOf(ctx), idOf(ctx), false)),
  );

  router.get('/sandboxes/:id/health', (ctx) => {
    const { state, status, ended } = sandboxes.get(principalOf(ctx), idOf(ctx));
    if (ended) throw new AppError('SANDBOX_ENDED', `Sandbox ${idOf(ctx)} has ended: ${ended.endedReason}.`);
    if (state !== 'READY') throw new AppError('SANDBOX_NOT_READY', `Sandbox ${idOf(ctx)} is ${state}.`);
    if (!status?.devtools) throw new AppError('BROWSER_UNREACHABLE', 'The browser is down and being started again.');
    ctx.body = { status: 'ok' };
  });
}

/** A sandbox as callers see it: the BrowserTool's names, then ours. */
function sandboxView(ctx: Context, info: SandboxInfo, urls: Urls): object {
  const { spec, status, ended } = info;
  const updatedAt = ended?.endedAt ?? status?.readyAt ?? spec.createdAt;
  const over = hasEnded(info.state) || ended !== undefined;
  const mayUse = principalOf(ctx).role !== 'viewer';
  return {
    sandboxId: spec.id,
    templateName: spec.templateName,
    status: info.state,
    createdAt: isoTime(spec.createdAt),
    lastUpdatedAt: isoTime(updatedAt),
    ...(ended ? { endedAt: isoTime(ended.endedAt), endedReason: ended.endedReason } : {}),
    sandboxIdleTimeoutSeconds: spec.idleTimeoutSeconds,
    maxLifetimeSeconds: spec.maxLifetimeSeconds,
    connectTimeoutSeconds: spec.connectTimeoutSeconds,
    onBrowserClose: spec.onBrowserClose,
    activity: spec.activity,
    control: spec.control ?? DEFAULTS.control,
    expiresAt: isoTime(status?.expiresAt ?? spec.createdAt + spec.maxLifetimeSeconds * 1000),
    ...(status?.idleDeadline && !over ? { idleDeadline: isoTime(status.idleDeadline) } : {}),
    clients: over ? 0 : (status?.clients ?? 0),
    viewers: over ? 0 : (status?.viewers ?? 0),
    recording: { mode: spec.recording, ...(over || !status ? { state: 'off' } : status.recorder) },
    viewport: spec.viewport,
    metadata: spec.metadata,
    ...(spec.egress ? { egress: egressView(spec.egress) } : {}),
    browserRestarts: status?.browserRestarts ?? 0,
    startStages: status?.stages ?? {},
    // The addresses carry tickets, for looking alone where the caller may do no more.
    ...(!over && mayUse ? { cdpUrl: urls.automation(ctx, info) } : {}),
    ...(over ? {} : { vncUrl: urls.livestream(ctx, info), liveViewUrl: urls.live(ctx, info) }),
  };
}

/** Without the proxy's credentials, sealed as they are. */
function egressView({ proxy, ...lists }: EgressSpec): EgressSpec {
  return proxy ? { ...lists, proxy: { url: proxy.url } } : lists;
}
