import { Agent, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Router, RouterContext } from '@koa/router';
import httpProxy from 'http-proxy';
import { assertMayChange, SECRET_PARAMETERS } from '../core/access.ts';
import type { Way } from '../core/contracts.ts';
import { connectTo } from '../core/endpoint.ts';
import { AppError } from '../core/errors.ts';
import type { SandboxInfo } from '../core/live.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import { principalOf } from './context.ts';
import type { Urls } from './urls.ts';

interface Target {
  id?: string;
  webSocketDebuggerUrl?: string;
  devtoolsFrontendUrl?: string;
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** A browser that takes longer to answer a discovery request is stuck, in milliseconds. */
const ANSWER_LIMIT_MS = 10_000;
/** Most bytes of an answer: the protocol has two million, a list of tabs their addresses, of up to two million each. */
const MAX_ANSWER = 64 * 1024 * 1024;

/** DevTools discovery of one sandbox: what Chromium answers, with its inner addresses replaced by public ones. */
export function devToolsRoutes(router: Router, { sandboxes, urls }: { sandboxes: Sandboxes; urls: Urls }): void {
  const proxy = new DiscoveryProxy();

  const ask = async (ctx: RouterContext, path: string): Promise<Answer & { info: SandboxInfo }> => {
    const id = ctx.params.id ?? '';
    const info = sandboxes.get(principalOf(ctx), id);
    // Discovery opens and closes tabs and answers with tickets.
    assertMayChange(principalOf(ctx));
    const attachment = await sandboxes.attach(id, false, AbortSignal.timeout(ANSWER_LIMIT_MS));
    try {
      return { info, ...(await proxy.ask(ctx.req, ctx.res, attachment.way, path)) };
    } finally {
      attachment.detach();
    }
  };
  /** What the browser says in JSON, as it should; one that has just gone, or is not itself any more, says something else. */
  const askJson = async <T>(ctx: RouterContext, path: string): Promise<{ info: SandboxInfo; said: T }> => {
    const { info, status, text } = await ask(ctx, path);
    try {
      if (status !== 200) throw new Error(`status ${status}`);
      return { info, said: JSON.parse(text) as T };
    } catch (err) {
      throw unreachable(err as Error);
    }
  };
  const rewritten = (ctx: RouterContext, info: SandboxInfo, target: Target): Target => {
    // Chromium's own address of it is on the Internet, and leads back to the sandbox's private one.
    const { devtoolsFrontendUrl: _, ...rest } = target;
    if (target.id === undefined) return { ...rest, webSocketDebuggerUrl: urls.automation(ctx, info) };
    const url = urls.target(ctx, info, target.id);
    return { ...rest, webSocketDebuggerUrl: url, devtoolsFrontendUrl: urls.inspector(ctx, info, target.id) };
  };

  router.get('/sandboxes/:id/json/version', async (ctx) => {
    const { info, said } = await askJson<Target>(ctx, '/json/version');
    ctx.body = rewritten(ctx, info, said);
  });
  for (const path of ['/sandboxes/:id/json', '/sandboxes/:id/json/list']) {
    router.get(path, async (ctx) => {
      const { info, said } = await askJson<Target[]>(ctx, '/json/list');
      ctx.body = said.map((target) => rewritten(ctx, info, target));
    });
  }
  router.put('/sandboxes/:id/json/new', async (ctx) => {
    const { info, said } = await askJson<Target>(ctx, `/json/new?${newTabAddress(ctx.querystring)}`);
    ctx.body = rewritten(ctx, info, said);
  });
  router.get('/sandboxes/:id/json/protocol', async (ctx) => {
    const { text } = await ask(ctx, '/json/protocol');
    ctx.type = 'application/json';
    ctx.body = text;
  });
  for (const verb of ['activate', 'close']) {
    router.get(`/sandboxes/:id/json/${verb}/:target`, async (ctx) => {
      const { status, text } = await ask(ctx, `/json/${verb}/${encodeURIComponent(ctx.params.target ?? '')}`);
      if (status === 404) throw new AppError('NOT_FOUND', text.trim());
      ctx.body = text;
    });
  }
}

const NOT_FOR_THE_TAB: ReadonlySet<string> = new Set([...SECRET_PARAMETERS, 'tenantId']);

/** `PUT /json/new?<address>`: the whole query is the address, but for our own credentials. */
function newTabAddress(query: string): string {
  return query
    .split('&')
    .filter((part) => !NOT_FOR_THE_TAB.has(part.split('=', 1)[0] as string))
    .join('&');
}

/** The sandbox must not see whose key it was, Chromium refuses foreign origins, and http-proxy passes over much for an `Expect`. */
const CALLERS_HEADERS = ['authorization', 'x-api-key', 'agentrun-access-token', 'cookie', 'origin', 'expect'];
/** What the gateway says of the caller; the answer's addresses are still made from it. */
const GATEWAYS_HEADERS = ['x-real-ip', 'x-forwarded-proto'];

/** Connects into one sandbox. */
class WayAgent extends Agent {
  readonly #way: Way;

  constructor(way: Way) {
    super();
    this.#way = way;
  }

  override createConnection(): Socket {
    return connectTo(this.#way.endpoint);
  }
}

/** Collects Chromium's answers whole, since they have to be rewritten. */
class DiscoveryProxy {
  readonly #proxy = httpProxy.createProxyServer({
    selfHandleResponse: true,
    changeOrigin: true,
    ignorePath: true,
    proxyTimeout: ANSWER_LIMIT_MS,
  });
  readonly #waiting = new WeakMap<IncomingMessage, (answer: IncomingMessage) => void>();

  constructor() {
    this.#proxy.on('proxyReq', (asked) => {
      for (const name of GATEWAYS_HEADERS) asked.removeHeader(name);
    });
    this.#proxy.on('proxyRes', (answer, req) => this.#waiting.get(req)?.(answer));
  }

  /** Throws BROWSER_UNREACHABLE. */
  ask(req: IncomingMessage, res: ServerResponse, way: Way, path: string): Promise<Answer> {
    for (const name of CALLERS_HEADERS) delete req.headers[name];
    return new Promise((resolve, reject) => {
      const fail = (err: Error): void => reject(unreachable(err));
      // http-proxy tells nobody of a request that ends because its caller went away.
      res.once('close', () => fail(new Error('the caller went away')));
      this.#waiting.set(req, (answer) => {
        const chunks: Buffer[] = [];
        let size = 0;
        answer.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > MAX_ANSWER) answer.destroy(new Error(`it has more than ${MAX_ANSWER} bytes to say`));
          else chunks.push(chunk);
        });
        answer.on('error', fail);
        answer.on('end', () => resolve({ status: answer.statusCode ?? 502, text: Buffer.concat(chunks).toString() }));
      });
      const headers = way.secret === undefined ? {} : { 'x-berth-secret': way.secret };
      // Chromium answers only to `localhost` or an address in Host.
      // Chromium's answer to HEAD has nothing to rewrite in it; Koa leaves the body of ours away.
      const method = req.method === 'HEAD' ? 'GET' : (req.method ?? 'GET');
      const target = `http://localhost${way.prefix}${path}`;
      try {
        this.#proxy.web(req, res, { target, method, headers, agent: new WayAgent(way) }, (err) => fail(err as Error));
      } catch (err) {
        fail(err as Error); // there is no socket any more
      }
    });
  }
}

function unreachable(err: Error): AppError {
  return new AppError('BROWSER_UNREACHABLE', `The browser did not answer: ${err.message}`, {}, err);
}
