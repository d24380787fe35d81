import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { MediaFacts } from '../../src/core/recording.ts';
import { children } from '../../src/recordings/ebml.ts';
import { ID, type MatroskaPart, readMatroska } from '../../src/recordings/matroska.ts';
import { scan } from '../../src/recordings/scan.ts';
import { element, idBytes, openBelow, openFile, record, recording } from './segments.ts';

const LIMIT = { timeout: 120_000 };
const NOTHING: MediaFacts = { durationMs: 0, frames: 0, headerBytes: 0, clusters: 0, frameBytes: 0 };

let folder: string;
/** 2 s, 2 s and 0.7 s at 10 frames a second. */
let segments: string[];
/** Half a second, a few thousand bytes. */
let small: Buffer;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bt-mkv-'));
  segments = await record(folder, 'normal', { seconds: 4.7 });
  const [tiny] = await record(folder, 'tiny', { seconds: 1, width: 32, height: 32, fps: 5 });
  small = readFileSync(tiny as string);
}, LIMIT);

after(() => rmSync(folder, { recursive: true, force: true }));

async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function partsOf(chunks: AsyncIterable<Uint8Array>): Promise<MatroskaPart[]> {
  const parts: MatroskaPart[] = [];
  for await (const part of readMatroska(chunks)) parts.push(part);
  return parts;
}

function scanBytes(bytes: Buffer, size = bytes.length): Promise<MediaFacts> {
  return scan({
    size: bytes.length,
    createdAt: 0,
    stream: (start, end) => Readable.from(pieces(bytes.subarray(start, end + 1), size)),
    close: async () => {},
  });
}

function damageOf(parts: readonly MatroskaPart[]): string {
  const last = parts.at(-1);
  return last?.kind === 'damage' ? last.reason : '';
}

function framesIn(parts: readonly MatroskaPart[]): number {
  return parts.reduce((sum, part) => sum + (part.kind === 'cluster' ? part.cluster.frames : 0), 0);
}

/** Where each whole frame ends in these bytes. */
async function frameEnds(bytes: Buffer): Promise<number[]> {
  const ends: number[] = [];
  let at = 0;
  for (const part of await partsOf(pieces(bytes, bytes.length))) {
    if (part.kind !== 'cluster') continue;
    for (const frame of part.cluster.elements) {
      at = bytes.indexOf(frame, at) + frame.length;
      ends.push(at);
    }
  }
  return ends;
}

/** A file of our own making: one track, and what follows it. */
function file(track: Buffer[], ...rest: Buffer[]): Buffer {
  const entry = element(ID.trackEntry, element(0xd7, [1]), ...track);
  return Buffer.concat([
    element(ID.ebml, element(0x4282, Buffer.from('matroska'))),
    idBytes(ID.segment),
    Buffer.from('01ffffffffffffff', 'hex'),
    element(ID.tracks, entry),
    ...rest,
  ]);
}

const time = (ticks: number): Buffer => element(ID.timestamp, [ticks >> 8, ticks & 255]);
const block = (ticks: number): number[] => [0x81, (ticks >> 8) & 255, ticks & 255, 0x80, 1, 2, 3];
const frame = (ticks: number): Buffer => element(ID.simpleBlock, block(ticks));

describe('scan', () => {
  it('tells of each segment what ffprobe tells', LIMIT, async () => {
    const told: number[][] = [];
    for (const path of segments) {
      const facts = await scan(await openFile(path));
      const args = ['-v', 'error', '-count_frames', '-show_entries', 'stream=nb_read_frames:format=duration'];
      const [frames, duration] = execFileSync('ffprobe', [...args, '-of', 'default=nw=1:nk=1', path])
        .toString()
        .split('\n');
      assert.deepEqual([facts.frames, facts.durationMs], [Number(frames), Number(duration) * 1000]);
      const bytes = readFileSync(path);
      assert.equal(facts.headerBytes, bytes.indexOf(idBytes(ID.cluster)));
      const ends = await frameEnds(bytes);
      assert.equal(ends.length, facts.frames);
      assert.ok(facts.frameBytes < statSync(path).size - facts.headerBytes);
      told.push([facts.frames, facts.durationMs, facts.clusters]);
    }
    assert.deepEqual(told, [
      [20, 2000, 4],
      [20, 2000, 4],
      [7, 700, 2],
    ]);
  });

  it('tells of a file whose ffmpeg was killed all that the decoder finds', LIMIT, async () => {
    const child = recording(folder, 'killed', { seconds: 60, segmentSeconds: 60, live: true });
    const path = join(folder, 'killed_seg000.mkv');
    try {
      let facts = NOTHING;
      for (const until = Date.now() + 60_000; facts.frames < 12 && Date.now() < until; await sleep(100)) {
        if (!statSync(path, { throwIfNoEntry: false })) continue;
        facts = await scan(await openFile(path));
        // Until the first cluster is there, nothing plays.
        if (facts.frames === 0) assert.deepEqual(facts, NOTHING);
      }
    } finally {
      child.kill('SIGKILL');
    }
    await new Promise((resolve) => child.once('close', resolve));
    const facts = await scan(await openFile(path));
    const args = ['-v', 'error', '-count_frames', '-show_entries', 'stream=nb_read_frames', '-of', 'csv=p=0', path];
    assert.equal(facts.frames, Number(execFileSync('ffprobe', args, { stdio: ['ignore', 'pipe', 'ignore'] })));
    assert.equal(facts.durationMs, facts.frames * 100);
    assert.ok(facts.headerBytes > 0);
  });

  it('reads to the size that the file had when it was opened, and closes it', async () => {
    const path = join(folder, 'grows.mkv');
    const [end] = (await frameEnds(small)).slice(1);
    writeFileSync(path, small.subarray(0, end));
    const opened = await openFile(path);
    appendFileSync(path, small.subarray(end));
    assert.equal((await scan(opened)).frames, 2);
    assert.equal((await scan(await openFile(path))).frames, 5);
    writeFileSync(path, '');
    assert.deepEqual(await scan(await openFile(path)), NOTHING);
    for (const until = Date.now() + 60_000; openBelow(folder) > 0 && Date.now() < until; ) await sleep(5);
    assert.equal(openBelow(folder), 0);
  });

  it('asks nothing of an empty file but to be closed', async () => {
    let closed = false;
    const close = async (): Promise<void> => {
      closed = true;
    };
    const stream = () => assert.fail('an empty range');
    assert.deepEqual(await scan({ size: 0, createdAt: 0, stream, close }), NOTHING);
    assert.ok(closed);
  });

  it('rejects when the file cannot be read', async () => {
    const broken = Readable.from(
      (async function* () {
        yield small.subarray(0, 1000);
        throw new Error('EIO');
      })(),
    );
    await assert.rejects(scan({ size: 5, createdAt: 0, stream: () => broken, close: async () => {} }), /EIO/);
  });

  it('estimates what the last frame lasts from the one before, when the track does not say', async () => {
    const cluster = element(ID.cluster, time(1000), frame(0), frame(40), frame(90));
    assert.equal((await scanBytes(file([], cluster))).durationMs, 140);
    assert.equal((await scanBytes(file([], cluster, element(ID.cluster, time(1120), frame(0))))).durationMs, 150);
    assert.equal((await scanBytes(file([], element(ID.cluster, time(1000), frame(0))))).durationMs, 0);
    const said = element(ID.frameNs, [0x05, 0xf5, 0xe1, 0x00]);
    assert.equal((await scanBytes(file([said], cluster))).durationMs, 190);
    // Nobody's frames last for years.
    const absurd = element(ID.frameNs, [0x1f, 0, 0, 0, 0, 0, 0]);
    assert.equal((await scanBytes(file([absurd], cluster))).durationMs, 140);
  });

  it('reads groups of blocks with their own duration, and times against the first frame', async () => {
    const group = element(ID.blockGroup, element(ID.block, block(50)), element(ID.blockDuration, [25]));
    const facts = await scanBytes(file([], element(ID.cluster, time(1000), frame(-10), group)));
    assert.deepEqual([facts.frames, facts.durationMs], [2, 85]);
    const before = await scanBytes(file([], element(ID.cluster, time(1000), frame(30), frame(50))));
    assert.equal(before.durationMs, 70);
  });

  it('counts in the ticks of the file', async () => {
    const info = element(ID.info, element(ID.tickNs, [0x98, 0x96, 0x80]));
    const cluster = element(ID.cluster, time(0), frame(0), frame(4));
    const bytes = file([], info, cluster);
    assert.equal((await scanBytes(bytes)).durationMs, 80);
    assert.deepEqual(await scanBytes(file([], element(ID.info, element(ID.tickNs, [0])), cluster)), NOTHING);
  });

  it('passes over everything that is no frame', async () => {
    const noise = [
      element(ID.void, Buffer.alloc(100_000)),
      element(0x1254c367, Buffer.alloc(300, 7)),
      element(0xbf, [1, 2, 3, 4]),
    ];
    const inside = [
      time(0),
      element(0xab, [1]),
      element(ID.void, Buffer.alloc(70_000)),
      frame(0),
      element(0xa7, [9]),
      frame(1),
    ];
    const bytes = file(
      [],
      ...noise,
      element(ID.cluster, ...inside),
      ...noise,
      element(ID.cluster, time(2), frame(0)),
      ...noise,
    );
    for (const size of [1000, 65_536]) {
      const parts = await partsOf(pieces(bytes, size));
      assert.deepEqual([framesIn(parts), damageOf(parts)], [3, '']);
    }
    assert.equal((await scanBytes(bytes)).frameBytes, 3 * frame(0).length);
  });

  it('reads clusters of unknown size, the last one to the end of the file', async () => {
    const unknown = (...inside: Buffer[]): Buffer =>
      Buffer.concat([idBytes(ID.cluster), Buffer.from([0xff]), ...inside]);
    const bytes = file(
      [],
      unknown(time(0), frame(0)),
      unknown(time(5), frame(0), frame(1)),
      element(0x1c53bb6b, [1]),
      unknown(time(9), frame(0)),
    );
    const parts = await partsOf(pieces(bytes, 7));
    assert.deepEqual([framesIn(parts), damageOf(parts)], [4, '']);
    assert.equal((await scanBytes(bytes)).clusters, 3);
  });

  it('takes a very large cluster in parts', async () => {
    const many = Array.from({ length: 5000 }, (_, i) => frame(i));
    const facts = await scanBytes(file([], element(ID.cluster, time(0), ...many)), 65_536);
    assert.deepEqual([facts.frames, facts.clusters, facts.durationMs], [5000, 2, 5000]);
    const large = element(ID.simpleBlock, block(0), Buffer.alloc(5 * 1024 * 1024));
    const heavy = await scanBytes(file([], element(ID.cluster, time(0), large, large, large)), 65_536);
    assert.deepEqual([heavy.frames, heavy.clusters], [3, 2]);
  });
});

describe('readMatroska', () => {
  it('gives the same parts whatever the chunks are', LIMIT, async () => {
    const whole = await partsOf(pieces(small, small.length));
    assert.equal(framesIn(whole), 5);
    assert.equal(damageOf(whole), '');
    assert.deepEqual(await partsOf(pieces(small, 1)), whole);
    for (let at = 0; at <= small.length; at += 1) {
      const halves = (async function* () {
        yield small.subarray(0, at);
        yield small.subarray(at);
      })();
      assert.deepEqual(await partsOf(halves), whole, `split at ${at}`);
    }
  });

  it('gives every whole frame of a file that is cut anywhere, and says that it was cut', LIMIT, async () => {
    const ends = await frameEnds(small);
    const whole = await scanBytes(small);
    for (let cut = 0; cut < small.length; cut += 1) {
      const frames = ends.filter((end) => end <= cut).length;
      const facts = await scanBytes(small.subarray(0, cut));
      if (frames === 0) assert.deepEqual(facts, NOTHING, `cut at ${cut}`);
      else {
        assert.equal(facts.frames, frames, `cut at ${cut}`);
        assert.equal(facts.headerBytes, whole.headerBytes);
        assert.equal(facts.durationMs, frames * 200);
      }
    }
    const inside = await partsOf(pieces(small.subarray(0, (ends[2] as number) + 3), 100));
    assert.match(damageOf(inside), /ends in the middle/);
  });

  it('does not believe what is no Matroska', async () => {
    for (const bytes of [
      Buffer.alloc(100_000),
      Buffer.alloc(5000, 0xff),
      Buffer.from('#EXTM3U\nfile:///etc/passwd\n'),
    ]) {
      const parts = await partsOf(pieces(bytes, 4096));
      assert.equal(parts.length, 1);
      assert.match(damageOf(parts), /^[A-Z].*\.$/);
      assert.deepEqual(await scanBytes(bytes), NOTHING);
    }
  });

  it('does not believe a header whose parts are larger than it', async () => {
    const whole = file([element(0x86, Buffer.from('V_TEST'))], element(ID.cluster, time(0), frame(0)));
    const entry = whole.indexOf(idBytes(ID.trackEntry), whole.indexOf(idBytes(ID.tracks)) + 4);
    const bytes = Buffer.from(whole);
    bytes[entry + 8] = (bytes[entry + 8] as number) + 1;
    assert.match(damageOf(await partsOf(pieces(bytes, 4096))), /larger than the one around it/);
    assert.equal((await scanBytes(whole)).frames, 1);
    assert.deepEqual(await scanBytes(bytes), NOTHING);
  });

  it('keeps what is before a part that the disk lost', async () => {
    const ends = await frameEnds(small);
    const zeroed = Buffer.from(small);
    zeroed.fill(0, ends[2]);
    assert.equal((await scanBytes(zeroed)).frames, 3);
  });

  it('ends and throws nothing, whatever is damaged', LIMIT, async () => {
    const whole = await scanBytes(small);
    let state = 42;
    const random = (below: number): number => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    for (let round = 0; round < 3000; round += 1) {
      const bytes = Buffer.from(small);
      // Mostly where the structure is: the header, and the first bytes of the clusters.
      const reach = round % 2 ? 700 : bytes.length;
      for (let i = 0; i <= random(6); i += 1) bytes[random(reach)] = [0, 0xff, random(256)][random(3)] as number;
      const facts = await scanBytes(bytes, 1 + random(bytes.length));
      assert.ok(facts.frames >= 0 && facts.frameBytes <= small.length && Number.isFinite(facts.durationMs));
      assert.equal(facts.headerBytes > 0, facts.frames > 0);
    }
    for (let round = 0; round < 300; round += 1) {
      const noise = Buffer.from(Array.from({ length: 2000 }, () => random(256)));
      await scanBytes(Buffer.concat([small.subarray(0, whole.headerBytes), noise]));
      assert.deepEqual(await scanBytes(noise), NOTHING);
    }
  });

  it('holds little, whatever sizes are declared', LIMIT, async () => {
    const endless = (head: Buffer, megabytes: number): AsyncGenerator<Buffer> =>
      (async function* () {
        yield head;
        const zeros = Buffer.alloc(1024 * 1024);
        for (let i = 0; i < megabytes; i += 1) yield zeros;
      })();
    const huge = Buffer.from('0100004000000000', 'hex');
    const start = file([]);
    const cluster = Buffer.concat([idBytes(ID.cluster), Buffer.from([0xff]), time(0)]);
    const cases: [Buffer, RegExp][] = [
      // A frame, a Void in the header and one in a cluster, each of 256 GiB.
      [Buffer.concat([start, cluster, frame(0), idBytes(ID.simpleBlock), huge]), /says that it takes/],
      [Buffer.concat([start, idBytes(ID.void), huge]), /header takes more/],
      [Buffer.concat([start, cluster, frame(0), idBytes(ID.void), huge]), /ends in the middle/],
      [Buffer.concat([start, idBytes(ID.cluster), huge, time(0), idBytes(ID.void), huge]), /larger than its cluster/],
    ];
    for (const [head, reason] of cases) {
      const before = process.memoryUsage().rss;
      const parts = await partsOf(endless(head, 256));
      assert.match(damageOf(parts), reason);
      assert.ok(process.memoryUsage().rss - before < 100 * 1024 * 1024, String(reason));
    }
  });

  it('ends its chunks when nobody reads on', async () => {
    let ended = false;
    const chunks = (async function* () {
      try {
        for (;;) yield small;
      } finally {
        ended = true;
      }
    })();
    for await (const part of readMatroska(chunks)) if (part.kind === 'header') break;
    assert.ok(ended);
  });

  it('knows which headers need the same decoder', async () => {
    const decoder = async (path: string): Promise<Buffer> => {
      const [part] = await partsOf(pieces(readFileSync(path), 4096));
      assert.ok(part?.kind === 'header');
      return part.header.decoder;
    };
    const [first, second] = segments as [string, string];
    const uid = (path: string): Buffer => {
      const bytes = readFileSync(path);
      return bytes.subarray(bytes.indexOf(idBytes(ID.trackUid))).subarray(0, 11);
    };
    assert.notDeepEqual(uid(first), uid(second), 'each file has its own track id');
    assert.deepEqual(await decoder(first), await decoder(second));
    assert.notDeepEqual(await decoder(first), await decoder(join(folder, 'tiny_seg000.mkv')));
    assert.deepEqual([...children(Buffer.alloc(0))], []);
  });
});
