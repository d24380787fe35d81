import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Recording, Sandbox } from '../../src/client/client.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { probe } from './video.ts';

let service: Service;
let folder: string;
let sandbox: Sandbox;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bt-lib-'));
  // Sandboxes outlive a service that is killed, and are taken over by the next.
  service = await startService({ env: { BERTH_ON_EXIT: 'stop' } });
  const job = { metadata: { job: '42' } };
  sandbox = await service.client.create({ recording: 'always', recordingFps: 5, recordingSegmentSeconds: 5, ...job });
}, LIMIT);

after(async () => {
  rmSync(folder, { recursive: true, force: true });
  await service.end();
}, LIMIT);

describe('The library of recordings', () => {
  it('knows what is in each closed file, and of the growing one how far it is', LIMIT, async () => {
    await closedFiles(2);
    let growing: Recording[] = [];
    await waitFor(async () => {
      growing = (await service.client.recordings(sandbox.sandboxId)).filter((file) => file.status === 'recording');
      return growing.length > 0; // in the moment between two segments there is none
    }, 'a segment that grows');
    assert.equal(growing.length, 1);
    assert.deepEqual([growing[0]?.durationSeconds, growing[0]?.playable, growing[0]?.endedAt], [null, null, null]);
    for (const file of await closedFiles(2)) {
      const seen = await probe(await download(`/recordings/${file.filename}`, file.filename));
      assert.equal(seen.frames, file.frames);
      assert.ok(Math.abs(seen.duration - (file.durationSeconds as number)) < 0.3, `${seen.duration} s`);
      assert.ok(Math.abs(Date.parse(file.endedAt as string) - Date.parse(file.startedAt) - seen.duration * 1000) < 300);
      assert.equal(file.reason, 'full');
      assert.ok((file.droppedFrames as number) >= 0);
      const { playable, sandboxId, storage, metadata } = file;
      assert.deepEqual([playable, sandboxId, storage], [true, sandbox.sandboxId, 'disk']);
      assert.deepEqual(metadata, { job: '42' });
    }
  });

  it('filters by time, status and metadata, and refuses what is none', LIMIT, async () => {
    const [newer, older] = (await closedFiles(2)).slice(-2) as [Recording, Recording];
    const names = async (query: string): Promise<string[]> => {
      const { recordings } = (await json(`/recordings/?page_size=100&${query}`)) as { recordings: Recording[] };
      return recordings.map((file) => file.filename);
    };
    const since = encodeURIComponent(newer.startedAt);
    assert.ok(!(await names(`since=${since}`)).includes(older.filename));
    assert.ok((await names(`since=${since}`)).includes(newer.filename));
    assert.ok(!(await names(`until=${since}`)).includes(newer.filename));
    assert.ok((await names('status=completed&metadata.job=42')).includes(newer.filename));
    assert.deepEqual(await names('metadata.job=43'), []);
    for (const query of ['since=yesterday', 'until=', 'status=done', 'since=2026-02-30T99:00:00Z']) {
      const answer = await fetch(`${service.url}/recordings/?${query}`);
      assert.equal(answer.status, 400, query);
      assert.match(
        ((await answer.json()) as { message: string }).message,
        new RegExp(`^${query.split('=')[0]}: must be`),
      );
    }
  });

  it('shows a timeline whose files follow each other, with pictures', LIMIT, async () => {
    await closedFiles(2);
    const [session] = await service.client.timeline(sandbox.sandboxId);
    assert.equal(session?.status, 'recording');
    const segments = session.segments;
    assert.deepEqual(
      segments.map((one) => one.segment),
      [...segments.keys()],
    );
    assert.equal(segments[0]?.offsetSeconds, 0);
    for (const [i, one] of segments.slice(1).entries()) {
      const before = segments[i] as (typeof segments)[number];
      assert.ok(one.offsetSeconds >= before.offsetSeconds + (before.durationSeconds as number));
    }
    const url = segments[0]?.posterUrl as string;
    for (const method of ['GET', 'HEAD', 'GET']) {
      const answer = await fetch(service.url + url, { method });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get('content-type'), 'image/jpeg');
      const body = Buffer.from(await answer.arrayBuffer());
      if (method === 'GET') assert.equal(body.readUInt16BE(0), 0xffd8);
    }
  });

  it('exports a session as one file, also while it is recorded', LIMIT, async () => {
    const closed = await closedFiles(2);
    const { sessionId } = closed[0] as Recording;
    const least = closed.reduce((sum, file) => sum + (file.frames as number), 0);
    for (const format of ['mkv', 'mp4'] as const) {
      const path = `/recordings/${sessionId}/export?format=${format}`;
      const answer = await fetch(service.url + path, { method: 'HEAD' });
      assert.equal(answer.headers.get('content-disposition'), `attachment; filename="${sessionId}.${format}"`);
      // Exact in the moment between two segments, when all that there is is closed.
      const length = answer.headers.get('berth-estimated-length') ?? answer.headers.get('content-length');
      assert.ok(Number(length) > 0);
      const seen = await probe(await download(path, `export.${format}`));
      assert.deepEqual([seen.errors, seen.codec], ['', 'h264']);
      assert.ok(seen.frames >= least, `${seen.frames} frames of ${least}`);
    }
    const bad = await fetch(`${service.url}/recordings/${sessionId}/export?format=avi`);
    assert.equal(bad.status, 400);
    assert.equal((await fetch(`${service.url}/recordings/vnc_none_20250101_000000/export`)).status, 404);
    assert.equal((await fetch(`${service.url}/recordings/none/export`)).status, 400);
  });

  it('goes on with the next segment when the growing one is deleted', LIMIT, async () => {
    const growing = async () =>
      (await service.client.recordings(sandbox.sandboxId)).find((f) => f.status === 'recording');
    await waitFor(async () => (await growing()) !== undefined, 'a segment that grows');
    const deleted = (await growing()) as Recording;
    assert.equal((await fetch(service.url + deleted.downloadUrl, { method: 'DELETE' })).status, 200);
    assert.equal((await fetch(service.url + deleted.downloadUrl)).status, 404);
    await waitFor(async () => ((await growing())?.segment ?? 0) > deleted.segment, 'the next segment');
    const { recordings } = (await json('/recordings/?page_size=100')) as { recordings: Recording[] };
    assert.ok(!recordings.some((file) => file.filename === deleted.filename));
  });

  it('lists what was planted as what it is, and follows no link', LIMIT, async () => {
    const id = 'planted';
    const at = join(service.dataDir, 'recordings', id);
    const name = (n: number): string => `vnc_${id}_20250101_000000_seg00${n}.mkv`;
    mkdirSync(at);
    writeFileSync(join(at, name(0)), '');
    writeFileSync(join(at, name(1)), 'no Matroska at all');
    symlinkSync('/etc/passwd', join(at, name(2)));
    mkdirSync(join(at, name(3)));
    for (const n of [0, 1]) utimesSync(join(at, name(n)), new Date(), new Date(Date.now() - 60_000));
    const listed = async () => (await service.client.recordings(id)).filter((file) => file.playable !== null);
    await waitFor(async () => (await listed()).length === 2, 'both to be looked into');
    for (const file of await listed()) {
      assert.deepEqual([file.playable, file.frames, file.reason], [false, 0, 'interrupted']);
      assert.equal((await fetch(service.url + file.downloadUrl)).status, 200);
      assert.equal((await fetch(`${service.url}${file.downloadUrl}/poster`)).status, 404);
    }
    for (const n of [2, 3]) assert.equal((await fetch(`${service.url}/recordings/${name(n)}`)).status, 404);
  });

  it('is the same after the service was killed, and after its index was lost', LIMIT, async () => {
    for (const loss of ['nothing', 'the index']) {
      await closedFiles(1);
      await service.kill();
      if (loss === 'the index') rmSync(join(service.dataDir, 'recordings.index.jsonl'));
      service = await startService({ on: service });
      const before = new Set(readdirSync(join(service.dataDir, 'recordings', sandbox.sandboxId)));
      const files = await closedFiles(1);
      for (const file of files) {
        assert.equal(file.playable, true, `${file.filename} without ${loss}`);
        assert.deepEqual(file.metadata, { job: '42' });
      }
      const all = (await service.client.recordings(sandbox.sandboxId)).map((file) => file.filename);
      for (const filename of before) if (filename.endsWith('.mkv')) assert.ok(all.includes(filename), filename);
    }
  });

  it('goes with its sandbox when that is asked for, and tells so', LIMIT, async () => {
    const { sandboxId } = sandbox;
    const count = (await service.client.recordings(sandboxId)).length;
    const answer = await fetch(`${service.url}/sandboxes/${sandboxId}?recordings=true`, { method: 'DELETE' });
    assert.equal(answer.status, 200);
    assert.deepEqual(await service.client.recordings(sandboxId), []);
    const { data } = (await json(`/sandboxes/${sandboxId}/events?after=0-0&limit=1000`)) as {
      data: { events: { type: string; reason?: string }[] };
    };
    const removed = data.events.filter((event) => event.type === 'recording.removed');
    assert.ok(removed.length >= count && removed.every((event) => event.reason === 'deleted'));
    const posters = join(service.dataDir, 'posters');
    assert.ok(!readdirSync(posters).includes(sandboxId), 'and its pictures');
  });
});

/** Closed and looked into, newest first, once there are as many. */
async function closedFiles(atLeast: number): Promise<Recording[]> {
  let found: Recording[] = [];
  await waitFor(async () => {
    const all = await service.client.recordings(sandbox.sandboxId);
    found = all.filter((file) => file.playable !== null);
    return found.length >= atLeast && all.filter((file) => file.playable === null).length <= 1;
  }, `${atLeast} closed files`);
  return found;
}

async function json(path: string): Promise<unknown> {
  const answer = await fetch(service.url + path);
  assert.equal(answer.status, 200, path);
  return answer.json();
}

/** Answers the path of the local copy. */
async function download(path: string, name: string): Promise<string> {
  const answer = await fetch(service.url + path);
  assert.equal(answer.status, 200, path);
  const file = join(folder, name);
  const body = Buffer.from(await answer.arrayBuffer());
  const length = answer.headers.get('content-length');
  if (length !== null) assert.equal(body.length, Number(length));
  writeFileSync(file, body);
  return file;
}
