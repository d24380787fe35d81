import assert from 'node:assert/strict';
import fs from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import type { Archive, OpenedFile } from '../../src/core/contracts.ts';
import type { Segment, SegmentName } from '../../src/core/recording.ts';
import type { Library } from '../../src/recordings/library.ts';
import { DiskStorage } from '../../src/storage/disk.ts';
import { aroundEach, base, closed, counting, name, put, root, scans, segment, started } from './library.ts';

aroundEach();

describe('With an archive', () => {
  it('is the queue of what the archive has not, oldest first, and lets the disk go of what it has', async () => {
    const archive = new FakeArchive();
    for (const n of [0, 1]) put(segment(n));
    let now = Date.now();
    const library = await started({ archive, now: () => now });
    assert.deepEqual(
      library.pending().map((one) => one.segment),
      [0, 1],
    );
    const [oldest] = library.pending() as [Segment];
    const file = await library.openLocal(oldest);
    assert.equal(file?.size, 10);
    await file?.close();
    archive.kept.set(oldest.filename, oldest);
    assert.equal(await library.archived(oldest), true);
    assert.deepEqual(
      library.pending().map((one) => one.segment),
      [1],
    );
    assert.deepEqual(library.evictable(1000), []);
    now += 1000;
    assert.deepEqual(
      library.evictable(1000).map((one) => one.segment),
      [0],
    );
    await library.evict(oldest);
    assert.ok(!fs.existsSync(join(root, 'box', segment(0))));
    await library.sweep();
    assert.equal(library.find(segment(0))?.onDisk, false);
    const fromArchive = await library.open(oldest);
    assert.equal((await buffer((fromArchive as OpenedFile).stream(0, 9))).toString(), 'archived');
    assert.equal(await library.remove(oldest, 'deleted'), true);
    assert.deepEqual([...archive.kept], []);
    assert.equal(await library.archived(oldest), false, 'what was deleted meanwhile has to go there too');
  });

  it('looks again into a file that was changed by hand and so could never be uploaded', async () => {
    put(segment(0));
    const library = await started({ archive: new FakeArchive() });
    put(segment(0), 'longer than before');
    const [old] = library.pending() as [Segment];
    await (await library.openLocal(old))?.close();
    await library.sweep();
    await library.settled();
    assert.deepEqual(
      library.pending().map(({ size }) => size),
      [18],
    );
  });

  it('knows of a file that the disk did not let go of', async () => {
    put(segment(0));
    const storage = new DiskStorage(root);
    let failing = true;
    const remove = storage.remove.bind(storage);
    storage.remove = async (id, filename) => {
      if (failing) throw new Error('EIO');
      return remove(id, filename);
    };
    const library = await started({ archive: new FakeArchive(), storage });
    await library.archived(name(segment(0)));
    const [kept] = library.evictable(0) as [Segment];
    await assert.rejects(library.evict(kept), /EIO/);
    assert.deepEqual(library.evictable(0), [{ ...kept, onDisk: true }]);
    failing = false;
    await library.evict(kept);
    assert.deepEqual(library.evictable(0), []);
    assert.ok(!fs.existsSync(join(root, 'box', segment(0))));
  });

  it('learns from the archive what the index does not know, and looks into nothing that the archive has', async () => {
    const archive = new FakeArchive();
    for (const n of [0, 1]) put(segment(n));
    const first = await started({ archive });
    for (const one of first.pending()) archive.kept.set(one.filename, one);
    await first.close();
    for (const file of ['index.jsonl', `recordings/box/${segment(0)}`]) fs.rmSync(join(base, file));
    scans.length = 0;
    const second = await started({ archive });
    assert.deepEqual(
      second.closed().map((entry) => [entry.segment, entry.onDisk, entry.archivedAt !== undefined]),
      [
        [1, true, true],
        [0, false, true],
      ],
    );
    assert.deepEqual(scans, []);
  });

  it('asks again until the archive has answered, and lists what is on disk meanwhile', async () => {
    const archive = new FakeArchive();
    archive.failing = true;
    put(segment(0));
    const library = await started({ archive });
    assert.deepEqual(closed(library), [segment(0)]);
    archive.failing = false;
    archive.kept.set(segment(5), { ...(library.find(segment(0)) as Segment), ...name(segment(5)) });
    await library.sweep();
    assert.equal(library.closed().length, 2);
  });

  it('removes nothing when the archive has it and cannot be asked', async () => {
    const archive = new FakeArchive();
    put(segment(0));
    const library = await started({ archive });
    await library.archived(name(segment(0)));
    archive.failing = true;
    await assert.rejects(library.remove(name(segment(0)), 'deleted'), /away/);
    assert.deepEqual(closed(library), [segment(0)]);
    assert.ok(fs.existsSync(join(root, 'box', segment(0))));
  });
});

describe('What was deleted before the archive was known to have it', () => {
  const unwanted = (library: Library) => library.unwanted().map((one) => one.segment);

  it('is unwanted there, also after a restart and a lost half of the index, until the archive has nothing of it', async () => {
    const archive = new FakeArchive();
    for (const n of [0, 1]) put(segment(n));
    const first = await started({ archive });
    const [one, other] = first.pending() as [Segment, Segment];
    // As an upload has it that has just ended, and whose end nobody has heard of.
    archive.kept.set(one.filename, one);
    assert.equal(await first.remove(one, 'deleted'), true);
    assert.equal(await first.archived(one), false);
    // By hand.
    fs.rmSync(join(root, 'box', other.filename));
    await first.sweep();
    assert.deepEqual(unwanted(first), [0, 1]);
    await first.close();
    const second = await started({ archive });
    assert.deepEqual(closed(second), [], 'it does not come back from the archive');
    assert.deepEqual(unwanted(second), [0, 1]);
    for (const name of second.unwanted()) second.cleared(name);
    await second.close();
    assert.deepEqual(unwanted(await started({ archive })), []);
  });

  it('goes up anew when it is put back, and not before the copy of the deleted one is gone', async () => {
    const archive = new FakeArchive();
    put(segment(0));
    const library = await started({ archive });
    await library.remove(name(segment(0)), 'deleted');
    put(segment(0), 'another');
    await library.sweep();
    await library.settled();
    assert.deepEqual(
      library.pending().map((one) => one.segment),
      [0],
    );
    assert.equal(await library.archived(name(segment(0))), false);
    library.cleared(name(segment(0)));
    assert.equal(await library.archived(name(segment(0))), true);
  });

  it('is unwanted when the upload ended while it was being deleted', async () => {
    const archive = new FakeArchive();
    put(segment(0));
    const disk = new DiskStorage(root, { inUse: () => false });
    const storage = counting(disk);
    storage.remove = async (id, filename) => {
      await library.archived(name(filename));
      return disk.remove(id, filename);
    };
    const library = await started({ archive, storage });
    assert.equal(await library.remove(name(segment(0)), 'deleted'), true);
    assert.deepEqual(unwanted(library), [0]);
  });

  it('is not when the archive had it and removed it, when there was nothing, and where there is no archive', async () => {
    const archive = new FakeArchive();
    for (const n of [0, 1]) put(segment(n));
    const library = await started({ archive });
    archive.kept.set(segment(0), library.find(segment(0)) as Segment);
    await library.archived(name(segment(0)));
    assert.equal(await library.remove(name(segment(0)), 'deleted'), true);
    assert.equal(await library.remove(name(segment(7)), 'deleted'), false);
    assert.deepEqual(unwanted(library), []);
    await library.close();
    const without = await started();
    assert.equal(await without.remove(name(segment(1)), 'deleted'), true);
    assert.deepEqual(unwanted(without), []);
  });
});

class FakeArchive implements Archive {
  readonly kept = new Map<string, Segment>();
  failing = false;
  async check() {}
  async put() {}
  async *list() {
    this.#ask();
    yield* this.kept.values();
  }
  async open({ filename }: SegmentName): Promise<OpenedFile | undefined> {
    this.#ask();
    if (!this.kept.has(filename)) return undefined;
    const { Readable } = await import('node:stream');
    return { size: 8, createdAt: 0, stream: () => Readable.from([Buffer.from('archived')]), close: async () => {} };
  }
  async remove({ filename }: SegmentName) {
    this.#ask();
    return this.kept.delete(filename);
  }
  async link() {
    return '';
  }
  #ask(): void {
    if (this.failing) throw new Error('the archive is away');
  }
}
