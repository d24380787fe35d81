import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { AppError } from '../../src/core/errors.ts';
import { ArchiveWatch } from '../../src/recordings/archive-watch.ts';
import { type Clock, Uploader } from '../../src/recordings/uploader.ts';
import { nameOf } from '../contract/archive.ts';
import { FakeQueue } from '../contract/fake-queue.ts';
import { MemoryArchive } from '../contract/memory-archive.ts';

/** Time that goes on when it is told to. */
class FakeClock implements Clock {
  time = 1_763_289_100_000;
  chance = 1;
  #timers: { at: number; then: () => void }[] = [];

  now(): number {
    return this.time;
  }
  random(): number {
    return this.chance;
  }
  after(ms: number, then: () => void): () => void {
    const timer = { at: this.time + ms, then };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }
  get timers(): number {
    return this.#timers.length;
  }
  /** Runs what is due until then, in order, and lets each have its consequences. */
  async pass(ms: number): Promise<void> {
    const until = this.time + ms;
    await settled();
    for (;;) {
      const next = this.#timers.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.#timers = this.#timers.filter((other) => other !== next);
      this.time = Math.max(this.time, next.at);
      next.then();
      await settled();
    }
    this.time = until;
  }
}

async function settled(): Promise<void> {
  for (let i = 0; i < 30; i++) await setImmediate();
}

const log = { info() {}, warn() {}, error() {} };
const AWAY = new AppError('STORAGE_UNAVAILABLE', 'The archive is away.');
const file = (n: number): string => nameOf(n).filename;

let clock: FakeClock;
let queue: FakeQueue;
let archive: MemoryArchive;
let uploader: Uploader;
beforeEach(() => {
  clock = new FakeClock();
  queue = new FakeQueue(() => clock.now());
  archive = new MemoryArchive();
  uploader = new Uploader({ queue, archive, localMs: 300_000, log, clock });
});

describe('Uploader', () => {
  it('uploads everything, oldest first, two at a time', async () => {
    for (const n of [3, 1, 4, 0, 2]) queue.add(n);
    const waiting: (() => void)[] = [];
    let most = 0;
    archive.before = (call) =>
      new Promise((resolve) => {
        if (call === 'put') most = Math.max(most, waiting.push(resolve));
        else resolve();
      });
    uploader.wake();
    await settled();
    for (let open = waiting.shift(); open; open = waiting.shift()) {
      open();
      await settled();
    }
    assert.equal(most, 2);
    assert.deepEqual(archive.puts, [0, 1, 2, 3, 4].map(file));
    for (const [name, { bytes }] of archive.stored) assert.ok(queue.disk.get(name)?.bytes.equals(bytes));
    const { pending, pendingBytes, uploads, failures } = uploader.status();
    assert.deepEqual(
      { pending, pendingBytes, uploads, failures },
      { pending: 0, pendingBytes: 0, uploads: 5, failures: 0 },
    );
  });

  it('takes up what is closed later, when it is woken', async () => {
    uploader.wake();
    await settled();
    queue.add(1);
    uploader.wake();
    await settled();
    assert.deepEqual([...archive.stored.keys()], [file(1)]);
    assert.equal(clock.timers, 1, 'one timer, however often it is woken');
  });

  it('says what waits and since when', async () => {
    const segment = queue.add(1);
    queue.add(2);
    archive.before = async () => {
      throw AWAY;
    };
    clock.time = segment.startedAt + 90_000;
    uploader.wake();
    await settled();
    const { oldestPendingSeconds, ...rest } = uploader.status();
    assert.deepEqual(rest, {
      pending: 2,
      pendingBytes: 200,
      lastError: 'The archive is away.',
      uploads: 0,
      failures: 2,
    });
    assert.equal(oldestPendingSeconds, 90);
    archive.before = async () => {};
    await clock.pass(10_000);
    assert.equal(uploader.status().lastError, undefined);
  });

  it('tries one that fails again after 1 s, 2 s, 4 s and so on to 5 min', async () => {
    queue.add(1);
    const at: number[] = [];
    archive.before = async (call) => {
      if (call !== 'put') return;
      at.push(clock.now());
      throw new Error('damaged');
    };
    uploader.wake();
    await clock.pass(3_600_000);
    const gaps = at.slice(1).map((time, i) => (time - (at[i] as number)) / 1000);
    assert.deepEqual(gaps.slice(0, 12), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
  });

  it('waits between half of that and all of it', async () => {
    queue.add(1);
    let tries = 0;
    archive.before = async () => {
      tries += 1;
      throw new Error('damaged');
    };
    clock.chance = 0;
    uploader.wake();
    await clock.pass(499);
    assert.equal(tries, 1);
    await clock.pass(1);
    assert.equal(tries, 2);
  });

  it('goes on with the others while one fails, however long', async () => {
    for (let n = 0; n < 6; n++) queue.add(n);
    archive.before = async (_, name) => {
      if (name === file(0)) throw new Error('damaged');
    };
    uploader.wake();
    await settled();
    assert.deepEqual([...archive.stored.keys()], [1, 2, 3, 4, 5].map(file));
    archive.before = async () => {};
    await clock.pass(1000);
    assert.equal(archive.stored.size, 6);
  });

  it('the same when the one makes the archive look as if it were away', async () => {
    for (let n = 0; n < 6; n++) queue.add(n);
    archive.before = async (_, name) => {
      if (name === file(0)) throw AWAY;
    };
    uploader.wake();
    await clock.pass(10_000);
    assert.deepEqual([...archive.stored.keys()].sort(), [1, 2, 3, 4, 5].map(file));
  });

  it('does not ask an archive that is away for each segment, but one at a time, and catches up when it is back', async () => {
    for (let n = 0; n < 50; n++) queue.add(n);
    let running = 0;
    const atOnce: number[] = [];
    archive.before = async () => {
      atOnce.push(++running);
      await setImmediate();
      running -= 1;
      throw AWAY;
    };
    uploader.wake();
    await clock.pass(600_000);
    assert.ok(archive.puts.length < 15, `${archive.puts.length} puts in ten minutes`);
    assert.equal(Math.max(...atOnce.slice(2)), 1);
    archive.before = async () => {};
    await clock.pass(300_000);
    assert.equal(archive.stored.size, 50);
  });

  it('removes from the archive what was deleted while it was uploaded', async () => {
    const segment = queue.add(1);
    archive.before = async (call) => {
      if (call === 'put') await settled();
    };
    uploader.wake();
    await setImmediate();
    const opened = queue.openLocal.bind(queue);
    queue.openLocal = async (name) => {
      const found = await opened(name);
      queue.delete(segment);
      return found;
    };
    await clock.pass(1000);
    assert.deepEqual(archive.puts, [segment.filename]);
    assert.equal(archive.stored.size, 0);
    assert.equal(uploader.status().uploads, 0);
  });

  it('and goes on trying to, while the archive is away', async () => {
    const segment = queue.add(1);
    let removes = 0;
    queue.archived = async () => {
      queue.delete(segment);
      return false;
    };
    archive.before = async (call) => {
      if (call === 'remove' && ++removes < 4) throw AWAY;
    };
    uploader.wake();
    await clock.pass(60_000);
    assert.equal(removes, 4);
    assert.equal(archive.stored.size, 0);
    assert.deepEqual(archive.puts, [segment.filename]);
  });

  it('and the next one does, when the service ends before it could', async () => {
    const segment = queue.add(1);
    const deleted = queue.add(2);
    queue.archived = async () => {
      queue.delete(segment);
      return false;
    };
    archive.before = async (call) => {
      if (call === 'remove') throw AWAY;
    };
    uploader.wake();
    await settled();
    await uploader.close();
    queue.delete(deleted);
    assert.ok(archive.stored.has(segment.filename));
    archive.before = async () => {};
    const next = new Uploader({ queue, archive, localMs: 300_000, log, clock });
    next.wake();
    await settled();
    assert.equal(archive.stored.size, 0);
    assert.deepEqual(queue.unwanted(), []);
    await next.close();
  });

  it('takes a file that is gone before it was read for deleted, not for a failure', async () => {
    const segment = queue.add(1);
    queue.openLocal = async () => {
      queue.delete(segment);
      return undefined;
    };
    uploader.wake();
    await clock.pass(1000);
    assert.equal(uploader.status().failures, 0);
    assert.deepEqual(archive.puts, [segment.filename]);
  });

  it('removes from the disk what the archive has for long enough, and nothing else', async () => {
    queue.add(1);
    const stays = queue.add(2);
    archive.before = async (call, name) => {
      if (call === 'put' && name === stays.filename) throw new Error('damaged');
    };
    uploader.wake();
    await clock.pass(299_000);
    assert.equal(queue.disk.size, 2);
    await clock.pass(2_000);
    assert.deepEqual([...queue.disk.keys()], [stays.filename]);
    assert.ok(archive.stored.has(file(1)));
  });

  it('lets one that cannot be removed keep no other, and tries it again', async () => {
    for (const n of [1, 2, 3]) queue.add(n);
    let tries = 0;
    const evict = queue.evict.bind(queue);
    queue.evict = async (segment) => {
      if (segment.filename === file(1) && ++tries < 3) throw new Error('EIO');
      return evict(segment);
    };
    uploader.wake();
    await clock.pass(301_000);
    assert.deepEqual([...queue.disk.keys()], [file(1)]);
    await clock.pass(120_000);
    assert.equal(queue.disk.size, 0);
  });

  it('removes at once where the disk is to keep nothing', async () => {
    uploader = new Uploader({ queue, archive, localMs: 0, log, clock });
    queue.add(1);
    uploader.wake();
    await clock.pass(5);
    assert.equal(queue.disk.size, 0);
  });

  it('does nothing after it was closed, which breaks off what is under way', async () => {
    for (let n = 0; n < 5; n++) queue.add(n);
    archive.before = async (call) => {
      if (call === 'put') await new Promise(() => {});
    };
    uploader.wake();
    await settled();
    assert.equal(archive.puts.length, 2);
    await uploader.close();
    uploader.wake();
    await clock.pass(1_000_000);
    assert.equal(archive.puts.length, 2);
    assert.equal(clock.timers, 0);
    assert.equal(uploader.status().failures, 0);
  });

  it('can be closed while the archive does not answer a removal', async () => {
    const segment = queue.add(1);
    queue.archived = async () => {
      queue.delete(segment);
      return false;
    };
    archive.before = async (call) => {
      if (call === 'remove') await new Promise(() => {});
    };
    uploader.wake();
    await settled();
    await uploader.close();
  });

  it('closed midway leaves the rest to the next one, and nothing goes up twice', async () => {
    for (let n = 0; n < 6; n++) queue.add(n);
    let puts = 0;
    archive.before = async (call) => {
      if (call === 'put' && ++puts > 3) await new Promise(() => {});
    };
    uploader.wake();
    await settled();
    await uploader.close();
    assert.deepEqual([...archive.stored.keys()], [0, 1, 2].map(file));
    archive.before = async () => {};
    archive.puts.length = 0;
    const next = new Uploader({ queue, archive, localMs: 300_000, log, clock });
    next.wake();
    await settled();
    assert.deepEqual(archive.puts, [3, 4, 5].map(file));
    assert.deepEqual([...archive.stored.keys()].sort(), [0, 1, 2, 3, 4, 5].map(file));
    assert.equal(next.status().pending, 0);
    await next.close();
  });
});

describe('ArchiveWatch', () => {
  it('knows how it was when it was last looked, and logs only changes', async () => {
    const said: string[] = [];
    const words = {
      ...log,
      info: (_: object, message: string) => said.push(message),
      error: (_: object, message: string) => said.push(message),
    };
    let away = true;
    archive.before = async () => {
      if (away) throw AWAY;
    };
    const watch = new ArchiveWatch(archive, words, 3_600_000);
    assert.equal(watch.state, 'ok');
    for (let i = 0; i < 3; i++) await watch.look();
    assert.equal(watch.state, 'unreachable');
    away = false;
    for (let i = 0; i < 3; i++) await watch.look();
    assert.equal(watch.state, 'ok');
    assert.deepEqual(said, [
      'recordings wait on the disk: the archive cannot be reached',
      'the archive can be reached',
    ]);
    watch.close();
  });

  it('takes what the end of the service breaks off for no failure', async () => {
    const said: string[] = [];
    archive.before = async () => {
      throw AWAY;
    };
    const watch = new ArchiveWatch(archive, { ...log, error: (_, message) => said.push(message) }, 3_600_000);
    watch.close();
    await settled();
    assert.deepEqual(said, []);
    assert.equal(watch.state, 'ok');
  });
});
