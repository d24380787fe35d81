import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BrowserContext } from 'playwright-core';
import puppeteer from 'puppeteer-core';
import type { Recording, Sandbox } from '../../src/client/client.ts';
import { type Site, serveSite } from './drivers.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { openSocket } from './sockets.ts';
import { isNear, onTape, type Played, pixels, playOnce, probe, type Rgb, sendRange } from './video.ts';
import { startViewer, undisturbed } from './viewer.ts';

const SCREEN = { width: 1280, height: 720 };
const SEGMENT_SECONDS = 5;
const RED: Rgb = [200, 30, 60];
const BLUE: Rgb = [20, 60, 200];
/** A place on the screen that only has the page's background, away from the mouse pointer in the middle. */
const BACKGROUND = { x: 900, y: 500 };

let service: Service;
let site: Site;
/** Downloaded files; the site serves them too. */
let folder: string;
/** Recorded always, and red. */
let red: Sandbox;
/** Recorded when asked, and blue. */
let blue: Sandbox;
let player: BrowserContext;
/** Both pages are on their screens since then; on a busy machine that takes longer than a segment. */
let shownAt: number;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bt-rec-'));
  site = await startSite();
  [service, player] = await Promise.all([startService(), startViewer(join(folder, 'profile'))]);
  const recordingSegmentSeconds = SEGMENT_SECONDS;
  red = await service.client.create({ viewport: SCREEN, recording: 'always', recordingSegmentSeconds });
  await show(red, RED);
  blue = await service.client.create({ viewport: SCREEN, recording: 'manual', recordingSegmentSeconds });
  await show(blue, BLUE);
  shownAt = Date.now();
}, LIMIT);

after(async () => {
  await player?.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  site?.close();
  await service.end();
}, LIMIT);

describe('Starting and stopping the recorder', () => {
  it('"manual" records nothing until somebody asks.', LIMIT, async () => {
    const { recording } = await service.client.get(blue.sandboxId);
    assert.deepEqual(recording, { mode: 'manual', state: 'off' });
    assert.deepEqual(await service.client.recordings(blue.sandboxId), []);
  });

  it('?recording=true on the automation socket starts it.', LIMIT, async () => {
    const socket = await openSocket(`${blue.cdpUrl}?recording=true`);
    const { recording } = await service.client.get(blue.sandboxId);
    assert.equal(recording.state, 'recording');
    await assertGrowing(blue, recording.sessionId as string);
    socket.close();
  });

  it(
    'It goes on when the client that asked has left; start is idempotent, stop is too and finishes the file.',
    LIMIT,
    async () => {
      const sessionId = (await service.client.get(blue.sandboxId)).recording.sessionId;
      assert.match(sessionId ?? '', new RegExp(`^vnc_${blue.sandboxId}_\\d{8}_\\d{6}$`));
      for (let i = 0; i < 2; i += 1) {
        const { segment, ...recording } = (await switchRecorder(blue, 'start')).recording;
        assert.deepEqual(recording, { mode: 'manual', state: 'recording', sessionId });
      }
      await onTape(service, blue.sandboxId, 10);
      for (let i = 0; i < 2; i += 1) {
        assert.deepEqual((await switchRecorder(blue, 'stop')).recording, { mode: 'manual', state: 'off' });
        const files = await service.client.recordings(blue.sandboxId);
        assert.ok(
          files.length > 0 && files.every((file) => file.status === 'completed' && file.sessionId === sessionId),
        );
      }
      const before = await service.client.recordings(blue.sandboxId);
      assert.ok((await probe(await download(before[0] as Recording))).duration > 0);
    },
  );

  it('?recording=true on the livestream socket starts it again, and no file is written twice.', LIMIT, async () => {
    const before = await service.client.recordings(blue.sandboxId);
    const socket = await openSocket(`${blue.vncUrl}?recording=true`);
    const { recording } = await service.client.get(blue.sandboxId);
    assert.equal(recording.state, 'recording');
    await assertGrowing(blue, recording.sessionId as string, before);
    socket.close();
    const now = await service.client.recordings(blue.sandboxId);
    for (const file of before)
      assert.deepEqual(
        now.find((other) => other.filename === file.filename),
        file,
      );
    assert.ok(now.length > before.length);
  });

  it('A recorder that is stopped as soon as it started leaves a file that plays, or none.', LIMIT, async () => {
    await switchRecorder(blue, 'stop');
    const before = (await service.client.recordings(blue.sandboxId)).map((file) => file.filename);
    for (const patience of [0, 50, 100, 200, 400]) {
      await switchRecorder(blue, 'start');
      await sleep(patience);
      await switchRecorder(blue, 'stop');
    }
    const added = (await service.client.recordings(blue.sandboxId)).filter((file) => !before.includes(file.filename));
    const probes = await Promise.all(added.map(async (file) => ({ file, ...(await probe(await download(file))) })));
    // The cases below are about recordings of some length.
    for (const { downloadUrl } of added) await fetch(`${service.url}${downloadUrl}`, { method: 'DELETE' });
    await switchRecorder(blue, 'start');
    for (const { file, frames, errors } of probes) {
      assert.ok(frames > 0 && errors === '', `${file.filename}: ${file.size} bytes, ${frames} frames, ${errors}`);
    }
  });

  it('"off" refuses with a clear sentence, on every way in, and writes nothing.', LIMIT, async () => {
    const mine = await service.client.create({ recording: 'off' });
    const answer = await fetch(`${service.url}/sandboxes/${mine.sandboxId}/recordings/start`, { method: 'POST' });
    assert.equal(answer.status, 400);
    const body = (await answer.json()) as { code: number; message: string };
    assert.equal(body.code, 1001);
    assert.match(body.message, /recording.*"off"/);
    for (const url of [mine.cdpUrl, mine.vncUrl]) {
      await assert.rejects(openSocket(`${url}?recording=true`), /Unexpected server response: 400/);
    }
    const { recording, status } = await service.client.get(mine.sandboxId);
    assert.deepEqual({ recording, status }, { recording: { mode: 'off', state: 'off' }, status: 'READY' });
    await service.client.delete(mine.sandboxId);
    assert.deepEqual(await service.client.recordings(mine.sandboxId), []);
  });
});

describe('While two sandboxes are being recorded', () => {
  it(
    '"always" writes one segment after the other; only the one being written has the status "recording".',
    LIMIT,
    async () => {
      const ofThePage = async () => (await service.client.recordings(red.sandboxId)).filter(showsPage);
      await waitFor(async () => (await ofThePage()).length >= 2, 'two segments of the page');
      // All of one moment, and not the one between two segments, in which none is written.
      let files: Recording[] = [];
      let recording: Sandbox['recording'] | undefined;
      await waitFor(async () => {
        recording = (await service.client.get(red.sandboxId)).recording;
        files = await service.client.recordings(red.sandboxId);
        const now = (await service.client.get(red.sandboxId)).recording;
        return recording.segment === now.segment && files[0]?.segment === now.segment;
      }, 'a segment that is being written');
      assert.deepEqual(
        files.map((file) => file.segment),
        [...files.keys()].reverse(),
        'newest first, numbered from 0 without a gap',
      );
      assert.deepEqual(
        files.map((file) => file.status),
        files.map((_, i) => (i === 0 ? 'recording' : 'completed')),
      );
      assert.equal(new Set(files.map((file) => file.sessionId)).size, 1);
      const { sessionId, segment } = files[0] as Recording;
      assert.deepEqual(recording, { mode: 'always', state: 'recording', sessionId, segment });
    },
  );

  it('The list has all of both, newest first, with the documented fields and pages.', LIMIT, async () => {
    const all = await list('page_size=100');
    const ids = new Set(all.recordings.map((file) => file.filename.slice(4, 40)));
    assert.deepEqual(ids, new Set([red.sandboxId, blue.sandboxId]));
    assert.deepEqual(
      { total: all.total, page: all.page, pageSize: all.pageSize },
      { total: all.recordings.length, page: 1, pageSize: 100 },
    );
    const times = all.recordings.map((file) => Date.parse(file.createdAt));
    assert.deepEqual(
      times,
      [...times].sort((a, b) => b - a),
    );
    for (const file of all.recordings) {
      const { filename, sessionId, segment, size, createdAt, ...rest } = file;
      assert.equal(filename, `${sessionId}_seg${String(segment).padStart(3, '0')}.mkv`);
      assert.match(createdAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d$/);
      assert.ok(Number.isInteger(size) && size >= 0);
      const { status, format, downloadUrl, recordingType } = rest;
      assert.ok(status === 'recording' || status === 'completed');
      assert.deepEqual([format, downloadUrl, recordingType], ['mkv', `/recordings/${filename}`, 'vnc']);
    }
    // Only those before the first that is still written, so that nothing changes between the requests below.
    const { startedAt: until } =
      all.recordings.filter((file) => file.playable === null).at(-1) ?? all.recordings[0] ?? assert.fail();
    const older = all.recordings.filter((file) => Date.parse(file.startedAt) < Date.parse(until));
    assert.ok(older.length > 2, `${older.length} older ones`);
    const page = (number: number) => list(`until=${encodeURIComponent(until)}&page=${number}&page_size=2`);
    const paged: Recording[] = [];
    for (let number = 1; paged.length < older.length; number++) {
      const { recordings } = await page(number);
      assert.equal(recordings.length, Math.min(2, older.length - paged.length));
      paged.push(...recordings);
    }
    const names = (files: Recording[]): string[] => files.map((file) => file.filename);
    assert.deepEqual(names(paged), names(older));
    assert.deepEqual(await page(99), { recordings: [], total: older.length, page: 99, pageSize: 2 });
    assert.equal((await list('')).pageSize, 20);
  });

  it('A segment can be downloaded while it is written: as long as announced, and decodable.', LIMIT, async () => {
    // Until the answer has begun, a new segment may have; then this one is whole and the case is not about it.
    await waitFor(async () => {
      const newest = (await service.client.recordings(red.sandboxId))[0] as Recording;
      const answer = await fetch(`${service.url}${newest.downloadUrl}`);
      assert.equal(answer.status, 200);
      const length = Number(answer.headers.get('content-length'));
      assert.ok(length >= newest.size, 'it never shrinks');
      const bytes = Buffer.from(await answer.arrayBuffer());
      assert.equal(bytes.length, length);
      const same = (await service.client.recordings(red.sandboxId)).find((file) => file.filename === newest.filename);
      if (same?.status !== 'recording' || length === 0) return false;
      const file = join(folder, 'growing.mkv');
      writeFileSync(file, bytes);
      const { frames, codec, errors } = await probe(file);
      if (frames < 5) return false;
      assert.deepEqual({ codec, errors }, { codec: 'h264', errors: '' });
      return true;
    }, 'a partial download with some frames in it');
  });
});

describe('After both sandboxes are deleted', () => {
  let files: { info: Recording; file: string }[];

  before(async () => {
    // At the same moment: neither recorder may be cut short by the other.
    await Promise.all([service.client.delete(red.sandboxId), service.client.delete(blue.sandboxId)]);
    const { recordings } = await list('page_size=100');
    files = await Promise.all(recordings.map(async (info) => ({ info, file: await download(info) })));
  }, LIMIT);

  it('Every segment is completed, and no byte came after its sandbox had ended.', LIMIT, async () => {
    assert.ok(files.length >= 5, `${files.length} files`);
    assert.deepEqual(new Set(files.map(({ info }) => info.status)), new Set(['completed']));
    for (const { info, file } of files) assert.equal(readFileSync(file).length, info.size);
  });

  it(
    'Every segment plays alone: H.264, the size of the screen, about 10 frames a second, a duration.',
    LIMIT,
    async () => {
      for (const { info, file } of files) {
        const { codec, width, height, pixels, rate, frames, duration, errors } = await probe(file);
        const what = `${info.filename}: ${frames} frames in ${duration} s, ${errors}`;
        assert.deepEqual(
          { codec, width, height, pixels, errors },
          { codec: 'h264', ...SCREEN, pixels: 'yuv420p', errors: '' },
          what,
        );
        assert.equal(rate, '10/1', what);
        assert.ok(duration > 0, what);
        // A machine under load drops as many as it must, but never invents any.
        assert.ok(frames >= Math.max(1, duration * 2 - 2) && frames <= duration * 10 + 2, what);
      }
    },
  );

  it('All but the last segment of a session have the length that was asked for.', LIMIT, async () => {
    const ofRed = files.filter(({ info }) => info.filename.includes(red.sandboxId));
    const last = Math.max(...ofRed.map(({ info }) => info.segment));
    for (const { info, file } of ofRed) {
      const { duration } = await probe(file);
      const what = `${info.filename}: ${duration} s`;
      // It ends with the first frame after that, which on a busy machine may come late.
      assert.ok(duration < 2 * SEGMENT_SECONDS, what);
      if (info.segment !== last) assert.ok(duration >= SEGMENT_SECONDS - 1, what);
    }
  });

  it(
    'Each shows the screen of its own sandbox: the last frame of every segment has its colour, and none the other.',
    LIMIT,
    async () => {
      for (const { info, file } of files.filter((segment) => showsPage(segment.info))) {
        const isRed = info.filename.includes(red.sandboxId);
        const [colour, other] = isRed ? [RED, BLUE] : [BLUE, RED];
        const frames = await pixels(file, { ...BACKGROUND, width: 2, height: 2 });
        const seen = frames.slice(-1)[0] as Rgb;
        assert.ok(isNear(seen, colour), `${info.filename} ends in ${seen} instead of ${colour}`);
        assert.ok(!frames.some((pixel) => isNear(pixel, other)), `${info.filename} shows the other sandbox`);
      }
    },
  );

  it('The mouse pointer is drawn.', LIMIT, async () => {
    // An X server's pointer begins in the middle of the screen, and nobody has moved this one.
    const { file } = files.find(({ info }) => info.filename.includes(blue.sandboxId)) as { file: string };
    const darkAt = async (x: number, y: number): Promise<number> => {
      const all = await pixels(file, { x, y, width: 16, height: 24 });
      return all.slice(-16 * 24).filter((pixel) => pixel.every((channel) => channel < 70)).length;
    };
    assert.ok((await darkAt(SCREEN.width / 2, SCREEN.height / 2)) > 10, 'there is something dark in the middle');
    assert.equal(await darkAt(BACKGROUND.x, BACKGROUND.y), 0, 'and nothing dark beside it');
  });

  for (const type of ['video/x-matroska', 'video/webm']) {
    it(`Every segment plays in a <video> of Chromium when it is served as ${type}.`, LIMIT, async () => {
      for (const { info, file } of files) {
        const seen = await play(`${site.url}/files/${file.slice(folder.length + 1)}?type=${type}`);
        assert.deepEqual({ width: seen.width, height: seen.height }, SCREEN, info.filename);
        assert.ok(seen.reached > 0, info.filename);
        const colour = info.filename.includes(red.sandboxId) ? RED : BLUE;
        assert.ok(
          !showsPage(info) || (seen.pixel && isNear(seen.pixel, colour)),
          `${info.filename} shows ${seen.pixel} instead of ${colour}`,
        );
      }
    });
  }

  it("A <video> plays straight from the service's own address.", LIMIT, async () => {
    const { info } = files[0] as { info: Recording };
    const seen = await play(`${service.url}${info.downloadUrl}`);
    assert.deepEqual({ width: seen.width, height: seen.height }, SCREEN);
    assert.ok(seen.reached > 0);
  });

  it('GET, HEAD and Range answer as documented.', LIMIT, async () => {
    const { info, file } = files[0] as { info: Recording; file: string };
    const url = `${service.url}${info.downloadUrl}`;
    for (const method of ['GET', 'HEAD']) {
      const answer = await fetch(url, { method });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get('content-type'), 'video/x-matroska');
      assert.equal(answer.headers.get('content-length'), String(info.size));
      assert.equal(answer.headers.get('content-disposition'), `attachment; filename="${info.filename}"`);
      assert.equal(Buffer.from(await answer.arrayBuffer()).length, method === 'HEAD' ? 0 : info.size);
    }
    const part = await fetch(url, { headers: { range: 'bytes=10-29' } });
    assert.equal(part.status, 206);
    assert.equal(part.headers.get('content-range'), `bytes 10-29/${info.size}`);
    assert.deepEqual(Buffer.from(await part.arrayBuffer()), readFileSync(file).subarray(10, 30));
    const ofItsSandbox = await fetch(`${service.url}/sandboxes/${sandboxOf(info)}/recordings/${info.filename}`);
    assert.deepEqual(Buffer.from(await ofItsSandbox.arrayBuffer()), readFileSync(file));
    const other = sandboxOf(info) === red.sandboxId ? blue.sandboxId : red.sandboxId;
    assert.equal((await fetch(`${service.url}/sandboxes/${other}/recordings/${info.filename}`)).status, 404);
  });

  it('DELETE removes one recording and no other, and says so; after that it is not found.', LIMIT, async () => {
    const { info } = files[0] as { info: Recording };
    const url = `${service.url}${info.downloadUrl}`;
    const { total } = await list('');
    const answer = await fetch(url, { method: 'DELETE' });
    assert.equal(answer.status, 200);
    assert.deepEqual(await answer.json(), { message: 'Recording file deleted successfully', filename: info.filename });
    for (const method of ['GET', 'HEAD', 'DELETE']) assert.equal((await fetch(url, { method })).status, 404, method);
    const after = await list('');
    assert.equal(after.total, total - 1);
    assert.ok(!after.recordings.some((file) => file.filename === info.filename));
  });

  it('A name that is not one of a recording is refused with the documented body.', LIMIT, async () => {
    for (const method of ['GET', 'DELETE']) {
      const answer = await fetch(`${service.url}/recordings/film.mp4`, { method });
      assert.equal(answer.status, 400);
      assert.deepEqual(await answer.json(), { error: 'Invalid filename' });
    }
  });
});

describe('Where tabs go', () => {
  it('is told with the recording, without what may be secret, also when the sandbox is gone.', LIMIT, async () => {
    const box = await service.client.create({ recording: 'always' });
    await onTape(service, box.sandboxId);
    const browser = await puppeteer.connect({ browserWSEndpoint: box.cdpUrl as string, defaultViewport: null });
    const before = Date.now();
    const told = async (): Promise<{ at: string; url: string }[]> =>
      (await service.client.timeline(box.sandboxId))[0]?.navigations ?? [];
    const urls = async (): Promise<string[]> => (await told()).map(({ url }) => url.replace(site.url, ''));
    const reached = (count: number): Promise<void> =>
      waitFor(
        async () => (await told()).length >= count,
        () => `${count} navigations`,
      );
    const page = (await browser.pages())[0] ?? (await browser.newPage());
    await page.goto(`${site.url}/away?token=secret#secret`);
    await reached(1);
    // The same place for whoever looks.
    await page.goto(`${site.url}/there?token=another`);
    await page.evaluate("history.pushState({}, '', '/pushed')");
    await reached(2);
    const other = await (await browser.createBrowserContext()).newPage();
    await other.goto('data:text/html,secret');
    await reached(3);
    assert.deepEqual(await urls(), ['/there', '/pushed', 'data:']);
    for (const { at } of await told()) assert.ok(Date.parse(at) >= before && Date.parse(at) <= Date.now(), at);
    await browser.disconnect();
    await service.client.delete(box.sandboxId);
    assert.deepEqual(await urls(), ['/there', '/pushed', 'data:']);
    await fetch(`${service.url}/sandboxes/${box.sandboxId}?recordings=true`, { method: 'DELETE' });
    assert.deepEqual(await told(), []);
    assert.ok(!existsSync(join(service.dataDir, 'recordings', box.sandboxId)), 'nothing is left of it');
  });
});

/** The pages for the sandboxes and for the player, and the downloaded files with ranges. */
function startSite(): Promise<Site> {
  return serveSite((req, res) => {
    const { pathname, searchParams } = new URL(req.url ?? '/', 'http://site');
    if (pathname.startsWith('/files/')) {
      const bytes = readFileSync(join(folder, pathname.slice('/files/'.length).replaceAll('/', '')));
      sendRange(req, res, bytes, searchParams.get('type') ?? '');
      return;
    }
    if (pathname === '/away') return res.writeHead(302, { location: '/there' }).end();
    res.setHeader('content-type', 'text/html; charset=utf-8');
    // A page of one colour with a counter in its corner, so that the encoder has something to do.
    res.end(`<!doctype html><title>page</title><body style="margin:0;background:rgb(${searchParams.get('rgb')})"><h1>0</h1>
<script>let n = 0; setInterval(() => { document.querySelector('h1').textContent = ++n }, 100)</script>`);
  });
}

function play(url: string): Promise<Played> {
  return undisturbed(player, () => playOnce(player, `${site.url}/player`, url, BACKGROUND));
}

/** Opens a page of this colour in the sandbox and leaves it there. */
async function show(sandbox: Sandbox, colour: Rgb): Promise<void> {
  const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl as string, defaultViewport: null });
  const page = (await browser.pages())[0] ?? (await browser.newPage());
  await page.goto(`${site.url}/?rgb=${colour.join(',')}`);
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  await browser.disconnect();
}

const showsPage = ({ createdAt }: Recording): boolean => Date.parse(createdAt) >= shownAt;

async function switchRecorder(sandbox: Sandbox, verb: 'start' | 'stop'): Promise<Sandbox> {
  const answer = await fetch(`${service.url}/sandboxes/${sandbox.sandboxId}/recordings/${verb}`, { method: 'POST' });
  assert.equal(answer.status, 200);
  return ((await answer.json()) as { data: Sandbox }).data;
}

/** Waits for the first bytes of a file that was not there before; it belongs to this session and is being written. */
async function assertGrowing(sandbox: Sandbox, sessionId: string, before: readonly Recording[] = []): Promise<void> {
  const isNew = ({ filename, size }: Recording): boolean =>
    size > 0 && !before.some((old) => old.filename === filename);
  let file: Recording | undefined;
  await waitFor(async () => {
    file = (await service.client.recordings(sandbox.sandboxId)).find(isNew);
    return file !== undefined;
  }, 'the first bytes of a recording');
  assert.deepEqual({ sessionId: file?.sessionId, status: file?.status }, { sessionId, status: 'recording' });
}

async function list(
  query: string,
): Promise<{ recordings: Recording[]; total: number; page: number; pageSize: number }> {
  const answer = await fetch(`${service.url}/recordings/?${query}`);
  assert.equal(answer.status, 200);
  return answer.json() as Promise<{ recordings: Recording[]; total: number; page: number; pageSize: number }>;
}

function sandboxOf(info: Recording): string {
  return [red.sandboxId, blue.sandboxId].find((id) => info.filename.startsWith(`vnc_${id}_`)) as string;
}

/** Answers the path of the local copy. */
async function download(info: Recording): Promise<string> {
  const file = join(folder, info.filename);
  const answer = await fetch(`${service.url}${info.downloadUrl}`);
  assert.equal(answer.status, 200);
  writeFileSync(file, Buffer.from(await answer.arrayBuffer()));
  return file;
}
