import assert from 'node:assert/strict';
import http, { type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { after, before, beforeEach, describe, it } from 'node:test';
import { Router } from '@koa/router';
import Koa from 'koa';
import { recordingRoutes } from '../../src/api/recordings.ts';
import { errorBody, errorStatus } from '../../src/core/errors.ts';
import type { Export, ListQuery, Recordings, Scope } from '../../src/recordings/recordings.ts';

const SESSION = 'vnc_box_20251116_103022';

let server: Server;
/** What the routes asked for. */
let listed: ListQuery | undefined;
let asked: unknown[];
let exported: Export;

const recordings = {
  list: async (query: ListQuery) => {
    listed = query;
    return { recordings: [], total: 0, page: query.page, pageSize: query.pageSize };
  },
  timeline: async (sandboxId: string) => [{ sandboxId }],
  poster: async (filename: string, scope: Scope) => {
    asked = [filename, scope.sandboxId];
    return Buffer.from('\xff\xd8', 'latin1');
  },
  export: async (sessionId: string, format: string, scope: Scope) => {
    asked = [sessionId, format, scope.sandboxId];
    return exported;
  },
} as unknown as Recordings;

before(async () => {
  const router = new Router();
  recordingRoutes(router, { recordings, visible: () => undefined });
  const app = new Koa();
  app.silent = true;
  app.use(async (ctx, next) => {
    try {
      await next();
    } catch (err) {
      ctx.status = errorStatus(err);
      ctx.body = errorBody(err, 'r1');
    }
  });
  app.use(router.routes());
  server = app.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
});
after(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});
beforeEach(() => {
  listed = undefined;
  asked = [];
  exported = { stream: Readable.from([Buffer.from('matroska')]), length: 8, estimatedLength: 9 };
});

function request(path: string, method = 'GET'): Promise<IncomingMessage> {
  const { port } = server.address() as AddressInfo;
  return new Promise((resolve, reject) => {
    http.request({ host: '127.0.0.1', port, path, method, agent: false }, resolve).on('error', reject).end();
  });
}

async function call(path: string, method = 'GET') {
  const response = await request(path, method);
  const body = (await buffer(response)).toString();
  return { status: response.statusCode, headers: response.headers, body };
}

describe('filters of the list', () => {
  it('are passed on as they are meant', async () => {
    const query =
      'since=2026-01-31T12:00:00Z&until=2026-01-31T20:30:00.5+08:00&status=completed&metadata.a.b=1&metadata.c=';
    assert.equal((await call(`/recordings?${query}`)).status, 200);
    assert.deepEqual(listed, {
      page: 1,
      pageSize: 20,
      since: Date.UTC(2026, 0, 31, 12),
      until: Date.UTC(2026, 0, 31, 12, 30, 0, 500),
      status: 'completed',
      metadata: [
        ['a.b', '1'],
        ['c', ''],
      ],
    });
    await call('/sandboxes/box/recordings?since=2026-01-31T12:00:00%2B01:00');
    assert.deepEqual([listed?.sandboxId, listed?.since], ['box', Date.UTC(2026, 0, 31, 11)]);
  });

  const BAD = {
    since: ['', 'yesterday', '2026-01-31', '1700000000000', '2026-01-31T12:00:00', '2026-13-01T00:00:00Z', 'x&since=y'],
    status: ['', 'done', 'recording&status=completed'],
  };
  for (const [field, values] of Object.entries(BAD)) {
    for (const value of values) {
      it(`refuse ${field}=${value}`, async () => {
        const { status, body } = await call(`/recordings?${field}=${value}`);
        assert.equal(status, 400);
        assert.match(JSON.parse(body).message, new RegExp(`^${field}: must be`));
        assert.equal(listed, undefined);
      });
    }
  }
});

describe('timeline, poster and export', () => {
  it('are below a sandbox what they are, and not taken for names', async () => {
    const { body } = await call('/sandboxes/box/recordings/timeline');
    assert.deepEqual(JSON.parse(body), { sandboxId: 'box', recordings: [{ sandboxId: 'box' }] });
    await call(`/sandboxes/box/recordings/${SESSION}_seg000.mkv/poster`);
    assert.deepEqual(asked, [`${SESSION}_seg000.mkv`, 'box']);
    await call(`/sandboxes/box/recordings/${SESSION}/export`);
    assert.deepEqual(asked, [SESSION, 'mkv', 'box']);
  });

  it('sends the picture, and HEAD its length', async () => {
    for (const method of ['GET', 'HEAD']) {
      const { status, headers } = await call('/recordings/x/poster', method);
      assert.deepEqual([status, headers['content-type'], headers['content-length']], [200, 'image/jpeg', '2']);
    }
  });

  it('says how long an export is, or about how long', async () => {
    const known = await call(`/recordings/${SESSION}/export`);
    assert.deepEqual([known.body, known.headers['content-length']], ['matroska', '8']);
    assert.equal(known.headers['content-type'], 'video/x-matroska');
    assert.equal(known.headers['content-disposition'], `attachment; filename="${SESSION}.mkv"`);
    assert.equal(known.headers['berth-estimated-length'], undefined);
    exported = { stream: Readable.from([Buffer.from('mp4')]), estimatedLength: 9 };
    const unknown = await call(`/recordings/${SESSION}/export?format=mp4`);
    assert.deepEqual([unknown.body, unknown.headers['content-length']], ['mp4', undefined]);
    assert.equal(unknown.headers['content-type'], 'video/mp4');
    assert.equal(unknown.headers['content-disposition'], `attachment; filename="${SESSION}.mp4"`);
    assert.equal(unknown.headers['berth-estimated-length'], '9');
  });

  it('makes nothing for HEAD', async () => {
    const { status, headers, body } = await call(`/recordings/${SESSION}/export`, 'HEAD');
    assert.deepEqual([status, headers['content-length'], body], [200, '8', '']);
    assert.ok(exported.stream.destroyed);
  });

  it('breaks the connection when the export breaks, and lets go when the client does', async () => {
    async function* broken() {
      yield Buffer.from('half');
      throw new Error('a segment is gone');
    }
    exported = { stream: Readable.from(broken()), estimatedLength: 9 };
    await assert.rejects(call(`/recordings/${SESSION}/export`), /aborted|hang up/);
    async function* endless() {
      for (;;) yield Buffer.alloc(64 * 1024);
    }
    exported = { stream: Readable.from(endless()), estimatedLength: 9 };
    const response = await request(`/recordings/${SESSION}/export`);
    const closed = new Promise((resolve) => exported.stream.once('close', resolve));
    response.destroy();
    await closed;
  });

  it('refuses other formats', async () => {
    for (const format of ['avi', '', 'MKV', 'mkv&format=mp4']) {
      const { status, body } = await call(`/recordings/${SESSION}/export?format=${format}`);
      assert.deepEqual([status, JSON.parse(body).message], [400, 'format: must be one of mkv, mp4']);
    }
    assert.deepEqual(asked, []);
  });
});
