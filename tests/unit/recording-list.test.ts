import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { Log, OpenedFile, Storage, StoredFile } from '../../src/core/contracts.ts';
import { AppError } from '../../src/core/errors.ts';
import { parseSegmentName } from '../../src/core/recording.ts';
import type { Entry } from '../../src/recordings/index.ts';
import { Library } from '../../src/recordings/library.ts';
import { Posters } from '../../src/recordings/posters.ts';
import { Recordings } from '../../src/recordings/recordings.ts';
import { timeline } from '../../src/recordings/timeline.ts';

const session = (id: string, time = '103022') => `vnc_${id}_20251116_${time}`;
const segment = (n: number, id = 'box', time?: string) => `${session(id, time)}_seg${String(n).padStart(3, '0')}.mkv`;
const silent: Log = { info: () => {}, warn: () => {}, error: () => {} };

/** Only names, ages and one content; counts how often it is asked. */
class FakeStorage implements Storage {
  readonly files = new Map<string, StoredFile>();
  readonly #bySandbox = new Map<string, string[]>();
  calls: string[] = [];

  add(filename: string, createdAt: number, size = 7): void {
    const id = parseSegmentName(filename)?.sandboxId as string;
    this.files.set(filename, { filename, size, createdAt, modifiedAt: createdAt });
    const names = this.#bySandbox.get(id) ?? [];
    this.#bySandbox.set(id, names);
    names.push(filename);
  }
  async folders() {
    this.calls.push('folders');
    return [...this.#bySandbox.keys()].map((sandboxId) => ({ sandboxId, changedAt: 1 }));
  }
  async names(sandboxId: string) {
    this.calls.push('names');
    return { segments: this.#bySandbox.get(sandboxId) ?? [], journals: [] };
  }
  async find(_: string, filename: string) {
    this.calls.push('find');
    return this.files.get(filename);
  }
  async open(_: string, filename: string): Promise<OpenedFile | undefined> {
    const file = this.files.get(filename);
    if (!file) return undefined;
    return { ...file, stream: () => Readable.from([Buffer.from(filename)]), close: async () => {} };
  }
  async remove(_: string, filename: string) {
    return this.files.delete(filename);
  }
  async journal() {
    return undefined;
  }
  async removeJournal() {}
}

let base: string;
let storage: FakeStorage;
let library: Library;
let recordings: Recordings;
let drawn: string[];
/** How many cuts were asked for. */
let cuts: number;
const abouts = new Map<string, { owner: string; metadata: Record<string, string>; createdAt: number }>();

beforeEach(() => {
  base = fs.mkdtempSync(join(tmpdir(), 'berth-list-'));
  storage = new FakeStorage();
  drawn = [];
  cuts = 0;
  abouts.clear();
});
afterEach(async () => {
  await library.close();
  fs.rmSync(base, { recursive: true });
});

/** A frame each 100 ms, one for each byte. */
async function open(active: Record<string, { sessionId: string; segment?: number }> = {}): Promise<void> {
  const about = (id: string) => abouts.get(id) ?? { owner: id, metadata: {}, createdAt: 0 };
  const posters = new Posters(join(base, 'posters'), async (file) => {
    const content = (await buffer(file)).toString();
    drawn.push(content);
    if (content.includes('bad')) throw new Error('no frame in it');
    return Buffer.from(`picture of ${content}`);
  });
  library = await Library.open({
    storage,
    indexFile: join(base, 'index.jsonl'),
    scan: async ({ size }) => {
      return { durationMs: size * 100, frames: size, headerBytes: 1, clusters: 1, frameBytes: size };
    },
    about,
    onRemoved: () => {},
    onGone: (name) => posters.remove(name),
    log: silent,
  });
  for (const [id, writing] of Object.entries(active)) library.saw(id, writing);
  await library.start();
  await library.settled();
  const exportMkv = async (
    segments: readonly { facts?: object | undefined; open(): Promise<OpenedFile | undefined> }[],
  ) => ({
    length: segments.every((one) => one.facts) ? segments.length : undefined,
    stream: Readable.from(segments.map((one) => one.open()).map(async (file) => `${(await file)?.size};`)),
  });
  const cut = async (): Promise<void> => {
    cuts += 1;
    throw new Error('the recorder does not answer');
  };
  recordings = new Recordings({ library, posters, about, cut, exportMkv, toMp4: (mkv) => mkv, log: silent });
}

const page = { page: 1, pageSize: 20 };
const names = async (query: object = {}) =>
  (await recordings.list({ ...page, ...query })).recordings.map((recording) => recording.filename);
const only = (tenant: string) => (owner: string | undefined) => owner === tenant;

describe('Recordings.list', () => {
  it('sorts by age, then segment, newest first, then by name', async () => {
    storage.add(segment(0), 100);
    storage.add(segment(1, 'b'), 300);
    storage.add(segment(1, 'a'), 300);
    storage.add(segment(2), 300);
    storage.add(segment(9), 200);
    await open();
    assert.deepEqual(await names(), [segment(2), segment(1, 'a'), segment(1, 'b'), segment(9), segment(0)]);
  });

  it('cuts pages out of the whole, growing files among them, and the ones past the end are empty', async () => {
    for (let n = 0; n < 30; n++) storage.add(segment(n), n * 10);
    // Two that began long ago and one that began just now.
    storage.add(segment(0, 'old'), 45);
    storage.add(segment(0, 'older'), 5);
    storage.add(segment(0, 'new'), 1000);
    const growing = ['old', 'older', 'new'].map((id) => [id, { sessionId: session(id), segment: 0 }]);
    await open(Object.fromEntries(growing));
    const whole = await names({ pageSize: 100 });
    assert.deepEqual(
      whole,
      [...storage.files.values()].sort((a, b) => b.createdAt - a.createdAt).map((file) => file.filename),
    );
    for (const pageSize of [1, 2, 7, 33]) {
      const pages: string[] = [];
      for (let n = 1; n <= Math.ceil(33 / pageSize); n++) pages.push(...(await names({ page: n, pageSize })));
      assert.deepEqual(pages, whole, `${pageSize} a page`);
    }
    for (const past of [34, Number.MAX_SAFE_INTEGER]) {
      assert.deepEqual(await recordings.list({ page: past, pageSize: 100 }), {
        ...{ recordings: [], total: 33, page: past, pageSize: 100 },
      });
    }
  });

  it('calls only what is written "recording"', async () => {
    for (const n of [0, 9, 10]) storage.add(segment(n), n);
    storage.add(segment(50, 'box', '090000'), 4);
    storage.add(segment(3, 'idle'), 5);
    await open({ box: { sessionId: session('box'), segment: 10 }, idle: { sessionId: session('idle', '235959') } });
    assert.deepEqual(await names({ status: 'recording' }), [segment(10)]);
    assert.equal((await names({ status: 'completed' })).length, 4);
  });

  it('shows and counts only what is visible, by whom it belongs to and not by the sandbox of that name', async () => {
    storage.add(segment(0, 'mine'), 1);
    storage.add(segment(0, 'theirs'), 2);
    await open();
    abouts.set('theirs', { owner: 'mine', metadata: {}, createdAt: 3 });
    assert.deepEqual(await names({ visible: only('mine') }), [segment(0, 'mine')]);
    assert.deepEqual(await names({ visible: only('theirs') }), [segment(0, 'theirs')]);
    assert.deepEqual(await names({ sandboxId: 'theirs', visible: only('theirs') }), [segment(0, 'theirs')]);
    assert.deepEqual(await names({ sandboxId: 'theirs', visible: only('mine') }), [], 'the sandbox is its own');
    for (const sandboxId of ['mine', '../theirs', '']) {
      await assert.rejects(recordings.list({ ...page, sandboxId, visible: only('theirs') }), {
        errorName: 'SANDBOX_NOT_FOUND',
      });
    }
    await assert.rejects(recordings.open(segment(0, 'mine'), { visible: only('theirs') }), {
      errorName: 'RECORDING_NOT_FOUND',
    });
  });

  it('filters by time and metadata, own keys alone', async () => {
    for (const n of [0, 1, 2]) storage.add(segment(n), n * 1000);
    abouts.set('box', { owner: 'box', metadata: { job: '1' }, createdAt: 0 });
    await open({ box: { sessionId: session('box'), segment: 2 } });
    assert.deepEqual(await names({ since: 1000 }), [segment(2), segment(1)]);
    assert.deepEqual(await names({ until: 1000 }), [segment(0)]);
    assert.equal((await names({ metadata: [['job', '1']] })).length, 3);
    assert.deepEqual(await names({ metadata: [['job', '2']] }), []);
    assert.deepEqual(await names({ metadata: [['constructor', 'x']] }), []);
  });

  it('answers for 100,000 recordings from memory', { timeout: 180_000 }, async (t) => {
    const lines: string[] = [];
    for (let n = 0; n < 100_000; n++) {
      const filename = segment(n % 100, `s${Math.floor(n / 100)}`);
      storage.add(filename, n);
      const entry: Partial<Entry> = {
        ...{ filename, size: 7, startedAt: n, durationMs: 60_000, frames: 600, headerBytes: 1, clusters: 1 },
        ...{ frameBytes: 7, owner: `t${n % 10}`, metadata: { job: '1' }, reason: 'full', dropped: 0, onDisk: true },
      };
      lines.push(JSON.stringify(entry));
    }
    fs.writeFileSync(join(base, 'index.jsonl'), lines.join('\n'));
    storage.add(segment(0, 'growing'), 50_000);
    await open({ growing: { sessionId: session('growing'), segment: 0 } });
    assert.equal(
      storage.calls.filter((call) => call === 'find').length,
      1,
      'nothing that the index knows is looked at',
    );
    const queries = [
      { page: 1 },
      { page: 900 },
      { visible: only('t3'), page: 50 },
      { sandboxId: 's7' },
      { metadata: [['job', '1']] as const, since: 10_000, status: 'completed' as const },
    ];
    for (const query of queries) {
      storage.calls = [];
      const times: number[] = [];
      for (let i = 0; i < 11; i++) {
        const started = performance.now();
        const { total } = await recordings.list({ ...page, pageSize: 100, ...query });
        times.push(performance.now() - started);
        assert.ok(total > 0);
      }
      const median = times.sort((a, b) => a - b)[5] as number;
      t.diagnostic(`${JSON.stringify(query)}: ${median.toFixed(1)} ms`);
      // A hundredth of it is usual.
      assert.ok(median < 2000, `${median} ms`);
      const asked = 'sandboxId' in query ? 0 : 11;
      assert.deepEqual(storage.calls, Array(asked).fill('find'), 'one look at the file that grows');
    }
  });
});

describe('Recordings.remove', () => {
  it('ends what is being written first, and removes it also when that fails', async () => {
    storage.add(segment(0), 1);
    storage.add(segment(1), 2);
    await open({ box: { sessionId: session('box'), segment: 1 } });
    await recordings.remove(segment(1));
    assert.equal(cuts, 1);
    await recordings.remove(segment(0));
    assert.equal(cuts, 1);
    assert.deepEqual(await names(), []);
    await assert.rejects(recordings.remove(segment(0)), { errorName: 'RECORDING_NOT_FOUND' });
    await assert.rejects(recordings.remove('x.mp4'), { errorName: 'INVALID_FILENAME' });
  });
});

describe('Recordings.poster', () => {
  it('is made once, kept, and goes with its recording', async () => {
    storage.add(segment(0), 1);
    await open();
    const both = await Promise.all([recordings.poster(segment(0)), recordings.poster(segment(0))]);
    for (const picture of [...both, await recordings.poster(segment(0))])
      assert.equal(picture.toString(), `picture of ${segment(0)}`);
    assert.deepEqual(drawn, [segment(0)]);
    await recordings.remove(segment(0));
    assert.deepEqual(fs.readdirSync(join(base, 'posters')), []);
    await assert.rejects(recordings.poster(segment(0)), { errorName: 'RECORDING_NOT_FOUND' });
  });

  it('is not there for what grows, plays nothing or cannot be drawn', async () => {
    storage.add(segment(0), 1);
    storage.add(segment(1), 2, 0);
    storage.add(segment(0, 'bad'), 3);
    await open({ box: { sessionId: session('box', '110000'), segment: 0 } });
    storage.add(segment(0, 'box', '110000'), 4);
    for (const filename of [segment(1), segment(0, 'bad'), segment(0, 'box', '110000')])
      await assert.rejects(recordings.poster(filename), { errorName: 'RECORDING_NOT_FOUND' });
    await assert.rejects(recordings.poster(segment(0), { visible: only('other') }), {
      errorName: 'RECORDING_NOT_FOUND',
    });
  });
});

describe('Recordings.poster of what the archive has', () => {
  it('does not pass for one that has none while the archive is away', async () => {
    storage.add(segment(0), 1);
    await open();
    const file = storage.open.bind(storage);
    storage.open = async () => {
      throw new AppError('STORAGE_UNAVAILABLE', 'The archive is away.');
    };
    await assert.rejects(recordings.poster(segment(0)), { errorName: 'STORAGE_UNAVAILABLE' });
    storage.open = file;
    assert.equal((await recordings.poster(segment(0))).toString(), `picture of ${segment(0)}`);
  });
});

describe('Recordings.export', () => {
  it('has all of a session that plays, in order, and a length once all is closed', async () => {
    for (const n of [2, 0, 1, 3]) storage.add(segment(n), 10 - n, n);
    storage.add(segment(0, 'box', '110000'), 20, 99);
    await open({ box: { sessionId: session('box'), segment: 3 } });
    const growing = await recordings.export(session('box'), 'mkv');
    assert.deepEqual([growing.length, growing.estimatedLength], [undefined, 6]);
    assert.equal((await buffer(growing.stream)).toString(), '1;2;3;');
    library.saw('box', undefined);
    await library.settled();
    assert.equal((await recordings.export(session('box'), 'mkv')).length, 3);
    assert.equal((await recordings.export(session('box'), 'mp4')).length, undefined);
  });

  it('tells bad names from sessions that are not there, not visible or have nothing to play', async () => {
    storage.add(segment(0), 1, 0);
    storage.add(segment(0, 'other'), 1);
    await open();
    for (const bad of ['', 'x', segment(0), `${session('box')}/..`])
      await assert.rejects(recordings.export(bad, 'mkv'), { errorName: 'INVALID_FILENAME' });
    for (const none of [session('box'), session('none')])
      await assert.rejects(recordings.export(none, 'mkv'), { errorName: 'RECORDING_NOT_FOUND' });
    for (const scope of [{ visible: only('box') }, { sandboxId: 'box' }])
      await assert.rejects(recordings.export(session('other'), 'mkv', scope), { errorName: 'RECORDING_NOT_FOUND' });
  });
});

describe('timeline', () => {
  const file = (n: number, startedAt: number, durationMs = 1000, time?: string): Entry => ({
    ...{ filename: segment(n, 'box', time), sandboxId: 'box', sessionId: session('box', time), segment: n, size: 5 },
    ...{ startedAt, durationMs, frames: 1, headerBytes: 1, clusters: 1, frameBytes: 1, metadata: {} },
    ...{ reason: 'full', dropped: 0, onDisk: true },
  });

  it('puts sessions and files in order, and leaves room for what was deleted', async () => {
    await open();
    const [first, second] = timeline([file(2, 3000), file(0, 9000, 1000, '110000'), file(0, 0)]);
    assert.deepEqual([first?.sessionId, second?.sessionId], [session('box'), session('box', '110000')]);
    assert.deepEqual(
      first?.segments.map((one) => [one.segment, one.offsetSeconds, one.posterUrl]),
      [
        [0, 0, `/recordings/${segment(0)}/poster`],
        [2, 3, `/recordings/${segment(2)}/poster`],
      ],
    );
    assert.deepEqual([first?.durationSeconds, first?.size, first?.status], [2, 10, 'completed']);
    assert.equal(Date.parse(first?.endedAt ?? ''), 4000);
  });

  it('keeps the order of the files when the clock was set back between them', async () => {
    await open();
    const [one] = timeline([file(0, 5000), file(1, 1000), file(2, 7000)]);
    assert.deepEqual(
      one?.segments.map((part) => part.offsetSeconds),
      [0, 1, 2],
    );
  });
});
