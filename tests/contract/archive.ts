import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import type { Archive, OpenedFile } from '../../src/core/contracts.ts';
import { parseSegmentName, type Segment, type SegmentName } from '../../src/core/recording.ts';

const NEVER = new AbortController().signal;

/** Bytes that look like nothing else, the same for the same seed. */
export function noise(bytes: number, seed = 1): Buffer {
  const all = Buffer.alloc(bytes);
  let state = seed;
  for (let i = 0; i < bytes; i += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    all.writeUInt32LE(state, Math.min(i, Math.max(0, bytes - 4)));
    if (bytes < 4) return all;
  }
  return all;
}

export function nameOf(n: number, sandboxId = 'box'): SegmentName {
  const name = parseSegmentName(`vnc_${sandboxId}_20251116_103022_seg${String(n).padStart(3, '0')}.mkv`);
  return name ?? assert.fail();
}

export function segmentOf(name: SegmentName, size: number): Segment {
  return {
    ...name,
    size,
    startedAt: 1_763_289_022_000 + name.segment,
    durationMs: 5000,
    frames: 50,
    headerBytes: 300,
    clusters: 5,
    frameBytes: size,
    owner: 'acme',
    metadata: { note: 'über "quotes" & <tags>\n' },
    reason: 'full',
    dropped: null,
  };
}

/** An open file with these bytes, as a disk has it; it counts how it is used. */
export function fileOf(bytes: Buffer): () => Promise<OpenedFile> {
  return async () => ({
    size: bytes.length,
    createdAt: 0,
    stream: (start, end) =>
      Readable.from(
        (function* () {
          for (let at = start; at <= end; at += 64 * 1024) yield bytes.subarray(at, Math.min(at + 64 * 1024, end + 1));
        })(),
        { objectMode: false },
      ),
    close: async () => {},
  });
}

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** What is common to all places where recordings lie, archive or disk. */
export interface PlaceUnderTest {
  add(name: SegmentName, bytes: Buffer): Promise<void>;
  /** Names of files. */
  list(): Promise<string[]>;
  open(name: SegmentName): Promise<OpenedFile | undefined>;
  remove(name: SegmentName): Promise<boolean>;
  /** The server behind it gives all when it is asked for the first byte alone. */
  readonly noFirstByte?: boolean;
  clean(): Promise<void>;
}

/** Every place where recordings lie passes this. */
export function placeContract(name: string, make: () => Promise<PlaceUnderTest>): void {
  describe(`${name}, as a place of recordings`, () => {
    let place: PlaceUnderTest;
    before(async () => {
      place = await make();
    });
    after(() => place.clean());
    const read = async (n: number, start: number, end: number): Promise<Buffer> => {
      const file = (await place.open(nameOf(n))) ?? assert.fail('it does not open');
      return buffer(file.stream(start, end));
    };

    it('has nothing at first, and says so of any name', async () => {
      assert.deepEqual(await place.list(), []);
      assert.equal(await place.open(nameOf(0)), undefined);
      assert.equal(await place.remove(nameOf(0)), false);
    });

    it('lists all that was added, of all sandboxes', async () => {
      const names = [nameOf(1), nameOf(2), nameOf(3), nameOf(1, 'other'), nameOf(2, 'other'), nameOf(1000)];
      for (const one of names) await place.add(one, noise(100, one.segment));
      assert.deepEqual((await place.list()).sort(), names.map(({ filename }) => filename).sort());
      for (const one of names) assert.equal(await place.remove(one), true);
      assert.deepEqual(await place.list(), []);
    });

    it('gives any inclusive range', async () => {
      const bytes = noise(300_001);
      await place.add(nameOf(4), bytes);
      const file = (await place.open(nameOf(4))) ?? assert.fail();
      assert.equal(file.size, bytes.length);
      await file.close();
      const ranges = place.noFirstByte ? [] : [[0, 0] as const];
      for (const [start, end] of [
        ...ranges,
        [0, 300_000],
        [1, 1],
        [65_535, 65_536],
        [300_000, 300_000],
        [7, 299_999],
      ] as const)
        assert.ok((await read(4, start, end)).equals(bytes.subarray(start, end + 1)), `${start}-${end}`);
    });

    it('has files of no byte and of one', async () => {
      await place.add(nameOf(5), Buffer.alloc(0));
      const file = (await place.open(nameOf(5))) ?? assert.fail();
      assert.equal(file.size, 0);
      assert.equal((await buffer(file.stream(0, -1))).length, 0);
      await place.add(nameOf(9), Buffer.from('x'));
      assert.equal((await read(9, 0, 0)).toString(), 'x');
    });

    it('removes once, and only what it was told', async () => {
      await place.add(nameOf(6), noise(10));
      await place.add(nameOf(7), noise(10));
      assert.equal(await place.remove(nameOf(6)), true);
      assert.equal(await place.remove(nameOf(6)), false);
      assert.equal(await place.open(nameOf(6)), undefined);
      assert.ok((await place.list()).includes(nameOf(7).filename));
    });

    it('lets a reader go in the middle', async () => {
      await place.add(nameOf(8), noise(3_000_000));
      const file = (await place.open(nameOf(8))) ?? assert.fail();
      const stream = file.stream(0, 2_999_999) as Readable;
      await new Promise((resolve) => stream.once('readable', resolve));
      stream.destroy();
      await new Promise((resolve) => stream.once('close', resolve));
      assert.equal((await read(8, 0, 2_999_999)).length, 3_000_000);
    });
  });
}

/** What the suite needs of an archive under test. */
export interface ArchiveUnderTest {
  readonly archive: Archive;
  readonly noFirstByte?: boolean;
  clean(): Promise<void>;
}

export async function listed(archive: Archive): Promise<Segment[]> {
  const all: Segment[] = [];
  for await (const segment of archive.list(NEVER)) all.push(segment);
  return all;
}

export async function contentOf(archive: Archive, name: SegmentName): Promise<Buffer> {
  const file = (await archive.open(name)) ?? assert.fail(`${name.filename} does not open`);
  return buffer(file.stream(0, file.size - 1));
}

/** Every archive passes this, and the contract of places. */
export function archiveContract(name: string, make: () => Promise<ArchiveUnderTest>): void {
  placeContract(name, async () => {
    const { archive, clean, noFirstByte = false } = await make();
    return {
      noFirstByte,
      add: (one, bytes) => archive.put(segmentOf(one, bytes.length), fileOf(bytes), NEVER),
      list: async () => (await listed(archive)).map(({ filename }) => filename),
      open: (one) => archive.open(one),
      remove: (one) => archive.remove(one),
      clean,
    };
  });

  describe(`${name}, as an archive`, () => {
    let under: ArchiveUnderTest;
    let archive: Archive;
    before(async () => {
      under = await make();
      archive = under.archive;
    });
    after(() => under.clean());

    it('can be checked', () => archive.check());

    it('gives back every word of the segment, and its time', async () => {
      const bytes = noise(1000);
      const { owner: _, ...nobodys } = segmentOf(nameOf(1), bytes.length);
      const wanted = [nobodys, segmentOf(nameOf(2), bytes.length)];
      for (const segment of wanted) await archive.put(segment, fileOf(bytes), NEVER);
      const all = await listed(archive);
      assert.deepEqual(
        all.sort((a, b) => a.segment - b.segment),
        wanted,
      );
      assert.equal((await archive.open(nameOf(2)))?.createdAt, wanted[1]?.startedAt);
    });

    it('takes what needs many requests, whole', async () => {
      const bytes = noise(20 * 1024 * 1024 + 3);
      await archive.put(segmentOf(nameOf(3), bytes.length), fileOf(bytes), NEVER);
      assert.equal(sha256(await contentOf(archive, nameOf(3))), sha256(bytes));
      const file = (await archive.open(nameOf(3))) ?? assert.fail();
      const edge = 8 * 1024 * 1024;
      assert.ok((await buffer(file.stream(edge - 1, edge + 1))).equals(bytes.subarray(edge - 1, edge + 2)));
    });

    it('takes the same again, and has it once', async () => {
      const bytes = noise(500, 7);
      const segment = segmentOf(nameOf(4, 'twice'), bytes.length);
      await archive.put(segment, fileOf(bytes), NEVER);
      await archive.put(segment, fileOf(bytes), NEVER);
      const all = (await listed(archive)).filter(({ sandboxId }) => sandboxId === 'twice');
      assert.deepEqual(all, [segment]);
    });

    it('has nothing of a file that is not as long as the segment says', async () => {
      const segment = segmentOf(nameOf(5, 'short'), 1001);
      await assert.rejects(archive.put(segment, fileOf(noise(1000)), NEVER));
      assert.equal(await archive.open(segment), undefined);
    });

    it('has nothing of a put that was called off, or whose file cannot be read', async () => {
      const bytes = noise(9 * 1024 * 1024);
      const segment = segmentOf(nameOf(6, 'off'), bytes.length);
      await assert.rejects(archive.put(segment, fileOf(bytes), AbortSignal.abort()));
      const midway = new AbortController();
      let opens = 0;
      const open = async (): Promise<OpenedFile> => {
        if (++opens > 1) midway.abort();
        return fileOf(bytes)();
      };
      const put = archive.put(segment, open, midway.signal);
      // Who reads the file once is through before it is called off.
      if (
        await put.then(
          () => false,
          () => true,
        )
      )
        assert.equal(await archive.open(segment), undefined);
      await archive.remove(segment);
      await assert.rejects(
        archive.put(segment, () => Promise.reject(new Error('gone')), NEVER),
        /gone/,
      );
      assert.equal(await archive.open(segment), undefined);
    });

    it('makes an address', async () => {
      const bytes = noise(10);
      await archive.put(segmentOf(nameOf(7), 10), fileOf(bytes), NEVER);
      assert.ok(URL.canParse(await archive.link(nameOf(7))));
    });
  });
}

/** The bytes from `start` to `end` of a file that is this piece over and over. */
export function fileOfPieces(piece: Buffer, start: number, end: number): Readable {
  return Readable.from(
    (function* () {
      for (let at = start; at <= end; ) {
        const from = at % piece.length;
        const chunk = piece.subarray(from, Math.min(piece.length, from + 64 * 1024, from + end - at + 1));
        at += chunk.length;
        yield chunk;
      }
    })(),
    { objectMode: false },
  );
}
