import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  createWriteStream,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { children } from '../../src/recordings/ebml.ts';
import { type ExportSegment, exportMkv } from '../../src/recordings/export.ts';
import { ID } from '../../src/recordings/matroska.ts';
import { scan } from '../../src/recordings/scan.ts';
import { claimedDuration, closed, decoded, idBytes, openBelow, openFile, record, recording } from './segments.ts';

const LIMIT = { timeout: 120_000 };

let folder: string;
/** 2 s, 2 s, 2 s and 0.5 s at 10 frames a second. */
let segments: string[];
/** Of an ffmpeg that was killed: no duration in its header, and a cut end. */
let killed: string;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bt-export-'));
  const child = recording(folder, 'killed', { seconds: 60, segmentSeconds: 60, live: true });
  killed = join(folder, 'killed_seg000.mkv');
  segments = await record(folder, 'normal', { seconds: 6.5 });
  for (const until = Date.now() + 60_000; Date.now() < until; await sleep(100)) {
    if (statSync(killed, { throwIfNoEntry: false }) && (await scan(await openFile(killed))).frames > 10) break;
  }
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('close', resolve));
  truncateSync(killed, statSync(killed).size - 5);
}, LIMIT);

after(() => rmSync(folder, { recursive: true, force: true }));

let exports = 0;
async function exportedTo(list: readonly ExportSegment[]): Promise<{ path: string; length: number | undefined }> {
  const { length, stream } = await exportMkv(list);
  exports += 1;
  const path = join(folder, `export-${exports}.mkv`);
  await pipeline(stream, createWriteStream(path));
  return { path, length };
}

/** The frames of the segments one after the other, decoded each by itself. */
async function framesOf(paths: readonly string[]): Promise<string[]> {
  const frames: string[] = [];
  for (const path of paths) frames.push(...(await decoded(path)).frames);
  return frames;
}

async function noneOpen(): Promise<void> {
  for (const until = Date.now() + 60_000; openBelow(folder) > 0 && Date.now() < until; ) await sleep(5);
  assert.equal(openBelow(folder), 0);
}

function copyOf(path: string): string {
  exports += 1;
  const copy = join(folder, `copy-${exports}.mkv`);
  copyFileSync(path, copy);
  return copy;
}

describe('exportMkv', () => {
  it('makes one file of exactly the length it said, with every frame at its time', LIMIT, async () => {
    const { path, length } = await exportedTo(await Promise.all(segments.map(closed)));
    assert.equal(statSync(path).size, length);
    const { times, frames } = await decoded(path);
    assert.deepEqual(frames, await framesOf(segments));
    assert.deepEqual(
      times,
      Array.from({ length: 65 }, (_, i) => i / 10),
    );
    assert.equal(await claimedDuration(path), 6.5);
    // Our own reader agrees.
    const { durationMs, frames: count } = await scan(await openFile(path));
    assert.deepEqual([durationMs, count], [6500, 65]);
    await noneOpen();
  });

  it('keeps odd frame rates together', LIMIT, async () => {
    const odd = await record(folder, 'odd', { seconds: 5, fps: 30, width: 64, height: 64 });
    const { path, length } = await exportedTo(await Promise.all(odd.map(closed)));
    assert.equal(statSync(path).size, length);
    const { times, frames } = await decoded(path);
    assert.deepEqual(frames, await framesOf(odd));
    // Matroska rounds to a millisecond, each segment for itself.
    for (const [i, time] of times.entries()) assert.ok(Math.abs(time - i / 30) < 0.004, `frame ${i} at ${time}`);
  });

  it('lets players seek: the frame at 4.25 s is the one that the segment has there', LIMIT, async () => {
    const { path } = await exportedTo(await Promise.all(segments.map(closed)));
    const args = ['-v', 'error', '-ss', '4.25', '-i', path, '-frames:v', '1', '-f', 'framemd5', '-'];
    const row = execFileSync('ffmpeg', args).toString().trim().split('\n').at(-1) as string;
    const all = await framesOf(segments);
    assert.equal(all.indexOf(row.split(',').at(-1)?.trim() as string), 43);
  });

  it('begins with a killed segment, and says how long all is', LIMIT, async () => {
    const first = await closed(killed);
    assert.equal(await claimedDuration(killed), undefined);
    const { path, length } = await exportedTo([first, ...(await Promise.all(segments.map(closed)))]);
    assert.equal(statSync(path).size, length);
    assert.equal(await claimedDuration(path), (first.facts.durationMs + 6500) / 1000);
    assert.equal((await decoded(path)).frames.length, first.facts.frames + 65);
  });

  it('goes on after a killed segment in the middle', LIMIT, async () => {
    const [a, b, c] = await Promise.all([segments[0] as string, killed, segments[1] as string].map(closed));
    const { path, length } = await exportedTo([a, b, c] as ExportSegment[]);
    assert.equal(statSync(path).size, length);
    const { times } = await decoded(path);
    assert.deepEqual(
      times,
      Array.from({ length: times.length }, (_, i) => i / 10),
    );
    assert.equal(times.length, 40 + (b?.facts.frames as number));
  });

  it('takes a segment that is still written as far as it is whole, and promises no length', LIMIT, async () => {
    const growing: ExportSegment = { open: () => openFile(killed) };
    const { path, length } = await exportedTo([await closed(segments[0] as string), growing]);
    assert.equal(length, undefined);
    assert.equal(await claimedDuration(path), undefined);
    const { times } = await decoded(path);
    assert.equal(times.length, 20 + (await scan(await openFile(killed))).frames);
    assert.deepEqual(
      times,
      Array.from({ length: times.length }, (_, i) => i / 10),
    );
    const only = await exportedTo([growing]);
    assert.ok((await decoded(only.path)).frames.length > 10);
  });

  it('points at nothing of the old file: only the description of the track is left', LIMIT, async () => {
    const { path } = await exportedTo([await closed(segments[0] as string)]);
    const header = readFileSync(path).subarray(0, (await scan(await openFile(path))).headerBytes);
    const segment = header.indexOf(idBytes(ID.segment));
    assert.equal(header.subarray(segment + 4, segment + 12).toString('hex'), '01ffffffffffffff');
    const ids = [...children(header, segment + 12)].map((child) => child.id);
    assert.deepEqual(
      ids.filter((id) => id !== ID.void),
      [ID.info, ID.tracks],
    );
    const info = [...children(header, segment + 12)].find((child) => child.id === ID.info);
    assert.ok([...children(header.subarray(info?.start, info?.end))].every((child) => child.id !== ID.crc));
  });

  it('leaves out what plays nothing or is gone, and refuses when nothing is left', LIMIT, async () => {
    const empty = join(folder, 'empty.mkv');
    await writeFile(empty, '');
    const cut = copyOf(segments[0] as string);
    truncateSync(cut, 300);
    const noFrame = copyOf(segments[0] as string);
    truncateSync(noFrame, (await closed(noFrame)).facts.headerBytes + 100);
    const gone: ExportSegment = { open: async () => undefined };
    const useless = [
      await closed(empty),
      await closed(cut),
      await closed(noFrame),
      gone,
      { open: () => openFile(empty) },
      { open: () => openFile(cut) },
    ];
    const { path } = await exportedTo([...useless, await closed(segments[0] as string), ...useless]);
    assert.equal((await decoded(path)).frames.length, 20);
    const nothing = { errorName: 'RECORDING_NOT_FOUND', message: /plays/ };
    await assert.rejects(exportMkv(useless), nothing);
    await assert.rejects(exportMkv([]), nothing);
    await noneOpen();
  });

  it('refuses segments that one decoder cannot read, before the first byte', LIMIT, async () => {
    const [other] = await record(folder, 'other', { seconds: 1, width: 320, height: 180 });
    const mixed = [await closed(segments[0] as string), await closed(other as string)];
    await assert.rejects(exportMkv(mixed), { errorName: 'RECORDING_MIXED', status: 409 });
    await noneOpen();
  });

  it('fails when a segment is deleted before its turn', LIMIT, async () => {
    const second = copyOf(segments[1] as string);
    const file = await closed(second);
    let opened = 0;
    const vanishing: ExportSegment = {
      facts: file.facts,
      open: async () => {
        opened += 1;
        if (opened === 1) return file.open();
        unlinkSync(second);
        return undefined;
      },
    };
    const { stream } = await exportMkv([await closed(segments[0] as string), vanishing]);
    await assert.rejects(buffer(stream), /Segment 2 of 2 was deleted while the recording was exported\./);
    await noneOpen();
  });

  it('fails rather than break its promise when the bytes are others', LIMIT, async () => {
    const changes: [string, (path: string) => void][] = [
      ['shorter', (path) => truncateSync(path, statSync(path).size - 8000)],
      ['longer', (path) => appendFileSync(path, clusterOf(segments[1] as string))],
      ['of another size', (path) => copyFileSync(join(folder, 'other_seg000.mkv'), path)],
      ['other', (path) => copyFileSync(killed, path)],
    ];
    for (const [how, change] of changes) {
      const path = copyOf(segments[1] as string);
      const { length, stream } = await exportMkv([await closed(segments[0] as string), await closed(path)]);
      change(path);
      let bytes = 0;
      const reading = pipeline(
        stream,
        new Writable({
          write: (chunk: Buffer, _encoding, done) => {
            bytes += chunk.length;
            done();
          },
        }),
      );
      await assert.rejects(reading, /Segment 2 of 2 is not what it was when it was closed\. [A-Z].*\.$/, how);
      assert.ok(bytes <= (length as number), `${how}: ${bytes} of ${length}`);
    }
    await noneOpen();
  });

  it('fails when what is still written is another recording by now', LIMIT, async () => {
    const path = copyOf(segments[1] as string);
    const { stream } = await exportMkv([await closed(segments[0] as string), { open: () => openFile(path) }]);
    copyFileSync(join(folder, 'other_seg000.mkv'), path);
    await assert.rejects(buffer(stream), /Segment 2 of 2 is not what it was/);
    await noneOpen();
  });

  it('closes a file that is opened only after its reader has gone', LIMIT, async () => {
    const path = segments[0] as string;
    const { facts } = await closed(path);
    let opened = 0;
    let answer = (): void => {};
    const held = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const slow: ExportSegment = {
      facts,
      open: async () => {
        opened += 1;
        if (opened > 1) await held;
        return openFile(path);
      },
    };
    const { stream } = await exportMkv([slow]);
    stream.resume();
    while (opened < 2) await sleep(5);
    const gone = new Promise((resolve) => stream.once('close', resolve));
    stream.destroy();
    answer();
    await gone;
    await noneOpen();
  });

  it('reads no more than is taken from it, and lets go of everything when its reader goes', LIMIT, async () => {
    let read = 0;
    const path = segments[0] as string;
    const { facts } = await closed(path);
    const counted: ExportSegment = {
      facts,
      open: async () => {
        const file = await openFile(path);
        const stream = (start: number, end: number) => {
          const bytes = file.stream(start, end) as Readable;
          return bytes.pipe(
            new PassThrough()
              .on('data', (chunk: Buffer) => {
                read += chunk.length;
              })
              .on('close', () => bytes.destroy()),
          );
        };
        return { ...file, stream };
      },
    };
    const { stream } = await exportMkv(Array.from({ length: 200 }, () => counted));
    read = 0;
    const reader = new Writable({ highWaterMark: 1, write: () => {} });
    stream.pipe(reader);
    await sleep(300);
    assert.ok(read < 4 * statSync(path).size, `${read} bytes were read`);
    stream.destroy();
    await new Promise((resolve) => stream.once('close', resolve));
    await noneOpen();
    const again = await exportMkv([counted]);
    again.stream.destroy();
    await noneOpen();
  });

  it('lets go of a file that does not answer', LIMIT, async () => {
    const path = segments[0] as string;
    const { facts } = await closed(path);
    let hangs = false;
    let asked = false;
    let destroyed = false;
    const stuck: ExportSegment = {
      facts,
      open: async () => {
        if (!hangs) return openFile(path);
        const silent = new Readable({ read: () => {} }).once('close', () => {
          destroyed = true;
        });
        const stream = () => {
          asked = true;
          return silent;
        };
        return { size: 1000, createdAt: 0, stream, close: async () => {} };
      },
    };
    const { stream } = await exportMkv([stuck]);
    hangs = true;
    stream.resume();
    while (!asked) await sleep(5);
    stream.destroy();
    await new Promise((resolve) => stream.once('close', resolve));
    assert.ok(destroyed);
  });

  it('fails when a file cannot be read', LIMIT, async () => {
    const path = segments[0] as string;
    const { facts } = await closed(path);
    let opened = 0;
    const broken: ExportSegment = {
      facts,
      open: async () => {
        opened += 1;
        if (opened === 1) return openFile(path);
        const fails = new Readable({ read: () => fails.destroy(new Error('EIO')) });
        return { size: 1000, createdAt: 0, stream: () => fails, close: async () => {} };
      },
    };
    await assert.rejects(buffer((await exportMkv([broken])).stream), /EIO/);
  });
});

/** The first cluster of a file. */
function clusterOf(path: string): Buffer {
  const bytes = readFileSync(path);
  const at = bytes.indexOf(idBytes(ID.cluster));
  return bytes.subarray(at, bytes.indexOf(idBytes(ID.cluster), at + 4));
}
