import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer, text } from 'node:stream/consumers';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DiskStorage } from '../../src/storage/disk.ts';

const NAME = 'vnc_box_20251116_103022_seg000.mkv';
const SESSION = 'vnc_box_20251116_103022';
const segment = (n: number, id = 'box') => `vnc_${id}_20251116_103022_seg${String(n).padStart(3, '0')}.mkv`;

let base: string;
let root: string;
let storage: DiskStorage;

before(async () => {
  base = await realpath(await mkdtemp(join(tmpdir(), 'berth-disk-')));
});
after(() => rm(base, { recursive: true }));

beforeEach(() => {
  root = join(base, 'recordings');
  mkdirSync(join(root, 'box'), { recursive: true });
  storage = new DiskStorage(root);
});
afterEach(async () => {
  await noneOpen();
  rmSync(root, { recursive: true });
});

/** Waits until this process has no file below the root open: every test must end so. */
async function noneOpen(): Promise<void> {
  const open = () =>
    readdirSync('/proc/self/fd')
      .map(targetOf)
      .filter((path) => path.startsWith(root));
  for (let i = 0; i < 6000 && open().length > 0; i++) await sleep(10);
  assert.deepEqual(open(), []);
}

function targetOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return ''; // readdir's own descriptor is gone by now
  }
}

function put(filename: string, content = 'matroska', id = 'box'): string {
  mkdirSync(join(root, id), { recursive: true });
  writeFileSync(join(root, id, filename), content);
  return join(root, id, filename);
}

async function opened(filename = NAME) {
  const file = await storage.open('box', filename);
  assert.ok(file, `${filename} does not open`);
  return file;
}

/** Segments of one sandbox, or of all. */
async function names(id?: string): Promise<string[]> {
  const ids = id === undefined ? (await storage.folders()).map((folder) => folder.sandboxId) : [id];
  return (await Promise.all(ids.map(async (one) => (await storage.names(one)).segments))).flat().sort();
}

describe('DiskStorage.names', () => {
  it('finds the segments of all sandboxes, or of one', async () => {
    put(segment(0));
    put(segment(1));
    put(segment(0, 'other'), 'x', 'other');
    assert.deepEqual(await names(), [segment(0), segment(1), segment(0, 'other')].sort());
    assert.deepEqual(await names('other'), [segment(0, 'other')]);
  });

  it('lists what is empty or no Matroska at all', async () => {
    put(segment(0), '');
    put(segment(1), '\0garbage');
    assert.deepEqual(await names(), [segment(0), segment(1)]);
  });

  it('ignores every other name, and names of other sandboxes', async () => {
    for (const name of ['notes.txt', 'x.mkv', `${NAME}.part`, NAME.replace('mkv', 'mp4'), segment(0, 'other')])
      put(name);
    writeFileSync(join(root, segment(9)), 'not in a folder');
    put('x.mkv', 'x', '.hidden');
    assert.deepEqual(await names(), []);
  });

  it('ignores folders, FIFOs and symlinks with the name of a segment', async () => {
    const secret = join(base, 'secret');
    writeFileSync(secret, 'secret');
    mkdirSync(join(root, 'box', segment(1)));
    execFileSync('mkfifo', [join(root, 'box', segment(2))]);
    symlinkSync(secret, join(root, 'box', segment(3)));
    symlinkSync(join(base, 'nowhere'), join(root, 'box', segment(4)));
    put(segment(5));
    assert.deepEqual(await names(), [segment(5)]);
    assert.deepEqual(await names('box'), [segment(5)]);
  });

  it('follows no symlinked folder', async () => {
    const elsewhere = join(base, 'elsewhere');
    mkdirSync(elsewhere, { recursive: true });
    writeFileSync(join(elsewhere, segment(0, 'linked')), 'secret');
    symlinkSync(elsewhere, join(root, 'linked'));
    assert.deepEqual(await names(), []);
    assert.deepEqual(await names('linked'), []);
  });

  it('is empty for a missing root, a missing folder, a file instead of a folder and an id that is a path', async () => {
    assert.deepEqual(await new DiskStorage(join(base, 'missing')).folders(), []);
    writeFileSync(join(root, 'file'), '');
    for (const id of ['missing', 'file', '..', '../recordings', 'box/../box', ''])
      assert.deepEqual(await names(id), []);
  });

  it('tells journals from segments, and both from what only looks like them', async () => {
    put(segment(0));
    put(`${SESSION}.jsonl`);
    put('vnc_other_20251116_103022.jsonl');
    put('x.jsonl');
    put(`${NAME}.jsonl`);
    symlinkSync(put('secret'), join(root, 'box', 'vnc_box_20251116_103023.jsonl'));
    assert.deepEqual(await storage.names('box'), { segments: [segment(0)], journals: [SESSION] });
  });

  it('does not hide other errors', async () => {
    writeFileSync(join(root, 'plain'), '');
    await assert.rejects(new DiskStorage(join(root, 'plain')).folders(), { code: 'ENOTDIR' });
  });
});

describe('DiskStorage.folders', () => {
  it('tells when a file last came or went', async () => {
    const [folder] = await storage.folders();
    assert.deepEqual(folder, { sandboxId: 'box', changedAt: statSync(join(root, 'box')).mtimeMs });
    await sleep(20);
    put(NAME);
    assert.ok(((await storage.folders())[0]?.changedAt ?? 0) > (folder?.changedAt ?? 0));
  });
});

describe('DiskStorage.find', () => {
  it('tells the size, and the birth and last write of the file as whole milliseconds', async () => {
    const earliest = Date.now() - 1000;
    const path = put(NAME, '12345');
    await sleep(30);
    appendFileSync(path, '6');
    const file = await storage.find('box', NAME);
    assert.equal(file?.size, 6);
    assert.ok(Number.isInteger(file.createdAt) && file.createdAt >= earliest);
    assert.equal(file.createdAt, Math.floor(statSync(path).birthtimeMs));
    assert.equal(file.modifiedAt, Math.floor(statSync(path).mtimeMs));
  });

  it('finds nothing behind a missing name, a folder, a symlink or a path', async () => {
    put(segment(9));
    mkdirSync(join(root, 'box', segment(1)));
    symlinkSync(segment(9), join(root, 'box', segment(2)));
    for (const n of [0, 1, 2]) assert.equal(await storage.find('box', segment(n)), undefined);
    assert.equal(await storage.find('box', `../box/${segment(9)}`), undefined);
    assert.equal(await storage.find('other', segment(9)), undefined);
  });
});

describe('DiskStorage.journal', () => {
  const file = `${SESSION}.jsonl`;

  it('gives the text, at most its first MiB', async () => {
    assert.equal(await storage.journal('box', SESSION), undefined);
    put(file, '');
    assert.equal(await storage.journal('box', SESSION), '');
    put(file, 'lines');
    assert.equal(await storage.journal('box', SESSION), 'lines');
    put(file, 'x'.repeat(1024 * 1024 + 1));
    assert.equal((await storage.journal('box', SESSION))?.length, 1024 * 1024);
  });

  it('follows no symlink, waits for no FIFO and knows no path', { timeout: 60_000 }, async () => {
    const other = 'vnc_box_20251116_103023';
    symlinkSync(put('secret'), join(root, 'box', file));
    execFileSync('mkfifo', [join(root, 'box', `${other}.jsonl`)]);
    put('vnc_other_20251116_103022.jsonl', 'x', 'other');
    assert.equal(await storage.journal('box', SESSION), undefined);
    assert.equal(await storage.journal('box', other), undefined);
    assert.equal(await storage.journal('box', 'vnc_other_20251116_103022'), undefined);
    assert.equal(await storage.journal('box', `../box/${SESSION}`), undefined);
  });

  it('goes with what is left of the folder, and may be removed twice', async () => {
    storage = new DiskStorage(root, { inUse: () => false });
    put(file);
    put(NAME);
    await storage.remove('box', NAME);
    assert.ok(existsSync(join(root, 'box')));
    await storage.removeJournal('box', SESSION);
    assert.ok(!existsSync(join(root, 'box')));
    await storage.removeJournal('box', SESSION);
    mkdirSync(join(root, 'box', file), { recursive: true });
    await storage.removeJournal('box', SESSION);
    assert.ok(existsSync(join(root, 'box', file)), 'a folder is nothing of ours');
  });
});

describe('DiskStorage.open', () => {
  it('gives size, age, and any inclusive range', async () => {
    const path = put(NAME, '0123456789');
    const file = await opened();
    assert.equal(file.size, 10);
    assert.equal(file.createdAt, Math.floor(statSync(path).birthtimeMs));
    assert.equal(await text(file.stream(0, 9)), '0123456789');
    assert.equal(await text((await opened()).stream(3, 5)), '345');
    assert.equal(await text((await opened()).stream(9, 9)), '9');
  });

  it('gives an empty body for an empty file', async () => {
    put(NAME, '');
    const file = await opened();
    assert.equal(file.size, 0);
    assert.equal(await text(file.stream(0, -1)), '');
  });

  it('ends at the snapshot while the file grows', async () => {
    const path = put(NAME, 'a'.repeat(300_000));
    const file = await opened();
    appendFileSync(path, 'b'.repeat(300_000));
    const body = await buffer(file.stream(0, file.size - 1));
    assert.equal(body.length, 300_000);
    assert.ok(!body.includes('b'));
  });

  it('reads on after the file is removed', async () => {
    put(NAME, 'still here');
    const file = await opened();
    assert.equal(await storage.remove('box', NAME), true);
    assert.equal(await text(file.stream(0, file.size - 1)), 'still here');
  });

  it('closes the file when nothing is streamed and when the stream is destroyed', async () => {
    put(NAME, 'x'.repeat(1_000_000));
    await (await opened()).close();
    const stream = (await opened()).stream(0, 999_999);
    await new Promise((resolve) => stream.once('readable', resolve));
    stream.destroy();
    const empty = (await opened()).stream(0, -1);
    empty.destroy();
    await noneOpen();
  });

  it('finds no file behind a missing name, a folder, a symlink, a socket, or a path', async (t) => {
    put(segment(9));
    mkdirSync(join(root, 'box', segment(1)));
    symlinkSync(segment(9), join(root, 'box', segment(2)));
    const server = createServer().listen(join(root, 'box', segment(3)));
    t.after(() => server.close());
    await new Promise((resolve) => server.once('listening', resolve));
    for (let n = 0; n < 4; n++) assert.equal(await storage.open('box', segment(n)), undefined, segment(n));
    assert.equal(await storage.open('box', `../box/${segment(9)}`), undefined);
    assert.equal(await storage.open('..', segment(9)), undefined);
    assert.equal(await storage.open('other', segment(9)), undefined);
  });

  it('does not wait for the writer of a FIFO', { timeout: 60_000 }, async () => {
    execFileSync('mkfifo', [join(root, 'box', NAME)]);
    assert.equal(await storage.open('box', NAME), undefined);
  });

  it('follows no symlinked folder', async () => {
    put(segment(0, 'linked'), 'x', 'real');
    symlinkSync(join(root, 'real'), join(root, 'linked'));
    assert.equal(await storage.open('linked', segment(0, 'linked')), undefined);
    assert.equal(await storage.remove('linked', segment(0, 'linked')), false);
    assert.ok(existsSync(join(root, 'real', segment(0, 'linked'))));
  });
});

describe('DiskStorage.remove', () => {
  it('removes the file once', async () => {
    const path = put(NAME);
    assert.equal(await storage.remove('box', NAME), true);
    assert.equal(existsSync(path), false);
    assert.equal(await storage.remove('box', NAME), false);
    assert.equal(await storage.remove('missing', segment(0, 'missing')), false);
  });

  it('lets one of many win', async () => {
    put(NAME);
    const won = await Promise.all(Array.from({ length: 8 }, () => storage.remove('box', NAME)));
    assert.equal(won.filter(Boolean).length, 1);
  });

  it('leaves folders, symlinks and FIFOs alone', async () => {
    mkdirSync(join(root, 'box', segment(1)));
    symlinkSync(put(segment(9)), join(root, 'box', segment(2)));
    execFileSync('mkfifo', [join(root, 'box', segment(3))]);
    for (const n of [1, 2, 3]) assert.equal(await storage.remove('box', segment(n)), false);
    assert.equal(readdirSync(join(root, 'box')).length, 4);
  });

  it('takes the empty folder along when no recorder uses it, and only then', async () => {
    let live = true;
    storage = new DiskStorage(root, { inUse: (id) => id === 'box' && live });
    put(segment(0));
    await storage.remove('box', segment(0));
    assert.ok(existsSync(join(root, 'box')), 'the recorder still needs the folder');

    live = false;
    put(segment(1));
    put(segment(2));
    await storage.remove('box', segment(1));
    assert.ok(existsSync(join(root, 'box')), 'another segment is in the folder');
    await storage.remove('box', segment(2));
    assert.ok(!existsSync(join(root, 'box')));
  });

  it('keeps folders unless told that they are free', async () => {
    put(NAME);
    await storage.remove('box', NAME);
    assert.ok(existsSync(join(root, 'box')));
  });
});
