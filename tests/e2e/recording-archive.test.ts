import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import type { Recording, Sandbox } from '../../src/client/client.ts';
import { FaultProxy } from '../contract/fault-proxy.ts';
import { startS3rver } from '../contract/s3.ts';
import { S3Server } from '../contract/s3-server.ts';
import { environmentOf, processesOf } from './drivers.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { probe } from './video.ts';

const PREFIX = 'films/of/';
const ACME = 'acme-key-0123456789';
const OTHER = 'other-key-0123456789';
const ADMIN = 'admin-key-0123456789';
const S3_ID = 'bucket-id-0123456789';
const S3_SECRET = 'bucket-secret-0123456789';
const MIB = 1024 * 1024;
const NEVER_ENDS = 10_000_000;

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe('Recordings in a bucket', () => {
  let server: S3Server;
  let proxy: FaultProxy;
  let service: Service;
  let env: Record<string, string>;
  let folder: string;
  let sandbox: Sandbox;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'bt-arc-'));
    server = new S3Server();
    proxy = new FaultProxy(Number(new URL(await server.listen()).port));
    env = {
      BERTH_API_KEYS: `acme:${ACME},other:${OTHER},us:${ADMIN}:admin`,
      BERTH_S3_BUCKET: server.bucket,
      BERTH_S3_ENDPOINT: await proxy.listen(),
      BERTH_S3_PREFIX: PREFIX,
      BERTH_S3_ACCESS_KEY_ID: S3_ID,
      BERTH_S3_SECRET_ACCESS_KEY: S3_SECRET,
      BERTH_S3_LOCAL_SECONDS: '0',
      // Sandboxes outlive a service that is killed, and are taken over by the next.
      BERTH_ON_EXIT: 'stop',
    };
    proxy.break({ kind: 'refuse' });
    service = await startService({ env, apiKey: ACME });
    const recorder = { recording: 'always', recordingFps: 5, recordingSegmentSeconds: 5 } as const;
    sandbox = await service.client.create({ ...recorder, metadata: { job: '42' } });
  }, LIMIT);

  after(async () => {
    try {
      await service.stop();
    } finally {
      await service.clean();
      proxy.close();
      server.close();
      rmSync(folder, { recursive: true, force: true });
    }
  }, LIMIT);

  const ask = (path: string, init: RequestInit = {}, key = ACME): Promise<Response> =>
    fetch(service.url + path, { ...init, headers: { ...init.headers, 'x-api-key': key } });

  async function bytesOf(path: string, init: RequestInit = {}): Promise<Buffer> {
    const answer = await ask(path, init);
    assert.ok(answer.ok, `${path}: ${answer.status}`);
    return Buffer.from(await answer.arrayBuffer());
  }

  const keyOf = (file: { readonly filename: string }): string => `${PREFIX}${sandbox.sandboxId}/${file.filename}`;
  const onDisk = (file: { readonly filename: string }): string =>
    join(service.dataDir, 'recordings', sandbox.sandboxId, file.filename);
  /** Times that the object itself was put, other than in parts. */
  const putsOf = (file: Recording): number =>
    server.requests.filter((request) => request.startsWith(`PUT ${keyOf(file)}?`) && !request.includes('.json')).length;

  /** Closed and looked into, the first one first, once there are as many in this place. */
  async function closedFiles(atLeast: number, storage?: Recording['storage']): Promise<Recording[]> {
    let found: Recording[] = [];
    await waitFor(
      async () => {
        const all = await service.client.recordings(sandbox.sandboxId);
        found = all.filter((file) => file.playable !== null && (storage ?? file.storage) === file.storage).reverse();
        return found.length >= atLeast;
      },
      () => `${atLeast} closed files (${storage}), not ${found.length}: ${service.log().slice(-2000)}`,
      90_000,
    );
    return found;
  }

  async function metric(name: string): Promise<number> {
    const text = await (await ask('/metrics', {}, ADMIN)).text();
    return Number(new RegExp(`^berth_recordings_${name} (.*)$`, 'm').exec(text)?.[1]);
  }

  /** Every closed file is in the bucket and not on the disk. */
  const allUp = (): Promise<void> =>
    waitFor(
      async () => {
        const files = await service.client.recordings(sandbox.sandboxId);
        return files.every(
          (file) => file.playable === null || (file.storage === 'archive' && !existsSync(onDisk(file))),
        );
      },
      () => `all to be in the bucket: ${service.log().slice(-2000)}`,
      90_000,
    );

  /** What the bucket has is what it ought to have: each with its description, and nothing of others. */
  async function assertBucket(): Promise<void> {
    const keys = () => [...server.objects.keys()].filter((key) => !key.endsWith('.json')).sort();
    let archived: Recording[] = [];
    const ought = () => archived.map(keyOf).sort();
    // Between the two looks, or between upload and list, there may be one more.
    await waitFor(
      async () => {
        const files = await service.client.recordings(sandbox.sandboxId);
        archived = files.filter((file) => file.storage === 'archive');
        return isDeepStrictEqual(keys(), ought());
      },
      () => `the bucket to have ${ought()}; it has ${keys()}`,
    );
    for (const file of archived) assert.equal(server.objects.get(keyOf(file))?.body.length, file.size);
  }

  /** Kills the service; what happens before the next one starts is up to the caller. */
  async function restart(meanwhile: () => void = () => {}): Promise<void> {
    await service.kill();
    meanwhile();
    service = await startService({ on: service, env, apiKey: ACME });
  }

  it('wait on the disk while the bucket is away, and go up once each when it is back', LIMIT, async () => {
    const readyz = async (): Promise<unknown> => (await ask('/readyz')).json();
    await waitFor(async () => (await service.client.recordings(sandbox.sandboxId)).length > 0, 'a recording');
    const files = await closedFiles(2);
    const answer = await ask('/readyz');
    assert.deepEqual([answer.status, await answer.json()], [200, { status: 'degraded', archive: 'unreachable' }]);
    assert.ok((await metric('upload_pending')) >= 2);
    assert.ok((await metric('upload_pending_bytes')) > 0);
    const before = new Map<string, string>();
    for (const file of files) {
      assert.equal(file.storage, 'disk');
      const bytes = await bytesOf(file.downloadUrl);
      assert.equal(sha256(bytes), sha256(readFileSync(onDisk(file))));
      before.set(file.filename, sha256(bytes));
    }
    assert.equal(server.objects.size, 0);
    proxy.break({ kind: 'none' });
    await allUp();
    for (const file of files) {
      assert.equal(sha256(server.objects.get(keyOf(file))?.body ?? Buffer.alloc(0)), before.get(file.filename));
      assert.equal(sha256(await bytesOf(file.downloadUrl)), before.get(file.filename));
      assert.equal(putsOf(file), 1, 'it went up once');
    }
    await assertBucket();
    assert.ok((await metric('uploads_total{outcome="uploaded"}')) >= 2);
    await waitFor(async () => (await metric('upload_pending')) === 0, 'nothing to wait');
    // It is looked at every ten seconds.
    await waitFor(async () => JSON.stringify(await readyz()) === '{"status":"ok","archive":"ok"}', 'readyz', 90_000);
  });

  it('are one list, timeline and export with those on the disk', LIMIT, async () => {
    await closedFiles(2, 'archive');
    const noPuts = { fits: /^PUT/, status: 503, code: 'SlowDown', times: NEVER_ENDS };
    server.refusals = [noPuts];
    const [newest] = (await closedFiles(2, 'disk')).slice(-1) as [Recording];
    const all = (await service.client.recordings(sandbox.sandboxId)).reverse();
    const places = all.filter((file) => file.playable !== null).map((file) => file.storage);
    assert.deepEqual(places, [...places].sort(), 'archive first, then disk');
    const [oldest] = all as [Recording];
    for (const file of [oldest, newest]) {
      const kept = file.storage === 'disk' ? readFileSync(onDisk(file)) : server.objects.get(keyOf(file))?.body;
      const bytes = kept ?? assert.fail();
      assert.deepEqual([file.size, file.playable, file.metadata.job], [bytes.length, true, '42']);
      const head = await ask(file.downloadUrl, { method: 'HEAD' });
      assert.equal(head.headers.get('content-length'), String(bytes.length));
      assert.ok((await bytesOf(file.downloadUrl)).equals(bytes));
      for (const [range, from, to] of [
        ['100-299', 100, 300],
        ['-50', bytes.length - 50, bytes.length],
        [`${bytes.length - 7}-`, bytes.length - 7, bytes.length],
      ] as const) {
        const part = await ask(file.downloadUrl, { headers: { range: `bytes=${range}` } });
        assert.equal(part.status, 206, range);
        assert.equal(part.headers.get('content-range'), `bytes ${from}-${to - 1}/${bytes.length}`);
        assert.ok(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(from, to)), range);
      }
      assert.equal((await ask(file.downloadUrl, { headers: { range: `bytes=${bytes.length}-` } })).status, 416);
      assert.equal((await bytesOf(`${file.downloadUrl}/poster`)).readUInt16BE(0), 0xffd8);
      assert.equal((await ask(file.downloadUrl, {}, OTHER)).status, 404);
    }
    const [session] = await service.client.timeline(sandbox.sandboxId);
    const shown = session?.segments.map((one) => one.filename) ?? [];
    assert.deepEqual(
      shown.slice(0, all.length),
      all.map((file) => file.filename),
    );
    const { frames, errors } = await exported('mkv');
    const least = all.reduce((sum, file) => sum + (file.frames ?? 0), 0);
    assert.deepEqual([errors, frames >= least], ['', true], `${frames} frames of ${least}`);
    assert.equal((await exported('mp4')).codec, 'h264');
    for (const file of [oldest, newest]) {
      assert.equal((await ask(file.downloadUrl, { method: 'DELETE' })).status, 200);
      assert.equal((await ask(file.downloadUrl)).status, 404);
      assert.ok(!existsSync(onDisk(file)));
    }
    server.refusals = [];
    const left = (): string[] =>
      [...server.objects.keys()].filter((key) => [oldest, newest].some((file) => key.includes(file.filename)));
    await waitFor(
      () => left().length === 0,
      () => `the bucket to have nothing of them: ${left()}`,
    );
    await allUp();
    await assertBucket();
  });

  async function exported(format: 'mkv' | 'mp4') {
    const file = join(folder, `export.${format}`);
    writeFileSync(file, await bytesOf(`/recordings/${sandbox.recording.sessionId}/export?format=${format}`));
    return probe(file);
  }

  /** Puts a file there that takes a while to upload; it is seen within ten seconds. */
  function plant(segment: number, size: number): { readonly filename: string } {
    const file = { filename: `vnc_${sandbox.sandboxId}_20250101_000000_seg00${segment}.mkv` };
    writeFileSync(onDisk(file), randomBytes(size));
    utimesSync(onDisk(file), new Date(), new Date(Date.now() - 60_000));
    return file;
  }

  it('go up whole and once when the service is killed in the middle of an upload', LIMIT, async () => {
    await closedFiles(1);
    proxy.break({ kind: 'stall-up', after: 3 * MIB });
    // Goes up in three parts, which a segment of five seconds does not.
    const large = plant(0, 20 * MIB);
    const bytes = readFileSync(onDisk(large));
    await waitFor(
      () => proxy.struck > 0,
      () => `the upload to be under way: ${service.log()}`,
    );
    await service.kill();
    assert.ok(!server.objects.has(keyOf(large)), 'nothing half');
    const files = readdirSync(join(service.dataDir, 'recordings', sandbox.sandboxId)).filter((f) => f.endsWith('.mkv'));
    // The newest one grows.
    const waiting = new Map(
      files
        .sort()
        .slice(0, -1)
        .map((filename) => [filename, readFileSync(onDisk({ filename }))]),
    );
    assert.ok(waiting.has(large.filename));
    proxy.break({ kind: 'none' });
    service = await startService({ on: service, env, apiKey: ACME });
    await allUp();
    const list = await service.client.recordings(sandbox.sandboxId);
    for (const [filename, wanted] of waiting) {
      assert.equal(list.filter((file) => file.filename === filename).length, 1);
      assert.equal(sha256(server.objects.get(keyOf({ filename }))?.body ?? Buffer.alloc(0)), sha256(wanted), filename);
    }
    assert.equal(sha256(await bytesOf(`/recordings/${large.filename}`)), sha256(bytes));
    await assertBucket();
    assert.equal((await ask(`/recordings/${large.filename}`, { method: 'DELETE' })).status, 200);
  });

  it('leave nothing in the bucket when they are deleted on their way up', LIMIT, async () => {
    const ends = ['the service goes on', 'the service is killed', 'the copy cannot be removed before the kill'];
    for (const [i, end] of ends.entries()) {
      await allUp();
      proxy.break({ kind: 'stall-up', after: MIB });
      const file = plant(i + 1, 2 * MIB);
      await waitFor(
        () => proxy.struck > 0,
        () => `the upload to be under way: ${service.log()}`,
      );
      assert.equal((await ask(`/recordings/${file.filename}`, { method: 'DELETE' })).status, 200);
      if (end === 'the service is killed') await service.kill();
      const noDeletes = { fits: /^DELETE/, status: 503, code: 'SlowDown', times: NEVER_ENDS };
      if (end.startsWith('the copy')) server.refusals = [noDeletes];
      proxy.break({ kind: 'none' });
      if (end.startsWith('the copy')) {
        const asked = (): boolean => noDeletes.times < NEVER_ENDS && server.objects.has(keyOf(file));
        await waitFor(asked, 'a copy that cannot be removed');
        await service.kill();
        server.refusals = [];
      }
      if (service.process.signalCode !== null) service = await startService({ on: service, env, apiKey: ACME });
      const left = (): string[] => [...server.objects.keys()].filter((key) => key.includes(file.filename));
      const gone = (): boolean => left().length === 0 && !existsSync(onDisk(file));
      await waitFor(gone, () => `nothing to be left when ${end}: ${left()}`);
      await allUp();
      assert.deepEqual(left(), [], end);
      const list = await service.client.recordings(sandbox.sandboxId);
      assert.ok(!list.some(({ filename }) => filename === file.filename), end);
      await assertBucket();
    }
  });

  it('show the keys of the bucket in no process list, log line or sandbox', LIMIT, async () => {
    const secrets = [S3_ID, S3_SECRET];
    const processes = await processesOf(service, sandbox.sandboxId);
    assert.ok(processes.length >= 5, 'the sandbox has its processes');
    for (const { pid, command } of processes) {
      const text = command + (await environmentOf(service, sandbox.sandboxId, pid));
      for (const secret of [...secrets, 'BERTH_S3_']) assert.ok(!text.includes(secret), command);
    }
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      const command = existsSync(`/proc/${pid}/cmdline`) ? commandLine(pid) : '';
      for (const secret of secrets) assert.ok(!command.includes(secret), command);
    }
    // Its log tells of uploads, also that of a service that an earlier case has started anew.
    await waitFor(() => service.log().includes('a recording is in the archive'), 'an upload in the log');
    for (const secret of secrets) assert.ok(!service.log().includes(secret));
  });

  it('are listed again from bucket and disk, whose they were, when index and history are lost', LIMIT, async () => {
    await service.client.delete(sandbox.sandboxId);
    await allUp();
    const before = await service.client.recordings(sandbox.sandboxId);
    assert.ok(before.length >= 2);
    await restart(() => {
      rmSync(join(service.dataDir, 'recordings.index.jsonl'));
      rmSync(join(service.dataDir, 'history.jsonl'));
    });
    const listed = (): Promise<Recording[]> => service.client.recordings(sandbox.sandboxId).catch(() => []);
    await waitFor(async () => (await listed()).length >= before.length, 'the list to be whole');
    assert.deepEqual(await listed(), before);
    assert.equal((await ask(`/sandboxes/${sandbox.sandboxId}/recordings`, {}, OTHER)).status, 404);
    assert.equal(sha256(await bytesOf(before[0]?.downloadUrl ?? '')).length, 64);
    for (const file of before) assert.equal((await ask(file.downloadUrl, { method: 'DELETE' })).status, 200);
    assert.deepEqual([...server.objects.keys()], []);
  });
});

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return ''; // gone meanwhile
  }
}

describe('With BERTH_S3_REDIRECT', () => {
  it('a download is sent to the bucket, which gives the same bytes without our keys', LIMIT, async () => {
    const bucket = await startS3rver(true);
    const env = {
      BERTH_API_KEYS: `acme:${ACME}`,
      BERTH_S3_BUCKET: 'recordings',
      BERTH_S3_ENDPOINT: bucket.url,
      BERTH_S3_ACCESS_KEY_ID: 'S3RVER',
      BERTH_S3_SECRET_ACCESS_KEY: 'S3RVER',
      BERTH_S3_LOCAL_SECONDS: '0',
      BERTH_S3_REDIRECT: 'true',
      BERTH_ON_EXIT: 'stop',
    };
    const service = await startService({ env, apiKey: ACME });
    try {
      const { sandboxId } = await service.client.create({ recording: 'always', recordingSegmentSeconds: 5 });
      const get = (path: string, init: RequestInit = {}): Promise<Response> =>
        fetch(service.url + path, { ...init, redirect: 'manual', headers: { 'x-api-key': ACME } });
      const all = (): Promise<Recording[]> => service.client.recordings(sandboxId);
      await waitFor(async () => (await all()).length > 0, 'a recording');
      const [growing] = (await all()) as [Recording];
      assert.equal((await get(growing.downloadUrl)).status, 200, 'what is on the disk comes from us');
      const archived = async (): Promise<Recording | undefined> =>
        (await all()).find(({ storage }) => storage === 'archive');
      await waitFor(
        async () => (await archived()) !== undefined,
        () => `an upload: ${service.log()}`,
      );
      const file = (await archived()) as Recording;
      const answer = await get(file.downloadUrl);
      assert.deepEqual([answer.status, answer.headers.get('cache-control')], [307, 'no-store']);
      const location = answer.headers.get('location') ?? '';
      assert.ok(location.startsWith(`${bucket.url}/recordings/${sandboxId}/${file.filename}?`), location);
      const there = await fetch(location);
      assert.equal(there.headers.get('content-disposition'), `attachment; filename="${file.filename}"`);
      const bytes = Buffer.from(await there.arrayBuffer());
      const another = await fetch(location.replace(/X-Amz-Signature=.{8}/, 'X-Amz-Signature=00000000'));
      assert.deepEqual([there.status, another.status], [200, 403], 'the address is signed');
      const head = await get(file.downloadUrl, { method: 'HEAD' });
      assert.deepEqual([head.status, head.headers.get('content-length')], [200, String(bytes.length)]);
      // An export goes through us, and what it is made of are the same frames.
      const path = `/recordings/${file.sessionId}/export`;
      assert.equal((await get(path)).status, 200);
      assert.equal(bytes.length, file.size);
      const whole = await fetch(service.url + file.downloadUrl, { headers: { 'x-api-key': ACME } });
      assert.equal(sha256(Buffer.from(await whole.arrayBuffer())), sha256(bytes), 'a client that follows has the same');
      await service.stop();
    } finally {
      await service.clean();
      await bucket.close();
    }
  });
});
