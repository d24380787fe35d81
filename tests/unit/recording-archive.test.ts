import assert from 'node:assert/strict';
import fs from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import type { Archive, OpenedFile } from '../../src/core/contracts.ts';
import type { Segment, SegmentName } from '../../src/core/recording.ts';
import { aroundEach, base, closed, name, put, root, scans, segment, started } from './library.ts';

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
