import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import http, { type IncomingHttpHeaders, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Router } from '@koa/router';
import Koa from 'koa';
import { recordingRoutes } from '../../src/api/recordings.ts';
import type { Log, OpenedFile } from '../../src/core/contracts.ts';
import { AppError, errorBody, errorStatus } from '../../src/core/errors.ts';
import { isoTime, type MediaFacts } from '../../src/core/recording.ts';
import { Library } from '../../src/recordings/library.ts';
import { Posters } from '../../src/recordings/posters.ts';
import { type ExportMkv, Recordings } from '../../src/recordings/recordings.ts';
import { DiskStorage } from '../../src/storage/disk.ts';

const session = (id: string, time = '103022') => `vnc_${id}_20251116_${time}`;
const segment = (n: number, id = 'box', time?: string) => `${session(id, time)}_seg${String(n).padStart(3, '0')}.mkv`;

const silent: Log = { info: () => {}, warn: () => {}, error: () => {} };
/** Each sandbox is its own tenant here. */
const about = (id: string) => ({ owner: id, metadata: { job: `${id}'s` }, createdAt: 0 });

/** Ten bytes are a frame; what begins with a NUL is no Matroska. */
async function scanned(file: OpenedFile): Promise<MediaFacts> {
  const bytes = await buffer(file.stream(0, file.size - 1));
  const sound = bytes.length > 0 && bytes[0] !== 0;
  const frames = sound ? Math.ceil(bytes.length / 10) : 0;
  return { durationMs: frames * 100, frames, headerBytes: sound ? 1 : 0, clusters: 1, frameBytes: bytes.length };
}

const joined: ExportMkv = async (segments) => {
  const sizes = segments.map(({ facts }) => facts?.frameBytes);
  const length = sizes.reduce<number | undefined>(
    (sum, size) => (sum === undefined || size === undefined ? undefined : sum + size),
    0,
  );
  async function* bytes() {
    for (const one of segments) {
      const file = await one.open();
      if (!file) throw new Error('it is gone');
      yield* file.stream(0, file.size - 1);
    }
  }
  return { length, stream: Readable.from(bytes()) };
};

describe('recording routes', () => {
  let root: string;
  let server: Server;
  /** Where index and posters lie. */
  let state: string;
  let library: Library;
  let cuts: string[] = [];

  before(async () => {
    root = fs.realpathSync(fs.mkdtempSync(join(tmpdir(), 'berth-recordings-')));
    state = fs.mkdtempSync(join(tmpdir(), 'berth-recordings-state-'));
    const posters = new Posters(join(state, 'posters'), async (file) => Buffer.from(`picture of ${await text(file)}`));
    library = await Library.open({
      storage: new DiskStorage(root),
      indexFile: join(state, 'index.jsonl'),
      scan: scanned,
      about,
      onRemoved: () => {},
      onGone: (name) => posters.remove(name),
      log: silent,
    });
    const toMp4 = (mkv: Readable): Readable =>
      Readable.from(
        (async function* () {
          yield 'mp4:';
          yield* mkv;
        })(),
      );
    const cut = async (id: string): Promise<void> => void cuts.push(id);
    const recordings = new Recordings({ library, posters, about, cut, exportMkv: joined, toMp4, log: silent });
    const router = new Router();
    recordingRoutes(router, { recordings, visible: (ctx) => (owner) => owner !== (ctx.get('X-Hide') || 'nobody') });
    const app = new Koa();
    app.silent = true; // koa reports clients that go away as errors
    app.use(async (ctx, next) => {
      try {
        await next();
      } catch (err) {
        ctx.status = errorStatus(err);
        if (err instanceof AppError) ctx.set(err.headers);
        const bare = err instanceof AppError && err.errorName === 'INVALID_FILENAME';
        ctx.body = bare ? { error: 'Invalid filename' } : errorBody(err, 'r1');
      }
    });
    app.use(router.routes());
    server = app.listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
  });
  after(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await library.close();
    for (const folder of [root, state]) fs.rmSync(folder, { recursive: true });
  });
  afterEach(async () => {
    await filesClosed();
    for (const entry of fs.readdirSync(root)) fs.rmSync(join(root, entry), { recursive: true });
    library.saw('box', undefined);
    await library.settled();
    cuts = [];
  });

  function openFiles(): string[] {
    const targets = fs.readdirSync('/proc/self/fd').map((fd) => {
      try {
        return fs.readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return '';
      }
    });
    return targets.filter((path) => path.startsWith(root));
  }

  /** Every request must end so. */
  async function filesClosed(): Promise<void> {
    for (let i = 0; i < 6000 && openFiles().length > 0; i++) await sleep(10);
    assert.deepEqual(openFiles(), []);
  }

  /** The library learns of what was put there by hand. */
  async function found(): Promise<void> {
    await library.sweep();
    await library.settled();
  }

  function put(filename: string, content: string | Buffer = '0123456789', id = 'box'): string {
    fs.mkdirSync(join(root, id), { recursive: true });
    fs.writeFileSync(join(root, id, filename), content);
    // Long enough ago to be taken for whole.
    fs.utimesSync(join(root, id, filename), new Date(), new Date(Date.now() - 60_000));
    return join(root, id, filename);
  }

  /** The path goes out as it is: no client library cleans it up. */
  function request(path: string, headers: IncomingHttpHeaders = {}, method = 'GET'): Promise<IncomingMessage> {
    const { port } = server.address() as AddressInfo;
    return new Promise((resolve, reject) => {
      http.request({ host: '127.0.0.1', port, path, headers, method, agent: false }, resolve).on('error', reject).end();
    });
  }

  async function call(path: string, headers: IncomingHttpHeaders = {}, method = 'GET') {
    const response = await request(path, headers, method);
    const body = await buffer(response);
    return { status: response.statusCode, headers: response.headers, body, text: body.toString() };
  }
  const json = async (path: string, headers: IncomingHttpHeaders = {}, method = 'GET') => {
    await found();
    const response = await call(path, headers, method);
    return { status: response.status, body: JSON.parse(response.text) };
  };

  describe('list', () => {
    it('answers with the bare body, with and without the slash', async () => {
      const path = put(segment(0));
      library.saw('box', { sessionId: session('box'), segment: 0 });
      const createdAt = isoTime(Math.floor(fs.statSync(path).birthtimeMs));
      const expected = {
        recordings: [
          {
            filename: segment(0),
            sessionId: session('box'),
            segment: 0,
            size: 10,
            createdAt,
            format: 'mkv',
            downloadUrl: `/recordings/${segment(0)}`,
            recordingType: 'vnc',
            status: 'recording',
            sandboxId: 'box',
            startedAt: createdAt,
            endedAt: null,
            durationSeconds: null,
            frames: null,
            droppedFrames: null,
            reason: null,
            storage: 'disk',
            playable: null,
            metadata: { job: "box's" },
          },
        ],
        total: 1,
        page: 1,
        pageSize: 20,
      };
      for (const at of ['/recordings', '/recordings/', '/sandboxes/box/recordings', '/sandboxes/box/recordings/']) {
        assert.deepEqual(await json(at), { status: 200, body: expected }, at);
      }
      assert.equal((await json('/recordings/', { 'x-hide': 'box' })).body.total, 0);
    });

    it('keeps to one sandbox below /sandboxes', async () => {
      put(segment(0));
      put(segment(0, 'other'), 'x', 'other');
      assert.equal((await json('/recordings/')).body.total, 2);
      const { body } = await json('/sandboxes/other/recordings');
      assert.equal(body.total, 1);
      assert.equal(body.recordings[0].downloadUrl, `/recordings/${segment(0, 'other')}`);
      assert.equal((await json('/sandboxes/unknown/recordings')).body.total, 0);
      assert.equal((await json('/sandboxes/other/recordings', { 'x-hide': 'other' })).body.code, 2001);
      assert.equal((await json('/sandboxes/..%2f..%2fetc/recordings')).body.code, 2001);
    });

    it('takes page and page_size', async () => {
      for (let n = 0; n < 3; n++) put(segment(n));
      const { body } = await json('/recordings/?page=2&page_size=2');
      assert.deepEqual([body.recordings.length, body.total, body.page, body.pageSize], [1, 3, 2, 2]);
      assert.equal((await json('/recordings/?page=1&page_size=100')).body.recordings.length, 3);
    });

    for (const page of ['0', '-1', '1.5', 'abc', '', '1e3', '1&page=2', '9007199254740993']) {
      it(`refuses ?page=${page}`, async () => {
        const { status, body } = await json(`/recordings/?page=${page}`);
        assert.deepEqual([status, body.code, body.message], [400, 1001, 'page: must be an integer of at least 1']);
      });
    }
    for (const query of ['page_size=0', 'page_size=101', 'page_size=x']) {
      it(`refuses ?${query}`, async () => {
        const { status, body } = await json(`/sandboxes/box/recordings?${query}`);
        assert.deepEqual([status, body.code, body.message], [400, 1001, 'page_size: must be an integer from 1 to 100']);
      });
    }
  });

  describe('names', () => {
    const hostile: Record<string, string> = {
      'an encoded path': '..%2f..%2fetc%2fpasswd',
      'an encoded path to a segment': `..%2fbox%2f${segment(0)}`,
      'a doubly encoded path': '..%252f..%252fetc%252fpasswd',
      dots: '..',
      'encoded dots': '%2e%2e',
      backslashes: '..%5c..%5cetc%5cpasswd',
      'a blank': '%20',
      'tabs and line ends': '%09%0d%0a',
      '300 characters': `${'a'.repeat(296)}.mkv`,
      'a NUL': `${segment(0)}%00`,
      'a NUL before the extension': segment(0).replace('.', '%00.'),
      'another extension': 'x.mp4',
      'letters that look alike': encodeURIComponent(
        segment(0).replace('vnc', '\u{ff56}nc').replace('box', 'b\u{43e}x'),
      ),
      'digits that look alike': encodeURIComponent(segment(0).replace('20251116', '\u{0662}0251116')),
      'a slash that looks alike': encodeURIComponent(`..\u{2215}${segment(0)}`),
      'a segment with another extension': segment(0).replace('mkv', 'mp4'),
      'a malformed escape': '%zz',
      'a segment with a malformed escape': `${segment(0)}%`,
      'an escape that is no UTF-8': '%ff%fe.mkv',
      'start, which takes no GET': 'start',
    };
    for (const [what, name] of Object.entries(hostile)) {
      it(`refuses ${what}`, async () => {
        put(segment(0));
        for (const base of ['/recordings', '/sandboxes/box/recordings']) {
          for (const method of ['GET', 'DELETE']) {
            assert.deepEqual(
              await json(`${base}/${name}`, {}, method),
              { status: 400, body: { error: 'Invalid filename' } },
              `${method} ${base}/${name}`,
            );
          }
          assert.equal((await call(`${base}/${name}`, {}, 'HEAD')).status, 400);
        }
      });
    }

    it('serves nothing for paths with real slashes', async () => {
      put(segment(0));
      for (const path of ['/recordings/../../etc/passwd', '/recordings/box/x', `/recordings//${segment(0)}`]) {
        assert.equal((await call(path)).status, 404, path);
      }
    });

    it('accepts a name that is encoded needlessly', async () => {
      put(segment(0));
      assert.equal((await call(`/recordings/${segment(0).replace('v', '%76')}`)).text, '0123456789');
    });
  });

  describe('download', () => {
    it('sends the file with its headers, from both places', async () => {
      const path = put(segment(0), '\0not matroska');
      const born = Math.floor(fs.statSync(path).birthtimeMs).toString(16);
      for (const base of ['/recordings', '/sandboxes/box/recordings']) {
        const response = await call(`${base}/${segment(0)}`);
        assert.equal(response.status, 200);
        assert.equal(response.text, '\0not matroska');
        assert.equal(response.headers['content-type'], 'video/x-matroska');
        assert.equal(response.headers['content-length'], '13');
        assert.equal(response.headers['accept-ranges'], 'bytes');
        assert.equal(response.headers.etag, `W/"d-${born}"`);
        assert.equal(response.headers['content-disposition'], `attachment; filename="${segment(0)}"`);
      }
    });

    it('answers HEAD like GET without the body, and without ranges', async () => {
      put(segment(0));
      const head = await call(`/recordings/${segment(0)}`, { range: 'bytes=0-1' }, 'HEAD');
      const { headers } = await call(`/recordings/${segment(0)}`);
      assert.equal(head.status, 200);
      assert.equal(head.body.length, 0);
      for (const name of ['content-type', 'content-length', 'accept-ranges', 'etag', 'content-disposition']) {
        assert.equal(head.headers[name], headers[name], name);
      }
    });

    it('does not find what is missing, hidden, of another sandbox or no regular file', async () => {
      const secret = put(segment(0, 'other'), 'secret', 'other');
      put(segment(9));
      fs.symlinkSync(secret, join(root, 'box', segment(1)));
      fs.mkdirSync(join(root, 'box', segment(2)));
      execFileSync('mkfifo', [join(root, 'box', segment(3))]);
      fs.symlinkSync(join(root, 'other'), join(root, 'link'));
      fs.writeFileSync(join(root, 'other', segment(0, 'link')), 'secret');
      const paths = [0, 1, 2, 3].map((n) => `/recordings/${segment(n)}`);
      paths.push(`/recordings/${segment(0, 'link')}`, `/sandboxes/box/recordings/${segment(0, 'other')}`);
      for (const path of paths) {
        for (const method of ['GET', 'DELETE']) {
          const { status, body } = await json(path, {}, method);
          assert.deepEqual([status, body.code], [404, 3002], `${method} ${path}`);
        }
      }
      assert.equal((await call(`/recordings/${segment(9)}`, { 'x-hide': 'box' })).status, 404);
      assert.equal((await call(`/recordings/${segment(9)}`, { 'x-hide': 'box' }, 'DELETE')).status, 404);
      assert.equal((await call(`/recordings/${segment(9)}`)).status, 200);
      assert.equal((await call(`/recordings/${segment(0, 'other')}`)).text, 'secret');
    });

    it('sends an empty file', async () => {
      put(segment(0), '');
      for (const headers of [{}, { range: 'bytes=-5' }]) {
        const response = await call(`/recordings/${segment(0)}`, headers);
        assert.equal(response.status, 200);
        assert.equal(response.headers['content-length'], '0');
        assert.equal(response.headers['content-type'], 'video/x-matroska');
        assert.equal(response.body.length, 0);
      }
      const past = await call(`/recordings/${segment(0)}`, { range: 'bytes=0-' });
      assert.equal(past.status, 416);
      assert.equal(past.headers['content-range'], 'bytes */0');
    });

    it('keeps its Content-Length while the file grows', async () => {
      const size = 8 * 1024 * 1024;
      const path = put(segment(0), Buffer.alloc(size, 'a'));
      const response = await request(`/recordings/${segment(0)}`);
      fs.appendFileSync(path, Buffer.alloc(size, 'b'));
      const body = await buffer(response);
      assert.equal(response.headers['content-length'], String(size));
      assert.equal(body.length, size);
      assert.ok(!body.includes('b'));
      assert.equal((await call(`/recordings/${segment(0)}`, { range: `bytes=${size}-` })).body.length, size);
    });

    it('closes the file when the client goes away', async () => {
      fs.truncateSync(put(segment(0)), 1024 ** 3);
      const response = await request(`/recordings/${segment(0)}`);
      await new Promise((resolve) => response.once('readable', resolve));
      assert.equal(openFiles().length, 1);
      response.destroy();
      await filesClosed();
    });

    it('answers 304 while the file is the one that the client has', async () => {
      const path = put(segment(0));
      const etag = (await call(`/recordings/${segment(0)}`)).headers.etag ?? '';
      for (const known of [etag, etag.slice(2), `"x", ${etag}`, '*']) {
        for (const method of ['GET', 'HEAD']) {
          const response = await call(
            `/recordings/${segment(0)}`,
            { 'if-none-match': known, range: 'bytes=99-' },
            method,
          );
          assert.equal(response.status, 304, known);
          assert.equal(response.headers.etag, etag);
          assert.equal(response.body.length, 0);
        }
      }
      assert.equal((await call(`/recordings/${segment(0)}`, { 'if-none-match': '"x", W/"y"' })).status, 200);
      fs.appendFileSync(path, 'more');
      assert.equal((await call(`/recordings/${segment(0)}`, { 'if-none-match': etag })).status, 200);
    });
  });

  describe('Range', () => {
    const partial: Record<string, [range: string, body: string]> = {
      'bytes=0-3': ['0-3', '0123'],
      'bytes=0-0': ['0-0', '0'],
      'bytes=4-': ['4-9', '456789'],
      'bytes=9-': ['9-9', '9'],
      'bytes=5-99999999999999999999': ['5-9', '56789'],
      'bytes=-3': ['7-9', '789'],
      'bytes=-10': ['0-9', '0123456789'],
      'bytes=-999': ['0-9', '0123456789'],
      'Bytes=1-2': ['1-2', '12'],
    };
    for (const [range, [expected, body]] of Object.entries(partial)) {
      it(`gives a part for ${range}`, async () => {
        put(segment(0));
        const response = await call(`/recordings/${segment(0)}`, { range });
        assert.equal(response.status, 206);
        assert.equal(response.headers['content-range'], `bytes ${expected}/10`);
        assert.equal(response.headers['content-length'], String(body.length));
        assert.equal(response.text, body);
      });
    }

    const ignored = ['3-1', '-', '', 'a-b', '1', '1-2-3', '--3', '0x0-1', '0-1,4-5'].map((range) => `bytes=${range}`);
    for (const range of [...ignored, 'lines=0-1', 'bytes 0-1']) {
      it(`gives the whole file for ${range}`, async () => {
        put(segment(0));
        const response = await call(`/recordings/${segment(0)}`, { range });
        assert.equal(response.status, 200);
        assert.equal(response.headers['content-range'], undefined);
        assert.equal(response.text, '0123456789');
      });
    }

    for (const range of ['bytes=10-', 'bytes=10-20', 'bytes=99999999999999999999-', 'bytes=-0']) {
      it(`answers 416 for ${range}`, async () => {
        put(segment(0));
        const response = await call(`/recordings/${segment(0)}`, { range });
        assert.equal(response.status, 416);
        assert.equal(response.headers['content-range'], 'bytes */10');
        assert.equal(response.headers['content-disposition'], undefined);
        assert.equal(JSON.parse(response.text).code, 3003);
      });
    }

    it('gives the whole file when If-Range asks for a strong match', async () => {
      put(segment(0));
      const etag = (await call(`/recordings/${segment(0)}`)).headers.etag ?? '';
      const response = await call(`/recordings/${segment(0)}`, { range: 'bytes=0-1', 'if-range': etag });
      assert.equal(response.status, 200);
      assert.equal(response.text, '0123456789');
    });

    it('goes on with If-Range where a download of a closed recording was cut, and begins anew with another one', async () => {
      put(segment(0));
      const early = (await call(`/recordings/${segment(0)}`)).headers.etag ?? '';
      await found();
      const etag = (await call(`/recordings/${segment(0)}`)).headers.etag ?? '';
      assert.equal(early, `W/${etag}`);
      const again = (known: string, range: string) => call(`/recordings/${segment(0)}`, { range, 'if-range': known });
      const rest = await again(etag, 'bytes=4-');
      assert.deepEqual([rest.status, rest.text, rest.headers['content-range']], [206, '456789', 'bytes 4-9/10']);
      assert.equal((await again(etag, 'bytes=10-')).status, 416);
      for (const other of [early, '"a-b"', 'Sat, 21 Nov 2026 12:00:00 GMT']) {
        const whole = await again(other, 'bytes=10-');
        assert.deepEqual([whole.status, whole.text], [200, '0123456789'], other);
      }
    });
  });

  describe('delete', () => {
    it('deletes once, from both places, also what is being recorded', async () => {
      library.saw('box', { sessionId: session('box'), segment: 0 });
      for (const base of ['/recordings', '/sandboxes/box/recordings']) {
        put(segment(0));
        assert.deepEqual(await json(`${base}/${segment(0)}`, {}, 'DELETE'), {
          status: 200,
          body: { message: 'Recording file deleted successfully', filename: segment(0) },
        });
        assert.equal((await call(`${base}/${segment(0)}`, {}, 'DELETE')).status, 404);
        assert.equal((await call(`${base}/${segment(0)}`)).status, 404);
      }
    });

    it('does not disturb a download that has begun', async () => {
      const size = 8 * 1024 * 1024;
      put(segment(0), Buffer.alloc(size, 'a'));
      const response = await request(`/recordings/${segment(0)}`);
      assert.equal((await call(`/recordings/${segment(0)}`, {}, 'DELETE')).status, 200);
      assert.equal((await buffer(response)).length, size);
    });
  });
});
