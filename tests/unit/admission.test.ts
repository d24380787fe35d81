import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Admission, type AdmissionOptions, type Place } from '../../src/core/admission.ts';
import { AppError } from '../../src/core/errors.ts';

const NEVER = new AbortController().signal;

/** An admission whose clock and memory the test moves, and who got in, in the order of their turns. */
function setUp(options: Partial<AdmissionOptions> = {}) {
  let now = 0;
  const timers = new Set<{ readonly at: number; readonly run: () => void }>();
  const memory: { freeMb: number | undefined } = { freeMb: 100_000 };
  const admission = new Admission({
    maxSandboxes: 100,
    maxStarts: 1,
    maxQueue: 10,
    queueSeconds: 30,
    minFreeMemoryMb: 512,
    freeMemoryMb: () => memory.freeMb,
    after: (ms, run) => {
      const timer = { at: now + ms, run };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    ...options,
  });
  const started: string[] = [];
  const settled = () => new Promise((resolve) => setImmediate(resolve));
  return {
    admission,
    memory,
    started,
    timers,
    settled,
    /** Takes a place and waits for its turn; `turn` never rejects but gives what it would have rejected with. */
    create(name: string, signal = NEVER): { readonly place: Place; readonly turn: Promise<unknown> } {
      const place = admission.enter(0);
      const turn = place.turn(signal).then(
        () => void started.push(name),
        (err: unknown) => err,
      );
      return { place, turn };
    },
    async pass(ms: number): Promise<void> {
      const end = now + ms;
      for (;;) {
        const [next] = [...timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at);
        if (!next) break;
        timers.delete(next);
        now = next.at;
        next.run();
      }
      now = end;
      await settled();
    },
  };
}

/** A refusal has its code, when to come again, and a sentence. */
function assertNoCapacity(err: unknown, message: RegExp): void {
  assert.ok(err instanceof AppError, String(err));
  assert.equal(err.errorName, 'NO_CAPACITY');
  assert.ok(Number(err.headers['Retry-After']) >= 1);
  assert.match(err.message, message);
  assert.match(err.message, /^[^\n]+[^.]\.$/);
}

function refusalOf(act: () => unknown): unknown {
  try {
    act();
  } catch (err) {
    return err;
  }
  assert.fail('it was admitted');
}

describe('Admission', () => {
  it('refuses at once what is one sandbox too many', () => {
    const { admission } = setUp({ maxSandboxes: 3 });
    admission.enter(2);
    assertNoCapacity(
      refusalOf(() => admission.enter(3)),
      /^All 3 sandboxes .*\(BERTH_MAX_SANDBOXES\)\.$/,
    );
  });

  it('starts as many at once as it may, and the others in the order they came', async () => {
    const { create, started, settled } = setUp({ maxStarts: 2 });
    const all = ['a', 'b', 'c', 'd', 'e'].map((name) => create(name));
    await settled();
    assert.deepEqual(started, ['a', 'b']);
    all[1]?.place.leave();
    await settled();
    assert.deepEqual(started, ['a', 'b', 'c']);
    all[0]?.place.leave();
    all[0]?.place.leave();
    await settled();
    assert.deepEqual(started, ['a', 'b', 'c', 'd'], 'a place that is left twice is free once');
    all[2]?.place.leave();
    all[3]?.place.leave();
    await settled();
    assert.deepEqual(started, ['a', 'b', 'c', 'd', 'e']);
  });

  it('refuses at once when the queue is full, and has room again when one leaves it', async () => {
    const { admission, create, started, settled } = setUp({ maxQueue: 2 });
    const first = create('first');
    create('second');
    const third = create('third');
    const full = () => refusalOf(() => admission.enter(0));
    assertNoCapacity(full(), /^As many .* \(BERTH_MAX_STARTS\), and 2 creates wait .*\(BERTH_MAX_QUEUE\)/);
    third.place.leave();
    create('fourth');
    assertNoCapacity(full(), /BERTH_MAX_QUEUE/);
    first.place.leave();
    await settled();
    assert.deepEqual(started, ['first', 'second']);
  });

  it('without a queue refuses what cannot start at once', () => {
    const { admission } = setUp({ maxQueue: 0 });
    const place = admission.enter(0);
    assertNoCapacity(
      refusalOf(() => admission.enter(0)),
      /BERTH_MAX_STARTS/,
    );
    place.leave();
    admission.enter(0);
  });

  it('refuses who has waited for too long, and not who came later', async () => {
    const { create, pass, started } = setUp();
    const first = create('first');
    const early = create('early');
    await pass(10_000);
    create('late');
    await pass(19_999);
    first.place.leave();
    await pass(0);
    assert.deepEqual(started, ['first', 'early']);
    await pass(10_000);
    const { turn } = create('latest');
    early.place.leave();
    await pass(29_999);
    assert.deepEqual(started, ['first', 'early', 'late']);
    await pass(1);
    assertNoCapacity(await turn, /BERTH_MAX_STARTS\), and no turn came within 30 s \(BERTH_QUEUE_SECONDS\)\.$/);
  });

  it('lets go at once of who hangs up, also of who did before it asked for its turn', async () => {
    const { create, started, settled, timers } = setUp();
    const first = create('first');
    const caller = new AbortController();
    const gone = create('gone', caller.signal);
    create('next');
    const watched = timers.size;
    caller.abort(new Error('hung up'));
    assert.match(String(await gone.turn), /hung up/);
    assert.equal(timers.size, watched - 1, 'and of its timer');
    assert.match(String(await create('early', AbortSignal.abort(new Error('gone before'))).turn), /gone before/);
    gone.place.leave();
    first.place.leave();
    await settled();
    assert.deepEqual(started, ['first', 'next']);
  });

  it('gives the place of a start to the next when its caller hung up in the same moment', async () => {
    const { create, started, settled } = setUp();
    const { turn, place } = create('gone', AbortSignal.abort(new Error('gone before')));
    assert.match(String(await turn), /gone before/);
    place.leave();
    create('next');
    await settled();
    assert.deepEqual(started, ['next']);
  });

  it('counts for every start what it will still take', async () => {
    const { create, memory, started, pass } = setUp({ maxStarts: 10 });
    memory.freeMb = 512 + 2 * 300;
    const [first] = [create('first'), create('second'), create('third')];
    await pass(5000);
    assert.deepEqual(started, ['first', 'second']);
    memory.freeMb -= 300;
    first?.place.leave();
    await pass(5000);
    assert.deepEqual(started, ['first', 'second'], 'what the first had reserved it has now taken');
    memory.freeMb += 300;
    await pass(1000);
    assert.deepEqual(started, ['first', 'second', 'third']);
  });

  it('says how much memory there is and must be, and lets nobody overtake', async () => {
    const { create, memory, started, pass } = setUp({ maxStarts: 10 });
    memory.freeMb = 300.7;
    const { turn } = create('first');
    await pass(29_000);
    const later = create('later');
    await pass(1000);
    assertNoCapacity(
      await turn,
      /^512 MB of memory must stay free \(BERTH_MIN_FREE_MEMORY_MB\), 300 MB are, and this sandbox will take about 300 MB, and no turn/,
    );
    memory.freeMb = 512 + 300;
    create('last');
    await pass(0);
    assert.deepEqual(started, ['later'], 'who waits goes before who comes, though nobody had looked yet');
    later.place.leave();
    await pass(0);
    assert.deepEqual(started, ['later', 'last']);
  });

  it('does not look at memory when told so, nor wait where nobody can tell', async () => {
    for (const options of [{ minFreeMemoryMb: 0, freeMemoryMb: () => 0 }, { freeMemoryMb: () => undefined }]) {
      const { create, started, settled } = setUp(options);
      create('first');
      await settled();
      assert.deepEqual(started, ['first']);
    }
  });

  it('stops looking when nobody waits', async () => {
    const { create, memory, pass, timers } = setUp();
    memory.freeMb = 0;
    const { place } = create('first');
    await pass(1200);
    assert.equal(timers.size, 2, 'its limit and the next look');
    place.leave();
    await pass(1000);
    assert.equal(timers.size, 0);
  });

  it('sends everybody away when it closes', async () => {
    const { admission, create, started, timers, pass } = setUp();
    const first = create('first');
    const turns = [create('second').turn, create('third').turn];
    admission.close();
    for (const err of await Promise.all(turns)) assert.equal((err as AppError).errorName, 'SHUTTING_DOWN');
    assert.equal((refusalOf(() => admission.enter(0)) as AppError).errorName, 'SHUTTING_DOWN');
    first.place.leave();
    await pass(1000);
    assert.deepEqual(started, ['first']);
    assert.equal(timers.size, 0);
  });

  it('lets something start ahead of demand only while nobody starts or waits and there is memory, and counts its memory', async () => {
    const { admission, memory, create } = setUp({ maxStarts: 2 });
    const first = create('first');
    assert.equal(admission.enterAhead(), undefined, 'somebody starts');
    first.place.leave();
    memory.freeMb = 800;
    assert.equal(admission.enterAhead(), undefined, 'no memory');
    memory.freeMb = 1200;
    const leave = admission.enterAhead();
    assert.ok(leave);
    memory.freeMb = 1100;
    const second = create('second');
    await setUp().settled();
    assert.match(String(await race(second.turn)), /waits/);
    leave();
    assert.equal(await second.turn, undefined, 'its memory is free again');
    second.place.leave();
  });

  it('asks for memory back when a create needs it, and only then', async () => {
    let asked = 0;
    const { admission, memory, create, pass } = setUp({ onShortage: () => asked++ });
    const first = create('first');
    memory.freeMb = 100;
    first.place.leave();
    assert.equal(asked, 0, 'nobody needs any');
    const second = create('second');
    assert.equal(asked, 1);
    await pass(500);
    assert.equal(asked, 2);
    memory.freeMb = 100_000;
    await pass(500);
    assert.equal(await second.turn, undefined);
    assert.equal(asked, 2);
    assert.equal(admission.room(98), 2);
    assert.throws(() => admission.assertRoom(100), /BERTH_MAX_SANDBOXES/);
  });
});

/** What a promise came to, or that it waits. */
function race(promise: Promise<unknown>): Promise<unknown> {
  return Promise.race([promise, new Promise((resolve) => setImmediate(() => resolve('waits')))]);
}
