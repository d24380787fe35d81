import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { parseSegmentName, type SegmentName } from '../../src/core/recording.ts';
import { type Entry, RecordingIndex } from '../../src/recordings/index.ts';

let base: string;
let file: string;
let errors: unknown[];

beforeEach(() => {
  base = fs.mkdtempSync(join(tmpdir(), 'berth-index-'));
  file = join(base, 'index.jsonl');
  errors = [];
});
afterEach(() => fs.rmSync(base, { recursive: true }));

function entry(n: number, startedAt = n): Entry {
  const sessionId = 'vnc_box_20251116_103022';
  return {
    ...{ filename: `${sessionId}_seg${String(n).padStart(3, '0')}.mkv`, sandboxId: 'box', sessionId, segment: n },
    ...{ size: 7, startedAt, durationMs: 1, frames: 1, headerBytes: 1, clusters: 1, frameBytes: 1, owner: 'acme' },
    ...{ metadata: { a: '\u2028"\n' }, reason: 'full', dropped: null, onDisk: true },
  };
}

const open = () => RecordingIndex.open(file, (err) => errors.push(err));
const lines = () => fs.readFileSync(file, 'utf8').split('\n').length - 1;

describe('RecordingIndex', () => {
  it('has what was put and not deleted, newest first, also when it is opened again', async () => {
    const index = await open();
    for (const n of [3, 1, 2, 0]) index.put(entry(n));
    index.put({ ...entry(1), archivedAt: 5, onDisk: false });
    index.put(entry(2, 9));
    assert.equal(index.delete(entry(0).filename), true);
    assert.equal(index.delete(entry(0).filename), false);
    await index.close();
    const wanted = [entry(2, 9), entry(3), { ...entry(1), archivedAt: 5, onDisk: false }];
    for (const one of [index, await open()]) {
      assert.deepEqual(one.all, wanted);
      assert.deepEqual(one.of('box'), wanted);
      assert.deepEqual([...one.sandboxes()], ['box']);
      assert.equal(one.size, 3);
    }
    assert.equal(fs.statSync(file).mode & 0o777, 0o600);
    assert.deepEqual(errors, []);
  });

  it('keeps its order whatever comes and goes', async () => {
    const index = await open();
    const wanted = new Map<string, Entry>();
    for (let i = 0; i < 2000; i++) {
      // A fixed sequence that hits the same names and times again and again.
      const one = entry((i * 7919) % 300, (i * 104_729) % 50);
      if (i % 3 === 2) wanted.delete(one.filename);
      else wanted.set(one.filename, one);
      if (i % 3 === 2) index.delete(one.filename);
      else index.put(one);
    }
    const sorted = [...wanted.values()].sort((a, b) => b.startedAt - a.startedAt || b.segment - a.segment);
    assert.deepEqual(index.all, sorted);
    await index.close();
    assert.deepEqual((await open()).all, sorted);
  });

  it('remembers what was deleted until the archive has nothing of it', async () => {
    const index = await open();
    for (const n of [0, 1]) {
      index.put(entry(n));
      index.addUnwanted(parseSegmentName(entry(n).filename) as SegmentName);
      index.delete(entry(n).filename);
    }
    // Put back under the same name.
    index.put(entry(1));
    await index.close();
    for (let time = 0; time < 2; time++) {
      const again = await open();
      assert.deepEqual(
        [...again.unwanted.values()].map((one) => one.segment),
        [0, 1],
      );
      assert.deepEqual(again.all, [entry(1)]);
      await again.close();
    }
    const last = await open();
    for (const one of [...last.unwanted.values()]) last.deleteUnwanted(one);
    await last.close();
    assert.equal((await open()).unwanted.size, 0);
    assert.deepEqual((await open()).all, [entry(1)]);
  });

  it('is written anew when most of its lines are old', async () => {
    const index = await open();
    for (let round = 0; round < 30; round++) {
      for (let n = 0; n < 100; n++) index.put({ ...entry(n), archivedAt: round });
      await index.close();
    }
    assert.ok(lines() < 1400, `${lines()} lines`);
    assert.equal((await open()).size, 100);
    assert.equal(lines(), 100);
  });

  it('goes on in memory when it cannot write, and makes it good when it can', async () => {
    const index = await open();
    index.put(entry(0));
    await index.close();
    fs.rmSync(file);
    fs.mkdirSync(file);
    index.put(entry(1));
    await index.close();
    assert.equal(errors.length, 1);
    assert.equal(index.size, 2);
    fs.rmdirSync(file);
    index.put(entry(2));
    await index.close();
    assert.equal((await open()).size, 3);
  });

  it('loses nothing to a torn line that it could not mend when it was opened', async () => {
    const index = await open();
    index.put(entry(0));
    await index.close();
    fs.appendFileSync(file, '{"filename":"vnc_');
    fs.mkdirSync(`${file}.tmp`);
    const again = await open();
    assert.equal(errors.length, 1);
    fs.rmdirSync(`${file}.tmp`);
    again.put(entry(1));
    await again.close();
    assert.deepEqual((await open()).all, [entry(1), entry(0)]);
  });
});
