import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type RequestListener, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, describe, it } from 'node:test';
import { Router } from '@koa/router';
import Koa from 'koa';
import { devToolsRoutes } from '../../src/api/devtools.ts';
import { Urls } from '../../src/api/urls.ts';
import { errorBody, errorStatus } from '../../src/core/errors.ts';
import type { Sandboxes } from '../../src/core/sandboxes.ts';
import { openAccess } from './doors.ts';

const dir = mkdtempSync(join(tmpdir(), 'berth-devtools-'));
const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close().closeAllConnections();
});
after(() => rmSync(dir, { recursive: true }));

/** Discovery of one sandbox whose browser answers as `browser` says; without one nothing listens where it should. */
async function setUp(browser?: RequestListener): Promise<{ port: number; attached: () => number }> {
  const path = join(dir, 's');
  if (browser) await listening(createServer(browser), path);
  let attached = 0;
  const sandboxes = {
    get: () => ({ spec: { id: 'x', createdAt: 0, maxLifetimeSeconds: 1 } }),
    attach: async () => {
      attached += 1;
      return { way: { endpoint: { path }, prefix: '' }, detach: () => (attached -= 1) };
    },
  } as unknown as Sandboxes;
  const app = new Koa();
  app.use(async (ctx, next) => {
    ctx.state.principal = { tenant: 'me', role: 'admin' };
    await next().catch((err: unknown) => {
      ctx.status = errorStatus(err);
      ctx.body = errorBody(err, '');
    });
  });
  const router = new Router();
  devToolsRoutes(router, { sandboxes, urls: new Urls(openAccess(), undefined) });
  app.use(router.routes());
  const server = await listening(createServer(app.callback()), 0);
  return { port: (server.address() as AddressInfo).port, attached: () => attached };
}

function listening(server: Server, where: string | number): Promise<Server> {
  servers.push(server);
  return new Promise((resolve) => server.listen(where, () => resolve(server)));
}

function ask(port: number, path: string, headers: Record<string, string> = {}): Promise<[number | undefined, object]> {
  return new Promise((resolve, reject) => {
    const req = request({ port, path: `/sandboxes/x/json/${path}`, headers }, (res) => {
      let text = '';
      res.on('data', (chunk) => (text += chunk));
      res.on('end', () => resolve([res.statusCode, JSON.parse(text)]));
    });
    req.on('error', reject);
    req.end();
  });
}

describe('DevTools discovery', () => {
  it('tells the browser nothing of the caller, whatever the caller expects', async () => {
    const seen: IncomingHttpHeaders[] = [];
    const { port } = await setUp((req, res) => {
      seen.push(req.headers);
      res.end('{}');
    });
    const way = { 'x-real-ip': '1.2.3.4', 'x-forwarded-proto': 'https' };
    const secrets = { authorization: 'Bearer key', 'x-api-key': 'key', cookie: 'a=b', origin: 'http://x', ...way };
    assert.equal((await ask(port, 'version', secrets))[0], 200);
    assert.equal((await ask(port, 'version', { ...secrets, expect: '100-continue' }))[0], 200);
    assert.equal(seen.length, 2);
    for (const headers of seen) for (const name of Object.keys(secrets)) assert.equal(headers[name], undefined, name);
  });

  it('lets go of the sandbox when its caller goes away before the browser has answered', {
    timeout: 8000,
  }, async () => {
    let asked = (): void => {};
    const arrived = new Promise<void>((resolve) => (asked = resolve));
    const { port, attached } = await setUp(() => asked());
    const req = request({ port, path: '/sandboxes/x/json/version' });
    req.on('error', () => {});
    req.end();
    await arrived;
    assert.equal(attached(), 1);
    req.destroy();
    while (attached() > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it('answers BROWSER_UNREACHABLE when the sandbox is gone or says what is no answer', async () => {
    const gone = await setUp();
    assert.deepEqual([(await ask(gone.port, 'version'))[0], gone.attached()], [502, 0]);
    let text = '';
    let status = 502;
    const { port } = await setUp((_req, res) => res.writeHead(status).end(text));
    assert.equal((await ask(port, 'list'))[0], 502, 'an empty answer of the runtime');
    [status, text] = [200, 'no JSON'];
    assert.equal((await ask(port, 'list'))[0], 502);
    text = '[]';
    assert.deepEqual(await ask(port, 'list'), [200, []]);
  });

  it('takes no answer that would fill the memory', { timeout: 30_000 }, async () => {
    const { port } = await setUp((_req, res) => {
      const more = (): void => {
        while (res.write(Buffer.alloc(1024 * 1024))) if (res.destroyed) return;
        res.once('drain', more);
      };
      more();
    });
    const [status, body] = await ask(port, 'protocol');
    assert.equal(status, 502);
    assert.match((body as { message: string }).message, /more than \d+ bytes/);
  });
});
