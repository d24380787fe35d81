import assert from 'node:assert/strict';
import fs from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { DiskStorage } from '../../src/storage/disk.ts';
import {
  abouts,
  aroundEach,
  base,
  closed,
  counting,
  errors,
  gone,
  hold,
  journal,
  libraries,
  name,
  opened,
  put,
  removals,
  root,
  scanning,
  scans,
  segment,
  session,
  started,
} from './library.ts';

aroundEach();

describe('A library that is started', () => {
  it('looks into what is on disk, with what journal and sandbox say of it', async () => {
    const born = Math.floor(fs.statSync(put(segment(0))).birthtimeMs);
    put(segment(1), 'x');
    journal({ segment: 0, reason: 'full', dropped: 3 }, { segment: 1, reason: 'cut' });
    const library = await started();
    assert.deepEqual(library.find(segment(0)), {
      ...{ filename: segment(0), sandboxId: 'box', sessionId: session(), segment: 0, startedAt: born, size: 10 },
      ...{ durationMs: 1000, frames: 10, headerBytes: 1, clusters: 1, frameBytes: 10 },
      ...{ owner: 'acme', metadata: { job: '1' }, reason: 'full', dropped: 3, onDisk: true },
    });
    assert.deepEqual([library.find(segment(1))?.reason, library.find(segment(1))?.dropped], ['cut', null]);
  });

  it('believes nothing in a journal that is not of the right form', async () => {
    for (let n = 0; n < 6; n++) put(segment(n));
    const bad = ['{"segment":0,"reason":"full"', 'null', '7', '[]', '"x"', '\0', '{"segment":"0","reason":"full"}'];
    journal(...bad, { segment: 1, reason: 'bought' }, { segment: 2, reason: 'full', dropped: -1 }, { segment: 1e99 });
    const library = await started();
    const of = (n: number) => [library.find(segment(n))?.reason, library.find(segment(n))?.dropped];
    assert.deepEqual(
      [of(0), of(1), of(2)],
      [
        ['interrupted', null],
        ['interrupted', null],
        ['full', null],
      ],
    );
  });

  it('says where tabs went, as far as that is of the right form, and nothing that may be secret', async () => {
    put(segment(0));
    const [at, url] = [1763289022123, 'https://example.com/'];
    const bad = [
      { at: '1', url },
      { at: -1, url },
      { at: 8.65e15, url },
      { at, url: 'nowhere' },
      { at, url: 7 },
      { url },
    ];
    const good = [
      { at, url: 'https://user:password@example.com:8443/a%20b?token=secret#secret' },
      { at: at + 1, url: 'data:text/html,secret' },
      { at: at + 2, url: 'about:blank' },
      { at: at + 3, url: 'file:///etc/passwd?x' },
      { at: at + 4, url: `https://example.com/${'x'.repeat(5000)}` },
    ];
    journal(...bad, { segment: 0, reason: 'full', dropped: 0 }, ...good, '{"at":17');
    const library = await started();
    const found = await library.navigations('box', session());
    assert.deepEqual(
      found.map((one) => [one.at - at, one.url.slice(0, 40)]),
      [
        [0, 'https://example.com:8443/a%20b'],
        [1, 'data:'],
        [2, 'about:blank'],
        [3, 'file:///etc/passwd'],
        [4, `https://example.com/${'x'.repeat(20)}`],
      ],
    );
    assert.equal(found.at(-1)?.url.length, 300);
    assert.equal(library.find(segment(0))?.reason, 'full');
    for (const [id, of] of [
      ['box', session('other')],
      ['../box', session()],
      ['box', '../x'],
    ] as const) {
      assert.deepEqual(await library.navigations(id, of), []);
    }
    journal(...Array.from({ length: 2000 }, (_, i) => ({ at: i, url })));
    assert.equal((await library.navigations('box', session())).length, 1000);
  });

  it('remembers across starts, and looks into nothing twice', async () => {
    put(segment(0));
    const first = await started();
    await first.close();
    delete abouts.box;
    const second = await started();
    assert.deepEqual(second.closed(), first.closed());
    assert.equal(second.find(segment(0))?.owner, 'acme', 'also when the sandbox is forgotten');
    assert.equal(scans.length, 1);
  });

  it('finds everything again without the index, and forgets what is gone', async () => {
    put(segment(0));
    put(segment(1));
    await (await started()).close();
    fs.rmSync(join(base, 'index.jsonl'));
    fs.rmSync(join(root, 'box', segment(0)));
    assert.deepEqual(closed(await started()), [segment(1)]);
    await libraries.at(-1)?.close();
    fs.rmSync(join(root, 'box'), { recursive: true });
    assert.deepEqual(closed(await started()), []);
    assert.deepEqual(gone, [segment(1)]);
  });

  it('loses a torn last line alone, and lines that make no sense', async () => {
    for (const n of [0, 1, 2]) put(segment(n));
    await (await started()).close();
    const lines = fs.readFileSync(join(base, 'index.jsonl'), 'utf8').trim().split('\n');
    assert.equal(lines.length, 3);
    fs.writeFileSync(
      join(base, 'index.jsonl'),
      `${lines[0]}\n{"filename":"../../etc/passwd"}\nnull\n${lines[1]}\n${lines[2]?.slice(0, 40)}`,
    );
    scans.length = 0;
    assert.equal(closed(await started()).length, 3);
    assert.equal(scans.length, 1);
  });

  it('does not look into what a recorder is writing, and two files at a time at most', async () => {
    for (let n = 0; n < 4; n++) for (const id of ['box', 'b', 'c', 'd']) put(segment(n, id), 'x', id);
    const library = await opened();
    library.saw('box', { sessionId: session(), segment: 2 });
    await library.start();
    await library.settled();
    assert.equal(library.closed().length, 14);
    assert.deepEqual(
      library
        .closed('box')
        .map((entry) => entry.segment)
        .sort(),
      [0, 1],
    );
    assert.equal(scanning.most, 2);
    const unread = await library.unread();
    assert.deepEqual(unread.map((file) => [file.filename, file.isWritten]).sort(), [
      [segment(2), true],
      [segment(3), true],
    ]);
  });

  it('lists zero bytes, and folders, links and foreign names not at all', async () => {
    put(segment(0), '');
    put(segment(1, 'other'));
    put('notes.txt');
    fs.mkdirSync(join(root, 'box', segment(2)));
    fs.symlinkSync(put('secret'), join(root, 'box', segment(3)));
    assert.deepEqual(closed(await started()), [segment(0)]);
  });

  it('is not kept from the others by a folder that cannot be read', async () => {
    for (const id of ['a', 'box', 'c']) put(segment(0, id), 'x', id);
    const storage = new DiskStorage(root);
    const names = storage.names.bind(storage);
    let failing = true;
    storage.names = async (id) => {
      if (id === 'box' && failing) throw new Error('EIO');
      return names(id);
    };
    const library = await started({ storage });
    assert.deepEqual(closed(library).sort(), [segment(0, 'a'), segment(0, 'c')]);
    assert.deepEqual(errors, ['could not read a folder of recordings']);
    failing = false;
    await library.sweep();
    await library.settled();
    assert.equal(closed(library).length, 3);
  });

  it('tries what could not be read again at the next sweep', async () => {
    const path = put(segment(0), 'bad disk');
    const library = await started();
    assert.deepEqual(closed(library), []);
    assert.deepEqual(
      (await library.unread()).map((file) => [file.filename, file.isWritten]),
      [[segment(0), false]],
    );
    assert.deepEqual(errors, ['could not look into a recording']);
    fs.writeFileSync(path, 'fine');
    fs.utimesSync(path, new Date(), new Date(Date.now() - 60_000));
    await library.sweep();
    await library.settled();
    assert.equal(library.find(segment(0))?.size, 4);
  });
});

describe('A library that looks on', () => {
  it('closes a segment when the recorder begins the next one, and the last when it stops', async () => {
    const library = await started();
    library.saw('box', { sessionId: session(), segment: 0 });
    put(segment(0));
    assert.deepEqual(
      (await library.unread('box')).map((file) => [file.size, file.isWritten]),
      [[10, true]],
    );
    put(segment(1), 'a');
    library.saw('box', { sessionId: session(), segment: 1 });
    await library.settled();
    assert.deepEqual(closed(library), [segment(0)]);
    fs.appendFileSync(join(root, 'box', segment(1)), 'b');
    assert.deepEqual(
      (await library.unread('box')).map((file) => [file.size, file.isWritten]),
      [[2, true]],
    );
    library.saw('box', undefined);
    await library.settled();
    assert.deepEqual(closed(library), [segment(1), segment(0)]);
    assert.deepEqual(await library.unread(), []);
  });

  it('takes the highest segment for the one that is written when the recorder says no number', async () => {
    put(segment(0));
    put(segment(1));
    const library = await opened();
    library.saw('box', { sessionId: session() });
    await library.start();
    await library.settled();
    assert.deepEqual(closed(library), [segment(0)]);
    put(segment(2));
    const unread = await library.unread();
    assert.deepEqual(
      unread.filter((file) => file.isWritten).map((file) => file.filename),
      [segment(2)],
    );
    await library.sweep();
    await library.settled();
    assert.deepEqual(closed(library), [segment(1), segment(0)]);
  });

  it('takes back what it took for finished before it heard of the recorder', async () => {
    put(segment(0));
    const library = await started();
    assert.deepEqual(closed(library), [segment(0)]);
    library.saw('box', { sessionId: session(), segment: 0 });
    assert.deepEqual(closed(library), []);
    assert.deepEqual(
      (await library.unread()).map((file) => file.isWritten),
      [true],
    );
  });

  it('lets a sandbox say nothing about the files of others, and nothing that is none', async () => {
    put(segment(0, 'other'), 'x', 'other');
    const library = await started();
    for (const sessionId of [session('other'), '../..', '', 7 as unknown as string])
      library.saw('box', { sessionId, segment: 0 });
    library.saw('box', { sessionId: session(), segment: -1 });
    library.saw('box', { sessionId: session(), segment: 'x' as unknown as number });
    assert.deepEqual(closed(library), [segment(0, 'other')]);
    assert.deepEqual(await library.unread(), []);
  });

  it('finds what was planted when nobody writes to it any more, and notices what was taken', async () => {
    const library = await started();
    const path = put(segment(0));
    fs.utimesSync(path, new Date(), new Date());
    await library.sweep();
    await library.settled();
    assert.deepEqual(closed(library), [], 'it may still be copied');
    assert.equal((await library.unread()).length, 1);
    fs.utimesSync(path, new Date(), new Date(Date.now() - 10_000));
    await library.sweep();
    await library.settled();
    assert.deepEqual(closed(library), [segment(0)]);
    fs.rmSync(path);
    await library.sweep();
    assert.deepEqual(closed(library), []);
  });

  it('reads only folders that have changed', async () => {
    const storage = counting(new DiskStorage(root));
    for (const id of ['box', 'b', 'c']) {
      put(segment(0, id), 'x', id);
      // A folder that has just changed may change again in the same tick of its clock.
      fs.utimesSync(join(root, id), new Date(), new Date(Date.now() - 60_000));
    }
    const library = await started({ storage });
    storage.calls.names = 0;
    await library.sweep();
    assert.equal(storage.calls.names, 0);
    put(segment(1));
    await library.sweep();
    assert.equal(storage.calls.names, 1);
    await library.settled();
    assert.equal(library.closed().length, 4);
  });

  it('looks at a file whose time lies ahead, and calls it as old as it says', async () => {
    const now = Date.now();
    put(segment(0));
    const library = await started({ now: () => now - 365 * 24 * 3600 * 1000 });
    assert.ok((library.find(segment(0))?.startedAt ?? 0) > now - 60_000);
  });

  it('opens a file that has changed as it is, and looks into it again', async () => {
    const path = put(segment(0));
    const library = await started();
    fs.appendFileSync(path, 'more');
    fs.utimesSync(path, new Date(), new Date(Date.now() - 60_000));
    const file = await library.open(name(segment(0)));
    assert.equal(file?.size, 14);
    await file?.close();
    await library.sweep();
    await library.settled();
    assert.equal(library.find(segment(0))?.size, 14);
  });

  it('forgets a file that is gone when it is asked for', async () => {
    const path = put(segment(0));
    const library = await started();
    fs.rmSync(path);
    assert.equal(await library.open(name(segment(0))), undefined);
    assert.deepEqual(closed(library), []);
    assert.deepEqual(gone, [segment(0)]);
  });

  it('gives a new sandbox nothing of the files that an earlier one of its id left', async () => {
    put(segment(0));
    abouts.box = { owner: 'newcomer', metadata: {}, createdAt: Date.now() + 60_000 };
    const library = await opened();
    library.saw('box', { sessionId: session('box', '120000'), segment: 0 });
    put(segment(0, 'box', '120000'));
    await library.start();
    library.saw('box', undefined);
    await library.settled();
    assert.equal(library.find(segment(0))?.owner, undefined);
    assert.equal(library.find(segment(0, 'box', '120000'))?.owner, 'newcomer', 'the clock may have been set back');
  });
});

describe('Removing', () => {
  it('takes file, entry and journal along, and says so', async () => {
    put(segment(0));
    put(segment(1));
    journal({ segment: 0, reason: 'full', dropped: 0 });
    const library = await started();
    assert.equal(await library.remove(name(segment(0)), 'deleted'), true);
    assert.ok(fs.existsSync(join(root, 'box', `${session()}.jsonl`)), 'another segment of the session is there');
    assert.equal(await library.remove(name(segment(0)), 'deleted'), false);
    assert.equal(await library.remove(name(segment(1)), 'age'), true);
    assert.ok(!fs.existsSync(join(root, 'box')));
    assert.deepEqual(removals, [
      { sandboxId: 'box', filename: segment(0), owner: 'acme', reason: 'deleted' },
      { sandboxId: 'box', filename: segment(1), owner: 'acme', reason: 'age' },
    ]);
    assert.deepEqual(closed(library), []);
  });

  it('outruns the look into the file', async () => {
    put(segment(0));
    const release = hold();
    const library = await opened();
    await library.start();
    while (scanning.now === 0) await new Promise(setImmediate);
    assert.equal(await library.remove(name(segment(0)), 'deleted'), true);
    release();
    await library.settled();
    assert.deepEqual(closed(library), []);
    assert.deepEqual(await library.unread(), []);
  });

  it('removes a journal whose segments are all gone, however that came', async () => {
    const path = put(segment(0));
    journal({ segment: 0, reason: 'full', dropped: 0 });
    const library = await started();
    fs.rmSync(path);
    await library.sweep();
    assert.ok(!fs.existsSync(join(root, 'box')));
  });
});
