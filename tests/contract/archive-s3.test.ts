import assert from 'node:assert/strict';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { OpenedFile } from '../../src/core/contracts.ts';
import { AppError } from '../../src/core/errors.ts';
import { Uploader } from '../../src/recordings/uploader.ts';
import { S3Archive, type S3ArchiveOptions } from '../../src/storage/s3.ts';
import { contentOf, fileOf, listed, nameOf, noise, segmentOf, sha256 } from './archive.ts';
import { FakeQueue } from './fake-queue.ts';
import { type Fault, FaultProxy } from './fault-proxy.ts';
import { OPTIONS, startS3rver } from './s3.ts';
import { S3Server } from './s3-server.ts';

const NEVER = new AbortController().signal;
const MIB = 1024 * 1024;
/** Short, so that a test of a server that says nothing is short; long beside what a request takes here. */
const STALL_MS = 1000;
/** For an archive that meets silence. */
const IMPATIENT = { connectMs: STALL_MS, stallMs: STALL_MS };
const LIMIT = { timeout: 180_000 };

let server: S3Server;
let url: string;
const archives: S3Archive[] = [];

beforeEach(async () => {
  server = new S3Server();
  url = await server.listen();
});
afterEach(() => {
  for (const archive of archives.splice(0)) archive.close();
  server.close();
});

function archiveAt(endpoint: string, over: Partial<S3ArchiveOptions> = {}): S3Archive {
  const archive = new S3Archive({ ...OPTIONS, endpoint, ...over });
  archives.push(archive);
  return archive;
}

function unavailable(says: RegExp) {
  return (err: unknown): boolean => {
    assert.ok(err instanceof AppError && err.errorName === 'STORAGE_UNAVAILABLE', String(err));
    assert.match(err.message, says);
    assert.match(err.message, /^The archive at [^\n]+\.$/);
    return true;
  };
}

const requests = (pattern: RegExp) => server.requests.filter((request) => pattern.test(request));

describe('S3Archive', () => {
  it('has objects named by sandbox below the prefix, the description first, each with what was asked for', async () => {
    const archive = archiveAt(url, { encryption: { algorithm: 'aws:kms', key: 'k1' } });
    const small = segmentOf(nameOf(1), 10);
    const large = segmentOf(nameOf(2), 9 * MIB);
    await archive.put(small, fileOf(noise(10)), NEVER);
    await archive.put(large, fileOf(noise(9 * MIB)), NEVER);
    const keys = [small, large].map(({ filename }) => `some/where/box/${filename}`);
    assert.deepEqual(
      [...server.objects.keys()],
      keys.flatMap((key) => [`${key}.json`, key]),
    );
    for (const object of server.objects.values()) {
      assert.equal(object.headers['x-amz-server-side-encryption'], 'aws:kms');
      assert.equal(object.headers['x-amz-server-side-encryption-aws-kms-key-id'], 'k1');
    }
    assert.equal(server.objects.get(keys[1] ?? '')?.headers['x-amz-meta-sha256'], sha256(noise(9 * MIB)));
    assert.equal(server.objects.get(keys[1] ?? '')?.headers['content-type'], 'video/x-matroska');
    assert.equal(server.uploads.size, 0);
  });

  it('does not upload again what is there, but what is there and differs', async () => {
    const archive = archiveAt(url);
    const bytes = noise(9 * MIB);
    const segment = segmentOf(nameOf(1), bytes.length);
    await archive.put(segment, fileOf(noise(9 * MIB, 2)), NEVER);
    await archive.put(segment, fileOf(bytes), NEVER);
    assert.ok((await contentOf(archive, segment)).equals(bytes));
    const before = requests(/partNumber/).length;
    assert.equal(before, 4);
    await archive.put(segment, fileOf(bytes), NEVER);
    assert.equal(requests(/partNumber/).length, before);
  });

  it('finds everything on many pages, and nothing that is not a recording of its own prefix', async () => {
    const archive = archiveAt(url);
    const elsewhere = archiveAt(url, { prefix: 'some/' });
    const bytes = noise(10);
    for (let n = 0; n < 10; n++) await archive.put(segmentOf(nameOf(n), 10), fileOf(bytes), NEVER);
    await elsewhere.put(segmentOf(nameOf(99), 10), fileOf(bytes), NEVER);
    const any = { body: bytes, etag: '"x"', headers: {} };
    for (const key of [
      'notes.txt',
      'box/notes.txt',
      `other/${nameOf(1).filename}`,
      'box/x/',
      `box/${nameOf(7).filename}.part`,
    ])
      server.objects.set(`some/where/${key}`, any);
    assert.deepEqual((await listed(archive)).map(({ segment }) => segment).sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.deepEqual(
      (await listed(elsewhere)).map(({ segment }) => segment),
      [99],
    );
    assert.ok(requests(/continuation-token/).length > 6);
  });

  it('neither lists nor opens what has no description, another one, or not the described size', async () => {
    const warnings: object[] = [];
    const archive = archiveAt(url, { log: { ...OPTIONS.log, warn: (fields) => warnings.push(fields) } });
    for (let n = 0; n < 8; n++) await archive.put(segmentOf(nameOf(n), 10), fileOf(noise(10)), NEVER);
    const described = (n: number) => `some/where/box/${nameOf(n).filename}.json`;
    const set = (n: number, text: string) =>
      server.objects.set(described(n), { body: Buffer.from(text), etag: '"x"', headers: {} });
    server.objects.delete(described(0));
    set(1, '{');
    set(2, JSON.stringify(segmentOf(nameOf(3), 10)));
    set(3, JSON.stringify({ ...segmentOf(nameOf(3), 10), metadata: { a: 1 } }));
    set(4, JSON.stringify({ ...segmentOf(nameOf(4), 10), size: '10' }));
    set(5, JSON.stringify(segmentOf(nameOf(5), 11)));
    set(6, `${JSON.stringify(segmentOf(nameOf(6), 10))}${' '.repeat(300_000)}`);
    assert.deepEqual(await listed(archive), [segmentOf(nameOf(7), 10)]);
    assert.equal(warnings.length, 7);
    for (let n = 0; n < 7; n++) assert.equal(await archive.open(nameOf(n)), undefined, `${n}`);
    assert.ok(await archive.open(nameOf(7)));
  });

  it('removes the recording before its description, and a description that was left alone', async () => {
    const archive = archiveAt(url);
    await archive.put(segmentOf(nameOf(1), 10), fileOf(noise(10)), NEVER);
    assert.equal(await archive.remove(nameOf(1)), true);
    assert.deepEqual(
      requests(/^DELETE/).map((r) => /mkv(\.json)?/.exec(r)?.[0]),
      ['mkv', 'mkv.json'],
    );
    await archive.put(segmentOf(nameOf(1), 10), fileOf(noise(10)), NEVER);
    server.objects.delete(`some/where/box/${nameOf(1).filename}`);
    assert.equal(await archive.remove(nameOf(1)), false);
    assert.equal(server.objects.size, 0);
  });

  it('makes addresses that give the recording as a download, for a quarter of an hour', async () => {
    const s3rver = await startS3rver(true);
    try {
      const archive = archiveAt(s3rver.url);
      await archive.put(segmentOf(nameOf(1), 10), fileOf(noise(10)), NEVER);
      const link = await archive.link(nameOf(1));
      const answer = await fetch(link);
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get('content-disposition'), `attachment; filename="${nameOf(1).filename}"`);
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(noise(10)));
      assert.equal(new URL(link).searchParams.get('X-Amz-Expires'), '900');
      assert.equal((await fetch(link.replace('seg001', 'seg002'))).status, 403);
    } finally {
      await s3rver.close();
    }
  });

  it('gives up uploads that a day ago were left, and no others', async () => {
    const archive = archiveAt(url);
    const old = new Date(Date.now() - 25 * 3600_000);
    const key = `some/where/box/${nameOf(1).filename}`;
    const add = (id: string, of: string, initiated: Date) =>
      server.uploads.set(id, { key: of, initiated, parts: new Map(), headers: {} });
    for (let n = 0; n < 5; n++) add(`old${n}`, key, old);
    add('young', key, new Date());
    add('other', 'some/where/box/film.mkv', old);
    add('out', `elsewhere/box/${nameOf(1).filename}`, old);
    assert.equal(await archive.sweepUploads(NEVER), 5);
    assert.deepEqual([...server.uploads.keys()].sort(), ['other', 'out', 'young']);
  });

  it('goes on where uploads may not be listed, and says so once', async () => {
    const warnings: string[] = [];
    const archive = archiveAt(url, { log: { ...OPTIONS.log, warn: (_, message) => warnings.push(message) } });
    server.refusesSweeps = true;
    assert.equal(await archive.sweepUploads(NEVER), 0);
    assert.deepEqual(warnings, ['unfinished uploads stay in the archive; let its own rules remove them']);
  });

  it('tells what is wrong in a sentence, without a word of the server', async () => {
    await assert.rejects(archiveAt(url, { bucket: 'nobodys' }).check(), unavailable(/BERTH_S3_BUCKET/));
    await assert.rejects(archiveAt(url, { bucket: 'nobodys' }).open(nameOf(1)), unavailable(/BERTH_S3_BUCKET/));
    const says: [number, string, RegExp][] = [
      [403, 'InvalidAccessKeyId', /BERTH_S3_ACCESS_KEY_ID/],
      [403, 'SignatureDoesNotMatch', /BERTH_S3_SECRET_ACCESS_KEY/],
      [403, 'AccessDenied', /do not allow/],
      [400, 'AuthorizationHeaderMalformed', /BERTH_S3_REGION/],
      [418, 'Teapot', /it answered 418 Teapot/],
    ];
    for (const [status, code, pattern] of says) {
      server.refusals = [{ fits: /./, status, code, times: 1 }];
      await assert.rejects(archiveAt(url).check(), unavailable(pattern));
    }
    server.close();
    await assert.rejects(archiveAt(url).check(), unavailable(/cannot be reached \(ECONNREFUSED\)/));
  });
});

describe('S3Archive, when something goes wrong on the way,', () => {
  let proxy: FaultProxy;
  let broken: S3Archive;
  const bytes = noise(20 * MIB);
  const segment = segmentOf(nameOf(1), bytes.length);
  beforeEach(async () => {
    proxy = new FaultProxy(Number(new URL(url).port));
    broken = archiveAt(await proxy.listen(), IMPATIENT);
  });
  afterEach(() => proxy.close());

  /** After whatever happened: nothing, or the whole; then one more put brings the whole, once, and leaves nothing over. */
  async function endsWell(): Promise<void> {
    proxy.break({ kind: 'none' });
    const straight = archiveAt(url);
    for (const one of await listed(straight)) assert.ok((await contentOf(straight, one)).equals(bytes));
    await straight.put(segment, fileOf(bytes), NEVER);
    assert.deepEqual(await listed(straight), [segment]);
    assert.equal(sha256(await contentOf(straight, segment)), sha256(bytes));
  }

  const up: Record<string, Fault> = {
    'a connection cut in the middle of an upload': { kind: 'cut-up', after: 3 * MIB },
    'a server that takes no more in the middle of an upload': { kind: 'stall-up', after: 3 * MIB },
    'a server that refuses connections': { kind: 'refuse' },
    'a server that accepts and says nothing': { kind: 'stall-down', after: 0 },
    'answers that are cut': { kind: 'cut-down', after: 20 },
    'a byte changed on the way up': { kind: 'corrupt-up', at: 2 * MIB },
  };
  for (const [what, fault] of Object.entries(up)) {
    it(`${what}: for good fails, with nothing there`, LIMIT, async () => {
      proxy.break(fault);
      await assert.rejects(broken.put(segment, fileOf(bytes), NEVER), unavailable(/./));
      assert.ok(proxy.struck > 0);
      assert.equal(await archiveAt(url).open(segment), undefined);
      await endsWell();
    });

    it(`${what}: once is got over or fails, and then nothing is lost or there twice`, LIMIT, async () => {
      proxy.break(fault, 1);
      await broken.put(segment, fileOf(bytes), NEVER).catch(unavailable(/./));
      assert.equal(proxy.struck, 1);
      assert.equal(server.uploads.size, 0, 'no parts are left');
      await endsWell();
    });
  }

  it('a byte changed on the way to a server that does not look: it is noticed, and the recording does not stay', async () => {
    server.careless = true;
    proxy.break({ kind: 'corrupt-up', at: 2 * MIB }, 1);
    await assert.rejects(broken.put(segment, fileOf(bytes), NEVER), /did not arrive in the archive as it is on disk/);
    assert.equal(proxy.struck, 1);
    assert.deepEqual([...server.objects.keys()], [`some/where/box/${segment.filename}.json`]);
    await endsWell();
  });

  it('the same where ETags prove nothing', async () => {
    server.careless = true;
    server.opaqueTags = true;
    proxy.break({ kind: 'corrupt-up', at: 2 * MIB }, 1);
    await assert.rejects(broken.put(segment, fileOf(bytes), NEVER), /did not arrive in the archive as it is on disk/);
    assert.ok(!server.objects.has(`some/where/box/${segment.filename}`));
    await endsWell();
  });

  it('an overloaded server is asked again, and in the end fails', async () => {
    server.refusals = [{ fits: /partNumber=2/, status: 503, code: 'SlowDown', times: 1 }];
    await broken.put(segment, fileOf(bytes), NEVER);
    await broken.remove(segment);
    server.refusals = [{ fits: /partNumber=2/, status: 503, code: 'SlowDown', times: 1000 }];
    await assert.rejects(broken.put(segment, fileOf(bytes), NEVER), unavailable(/SlowDown/));
    assert.equal(requests(/partNumber=2/).length, 2 + 3);
    assert.equal(server.uploads.size, 0);
    server.refusals = [];
    await endsWell();
  });

  it('a lost answer to the end of an upload is no failure', async () => {
    // Done, and then "there is no such upload": as when the answer to the first try got lost.
    server.refusals = [{ fits: /^POST .*uploadId/, status: 404, code: 'NoSuchUpload', times: 1 }];
    const stored = { body: bytes, etag: '"opaque"', headers: {} };
    const open = async (): Promise<OpenedFile> => {
      if (requests(/partNumber=2/).length > 0) server.objects.set(`some/where/box/${segment.filename}`, stored);
      return fileOf(bytes)();
    };
    await broken.put(segment, open, NEVER);
    assert.equal(server.refusals[0]?.times, 0);
    await endsWell();
  });

  it('a lost answer to the beginning of an upload leaves no parts, nor when that was tried in vain before', async () => {
    for (const [times, begun] of [
      [1, 2],
      [3, 4],
    ] as const) {
      server.lost = { fits: /^POST .*\?uploads/, times };
      await broken.put(segment, fileOf(bytes), NEVER).catch(unavailable(/./));
      if (times === 3) await broken.put(segment, fileOf(bytes), NEVER);
      assert.equal(requests(/^POST .*\?uploads/).length, begun);
      assert.equal(server.uploads.size, 0);
      await broken.remove(segment);
      server.requests.length = 0;
    }
    // Of another recording.
    server.uploads.set('other', { key: 'x', initiated: new Date(), parts: new Map(), headers: {} });
    server.refusesSweeps = true;
    await endsWell();
    assert.deepEqual([...server.uploads.keys()], ['other']);
  });

  it('a file that cannot be read to its end is not the fault of the archive, and leaves no parts', async () => {
    for (const at of [2, 3]) {
      let opens = 0;
      const open = () => (++opens < at ? fileOf(bytes)() : Promise.reject(new Error('EIO')));
      await assert.rejects(broken.put(segment, open, NEVER), { message: 'EIO' });
      assert.equal(opens, at);
    }
    const cut = [fileOf(bytes), async () => ({ ...(await fileOf(bytes.subarray(0, MIB))()), size: bytes.length })];
    await assert.rejects(
      broken.put(segment, () => (cut.shift() ?? assert.fail())(), NEVER),
      { message: `the file has ${MIB} bytes, not ${bytes.length}` },
    );
    assert.equal(server.uploads.size, 0);
    await endsWell();
  });

  it('a put that is called off leaves no parts', async () => {
    const off = new AbortController();
    const open = async (): Promise<OpenedFile> => {
      if (requests(/partNumber=1/).length > 0) off.abort();
      return fileOf(bytes)();
    };
    await assert.rejects(broken.put(segment, open, off.signal));
    assert.ok(requests(/partNumber=1/).length > 0);
    assert.equal(server.uploads.size, 0);
    await endsWell();
  });

  it('a put that is called off ends, also while the server sends no more of what is read back', {
    timeout: 30_000,
  }, async () => {
    server.opaqueTags = true;
    await archiveAt(url).put(segment, fileOf(bytes), NEVER);
    const stalling = new FaultProxy(Number(new URL(url).port));
    try {
      const patient = archiveAt(await stalling.listen(), { stallMs: 600_000 });
      stalling.break({ kind: 'stall-down', after: 3 * MIB });
      const off = new AbortController();
      const called = assert.rejects(patient.put(segment, fileOf(bytes), off.signal));
      while (stalling.struck === 0) await sleep(20);
      // What is on the way already comes first.
      await sleep(STALL_MS);
      off.abort();
      await called;
    } finally {
      stalling.close();
    }
  });

  const read = async (end = bytes.length - 1): Promise<Buffer> => {
    const file = (await broken.open(segment)) ?? assert.fail();
    return buffer(file.stream(0, end));
  };
  const down: Record<string, Fault> = {
    'a connection cut in the middle of a download': { kind: 'cut-down', after: 3 * MIB },
    'a server that sends no more': { kind: 'stall-down', after: 3 * MIB },
  };
  for (const [what, fault] of Object.entries(down)) {
    it(`${what}: the reader gets an error, never a short body`, LIMIT, async () => {
      await broken.put(segment, fileOf(bytes), NEVER);
      const file = (await broken.open(segment)) ?? assert.fail();
      proxy.break(fault, 1);
      await assert.rejects(buffer(file.stream(0, bytes.length - 1)), /nothing for|broke off|aborted|ECONNRESET/);
      assert.equal(proxy.struck, 1);
      assert.ok((await read()).equals(bytes));
    });
  }

  it('a body that is shorter than it was to be, though it ends well, is an error to the reader', async () => {
    await broken.put(segment, fileOf(bytes), NEVER);
    server.short = true;
    await assert.rejects(read(), /broke off with 1 bytes to come/);
    await assert.rejects(read(99), /broke off with 1 bytes to come/);
  });

  it('a recording that is replaced between two reads is not mixed with the new one, whether the server looks or not', async () => {
    await broken.put(segment, fileOf(bytes), NEVER);
    for (const careless of [false, true]) {
      server.careless = careless;
      const file = (await broken.open(segment)) ?? assert.fail();
      await archiveAt(url).put(segment, fileOf(noise(bytes.length, careless ? 3 : 4)), NEVER);
      await assert.rejects(buffer(file.stream(0, 99)), unavailable(/412|another recording/));
    }
  });

  it('a slow reader holds up the server, not memory, and is not taken for a server that sends nothing', async () => {
    await broken.put(segment, fileOf(bytes), NEVER);
    const file = (await broken.open(segment)) ?? assert.fail();
    const before = proxy.down;
    const stream = file.stream(0, bytes.length - 1);
    const got: Buffer[] = [];
    for await (const chunk of stream) {
      got.push(chunk as Buffer);
      if (got.length > 1) continue;
      await sleep(STALL_MS * 2.5);
      // What the kernels on the way hold comes to some MiB.
      assert.ok(proxy.down - before < 15 * MIB, `${proxy.down - before} bytes came`);
    }
    assert.ok(Buffer.concat(got).equals(bytes));
  });
});

describe('Uploader and S3Archive', () => {
  it('bring every segment up once and whole, over cut connections and restarts', LIMIT, async () => {
    const proxy = new FaultProxy(Number(new URL(url).port));
    const endpoint = await proxy.listen();
    try {
      const queue = new FakeQueue(() => Date.now());
      for (let n = 0; n < 6; n++) queue.add(n, noise((n % 2 ? 9 : 1) * MIB + n, n));
      const wanted = new Map([...queue.disk].map(([name, { bytes }]) => [name, sha256(bytes)]));
      const faults: Fault[] = [
        { kind: 'cut-up', after: MIB },
        { kind: 'cut-down', after: 100 },
        { kind: 'corrupt-up', at: 500_000 },
      ];
      for (let round = 0; queue.pending().length > 0; round++) {
        const fault = faults[round];
        proxy.break(fault ?? { kind: 'none' }, 8);
        const archive = archiveAt(endpoint, IMPATIENT);
        const uploader = new Uploader({ queue, archive, localMs: 0, log: OPTIONS.log });
        uploader.wake();
        const upTo = Date.now() + 1500;
        while (queue.pending().length > 0 && (fault === undefined || Date.now() < upTo)) await sleep(20);
        await uploader.close();
        for (const one of await listed(archiveAt(url)))
          assert.equal(sha256(await contentOf(archiveAt(url), one)), wanted.get(one.filename));
      }
      const all = await listed(archiveAt(url));
      assert.deepEqual(all.map(({ filename }) => filename).sort(), [...wanted.keys()].sort());
      assert.equal(server.objects.size, 2 * wanted.size);
      // Where the answer to the very first call of an upload was cut, and so was the list of those that are left over, the
      // sweep of the next start ends it.
      const keys = new Set(server.objects.keys());
      for (const { key } of server.uploads.values()) assert.ok(keys.has(key), key);
    } finally {
      proxy.close();
    }
  });
});
