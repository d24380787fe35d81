import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { attachment } from '../../src/api/downloads.ts';
import { isFileName, isUnfinished } from '../../src/core/download.ts';
import { openToPassers, prepareDownloads, unpassable } from '../../src/drivers/folders.ts';
import { MIB, trimDownloads, watchDownloads } from '../../src/runtime/downloads.ts';
import { DiskDownloads } from '../../src/storage/downloads.ts';

const AS_ROOT = { skip: process.getuid?.() === 0 ? false : 'needs root' };

let root: string;
let box: string;
let downloads: DiskDownloads;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'bt-dl-'));
  box = join(root, 'box');
  mkdirSync(box);
  downloads = new DiskDownloads(root);
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** A file with this age in seconds. */
function put(name: string, content: string | Buffer = 'content', age = 0): string {
  const path = join(box, name);
  writeFileSync(path, content);
  const at = Date.now() / 1000 - age;
  utimesSync(path, at, at);
  return path;
}

async function opened(name: string) {
  const file = await downloads.open('box', name);
  assert.ok(file, `${name} does not open`);
  return file;
}

const names = async (id = 'box'): Promise<string[]> => (await downloads.list(id)).map((file) => file.name);

describe('names', () => {
  it('can be any that a file can have, and nothing else', () => {
    for (const name of ['a', '.a', '...', ' ', 'a\nb', '"', '%2f', 'é'.repeat(127), '\u{1f600}']) {
      assert.ok(isFileName(name), JSON.stringify(name));
    }
    for (const name of ['', '.', '..', '/', 'a/b', '../a', 'a\0', 'é'.repeat(128), 'x'.repeat(256)]) {
      assert.ok(!isFileName(name), JSON.stringify(name));
    }
  });

  it('of unfinished files are those that Chromium gives them', () => {
    for (const name of ['a.crdownload', 'Unconfirmed 52.crdownload', '.org.chromium.Chromium.b79Xxc']) {
      assert.ok(isUnfinished(name), name);
    }
    for (const name of ['a', 'crdownload', 'a.crdownload.txt', 'org.chromium.Chromium.b79Xxc']) {
      assert.ok(!isUnfinished(name), name);
    }
  });

  it('get into the header with nothing that ends it', () => {
    assert.equal(attachment('a.txt'), `attachment; filename="a.txt"; filename*=UTF-8''a.txt`);
    assert.equal(
      attachment(`"\\%\r\nX: é€(*)'😀`),
      `attachment; filename="_____X: __(*)'_"; filename*=UTF-8''%22%5C%25%0D%0AX%3A%20%C3%A9%E2%82%AC%28%2A%29%27%F0%9F%98%80`,
    );
    for (let code = 0; code < 0x3000; code++) {
      assert.match(attachment(String.fromCharCode(code)), /^attachment; filename="[ !#-[\]-~]"; [ -~]+$/);
    }
  });
});

describe('DiskDownloads', () => {
  it('lists newest first, with what is known of each', async () => {
    const since = Date.now() - 20_000;
    put('old', 'x', 20);
    const until = Date.now() - 20_000;
    put('new.crdownload', 'xyz', 10);
    const [first, second] = await downloads.list('box');
    assert.deepEqual([first?.name, first?.size, first?.complete], ['new.crdownload', 3, false]);
    assert.deepEqual([second?.name, second?.size, second?.complete], ['old', 1, true]);
    const at = second?.modifiedAt ?? 0;
    assert.ok(at >= since - 1 && at <= until + 1, `${since} <= ${at} <= ${until}`);
  });

  it('knows nothing of ids that have no folder or cannot have one', async () => {
    put('file');
    writeFileSync(join(root, 'plain'), 'x');
    symlinkSync('box', join(root, 'linked'));
    for (const id of ['none', 'plain', 'linked', '..', '.', '', 'box/../box', 'a\0']) {
      assert.deepEqual(await downloads.list(id), [], id);
      assert.equal(await downloads.open(id, 'file'), undefined, id);
      assert.equal(await downloads.remove(id, 'file'), false, id);
    }
  });

  it('reads a range of what it opened, and closes what was not read', async () => {
    put('file', '0123456789');
    const file = await opened('file');
    assert.equal(file.size, 10);
    assert.equal((await buffer(file.stream(2, 4))).toString(), '234');
    await (await opened('file')).close();
    put('empty', '');
    assert.equal((await buffer((await opened('empty')).stream(0, -1))).length, 0);
  });

  it('fails a reading whose file was cut', async () => {
    const path = put('file', '0123456789');
    const file = await opened('file');
    truncateSync(path, 4);
    await assert.rejects(buffer(file.stream(0, 9)), /was cut/);
  });

  it('neither lists, opens, waits for nor removes what is no file', { timeout: 60_000 }, async () => {
    mkdirSync(join(box, 'folder'));
    symlinkSync('/etc/passwd', join(box, 'link'));
    execFileSync('mkfifo', [join(box, 'fifo')]);
    assert.deepEqual(await names(), []);
    for (const name of ['folder', 'link', 'fifo', '..', 'none', 'x'.repeat(300), 'folder/..']) {
      assert.equal(await downloads.open('box', name), undefined, name);
      assert.equal(await downloads.remove('box', name), false, name);
    }
    assert.equal(readdirSync(box).length, 3);
  });

  it("takes a link to somebody else's file for none of the sandbox's", AS_ROOT, async () => {
    chownSync(box, 12_345, 12_345);
    chownSync(put('own'), 12_345, 12_345);
    writeFileSync(join(root, 'secret'), 'of root');
    linkSync(join(root, 'secret'), join(box, 'planted'));
    assert.deepEqual(await names(), ['own']);
    assert.equal(await downloads.open('box', 'planted'), undefined);
    assert.equal(await downloads.remove('box', 'planted'), false);
  });

  it('passes over names that are not UTF-8', async () => {
    writeFileSync(Buffer.concat([Buffer.from(`${box}/`), Buffer.from([0x66, 0xff])]), 'x');
    assert.deepEqual(await names(), []);
  });

  it('removes once', async () => {
    put('file');
    const won = await Promise.all(Array.from({ length: 8 }, () => downloads.remove('box', 'file')));
    assert.equal(won.filter(Boolean).length, 1);
  });

  it('sweeps the folders of whom nobody knows, whatever is in them, and follows no link out', async () => {
    put('file');
    for (const folder of ['gone/deep', '.removed-gone']) mkdirSync(join(root, folder), { recursive: true });
    const outside = mkdtempSync(join(tmpdir(), 'bt-out-'));
    writeFileSync(join(outside, 'keep'), 'x');
    symlinkSync(outside, join(root, 'gone', 'deep', 'link'));
    await downloads.sweep((id) => id === 'box');
    assert.deepEqual(readdirSync(root), ['box']);
    assert.deepEqual(await names(), ['file']);
    assert.deepEqual(readdirSync(outside), ['keep']);
    rmSync(outside, { recursive: true });
    await new DiskDownloads(join(root, 'missing')).sweep(() => false);
  });

  it('leaves the folder to a sandbox that comes while it sweeps', async () => {
    put('file');
    let asked = 0;
    await downloads.sweep(() => asked++ > 0);
    assert.deepEqual(await names(), ['file']);
  });
});

describe('The limit', () => {
  it('strikes once, also for what lies in folders, and not below it', async () => {
    let struck = 0;
    const stop = watchDownloads(
      () => box,
      MIB,
      () => {
        struck += 1;
      },
    );
    put('half', Buffer.alloc(MIB / 2));
    await sleep(1300);
    assert.equal(struck, 0);
    mkdirSync(join(box, 'folder'));
    put('folder/rest', Buffer.alloc(MIB));
    for (let i = 0; i < 1200 && struck === 0; i++) await sleep(50);
    await sleep(1200);
    assert.equal(struck, 1);
    stop();
  });

  it('is not looked at any more once it is stopped', async () => {
    const stop = watchDownloads(
      () => box,
      1,
      () => assert.fail('it was stopped'),
    );
    put('file', Buffer.alloc(MIB));
    stop();
    await sleep(1200);
  });

  it('counts empty files too, and bears a folder that is gone', async () => {
    for (let i = 0; i < 300; i++) put(`empty ${i}`, '');
    let struck = false;
    const stop = watchDownloads(
      () => box,
      MIB,
      () => {
        struck = true;
      },
    );
    watchDownloads(
      () => join(root, 'none'),
      0,
      () => assert.fail('there is nothing'),
    )();
    for (let i = 0; i < 1200 && !struck; i++) await sleep(50);
    assert.ok(struck);
    stop();
  });

  it('costs the unfinished files, then the newest, and no more than it must', async () => {
    put('first', Buffer.alloc(MIB / 4), 50);
    put('second', Buffer.alloc(MIB / 4), 40);
    put('third', Buffer.alloc(MIB), 30);
    put('fourth', Buffer.alloc(MIB), 20);
    put('old.crdownload', 'x', 60);
    symlinkSync('/etc/passwd', join(box, 'link'));
    await trimDownloads(box, MIB);
    assert.deepEqual(readdirSync(box).sort(), ['first', 'link', 'second']);
    put('one.crdownload');
    await trimDownloads(box, MIB);
    assert.deepEqual(readdirSync(box).sort(), ['first', 'link', 'second']);
  });
});

describe("A sandbox's folder", () => {
  it('is new, private and empty, whoever had it before', async () => {
    const folder = await prepareDownloads(join(root, 'box'), null);
    writeFileSync(join(folder, 'of the one before'), 'x');
    chmodSync(folder, 0o777);
    assert.equal(await prepareDownloads(join(root, 'box'), null), folder);
    assert.deepEqual(readdirSync(folder), []);
    assert.equal(statSync(folder).mode & 0o777, 0o700);
  });

  it('is reached through a data folder that shows and opens nothing else', async () => {
    const closed = join(root, 'closed');
    const dataDir = join(closed, 'data');
    mkdirSync(dataDir, { recursive: true });
    chmodSync(closed, 0o700);
    assert.equal(await unpassable(dirname(dataDir)), closed);
    chmodSync(closed, 0o711);
    chmodSync(root, 0o711);
    assert.equal(await unpassable(closed), undefined);

    chmodSync(dataDir, 0o700);
    mkdirSync(join(dataDir, 'recordings'));
    writeFileSync(join(dataDir, 'file'), 'x', { mode: 0o644 });
    writeFileSync(join(root, 'elsewhere'), 'x', { mode: 0o644 });
    symlinkSync(join(root, 'elsewhere'), join(dataDir, 'link'));
    for (let i = 0; i < 2; i++) await openToPassers(dataDir, 'downloads');
    const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8);
    assert.equal(mode(dataDir), '701');
    assert.equal(mode(join(dataDir, 'downloads')), '701');
    assert.equal(mode(join(dataDir, 'recordings')), '700');
    assert.equal(mode(join(dataDir, 'file')), '600');
    assert.equal(mode(join(root, 'elsewhere')), '644');
    assert.ok(existsSync(join(dataDir, 'downloads')));
  });
});
