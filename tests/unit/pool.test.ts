import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Admission } from '../../src/core/admission.ts';
import type { Driver, RuntimeClaim, RuntimeLink, RuntimeLinkEvents } from '../../src/core/contracts.ts';
import type { PoolSize } from '../../src/core/demand.ts';
import { Pool, type PoolOptions } from '../../src/core/pool.ts';
import type { SandboxSpec, SandboxStatus } from '../../src/core/sandbox.ts';
import { STATUS, spec } from './sandbox.ts';

const READY: SandboxStatus = {
  ...STATUS,
  pooled: true,
  devtools: { port: 1, browserPath: '/devtools/browser/x' },
};
/** Short, so that no case waits long for anything that has to happen. */
const PAUSES = { adopt: 300, afterClaim: 5, busy: 5, failed: 20, failedMost: 80, full: 10, demand: 500 };

const pools: Pool[] = [];
afterEach(async () => {
  for (const pool of pools.splice(0)) await pool.close();
});

/** A pool over a driver and runtimes that do at once what they are told, or what the test has put in their place. */
function setUp({ size = 2, ...over }: Partial<PoolOptions> & { size?: number } = {}) {
  const calls: string[] = [];
  const running = new Map<string, { events: RuntimeLinkEvents; say(change: Partial<SandboxStatus>): void }>();
  const world = {
    shape: 'one',
    living: 0,
    start: async (_spec: SandboxSpec): Promise<void> => {},
    claim: async (_handle: string): Promise<boolean> => true,
    onClaim: async (_handle: string, _claim: RuntimeClaim): Promise<void> => {},
  };
  const started: SandboxSpec[] = [];
  const addressOf = (id: string) => ({ endpoint: { path: id }, secret: '', direct: true });
  const driver: Driver = {
    name: 'fake',
    check: async () => {},
    shape: async () => world.shape,
    async start(wanted, signal) {
      started.push(wanted);
      await world.start(wanted);
      signal.throwIfAborted();
      return addressOf(wanted.id);
    },
    async claim(handle, wanted) {
      if (!(await world.claim(handle))) return undefined;
      calls.push(`claim ${handle}`);
      return { address: addressOf(handle), runtime: { spec: wanted, recordingsDir: '', tombstone: '' } };
    },
    async stop(id) {
      calls.push(`stop ${id}`);
      running.delete(id);
    },
    list: async () => [],
  };
  const options: PoolOptions = {
    driver,
    async openLink(address, events) {
      const { path } = address.endpoint as { path: string };
      let status = READY;
      const say = (change: Partial<SandboxStatus>): void => {
        status = { ...status, ...change };
        events.onStatus(status);
      };
      running.set(path, { events, say });
      const link = {
        get status() {
          return status;
        },
        async claim(claim: RuntimeClaim) {
          await world.onClaim(path, claim);
          const { pooled, ...mine } = status;
          status = mine;
        },
        stop: async () => void calls.push(`end ${path}`),
        close: () => events.onClosed(),
      };
      setImmediate(() => say({}));
      return link as unknown as RuntimeLink;
    },
    admission: new Admission({
      maxSandboxes: 10,
      maxStarts: 2,
      maxQueue: 10,
      queueSeconds: 1,
      minFreeMemoryMb: 0,
      freeMemoryMb: () => undefined,
    }),
    sizes: sizes(size === 0 ? {} : { default: [size, size] }),
    startTimeoutSeconds: 60,
    plain: (templateName, id) => spec({ id, owner: '', templateName }),
    living: () => world.living,
    onNotRemoved: (id) => calls.push(`not removed ${id}`),
    log: { info() {}, warn() {}, error() {} },
    pauses: PAUSES,
    ...over,
  };
  const pool = new Pool(options);
  pools.push(pool);
  return { pool, world, driver, calls, started, running, admission: options.admission };
}

function sizes(of: Record<string, [number, number]>): ReadonlyMap<string, PoolSize> {
  return new Map(Object.entries(of).map(([name, [min, max]]) => [name, { min, max }]));
}

function readyIn(pool: Pool, templateName = 'default'): number {
  return pool.ready.get(templateName) ?? 0;
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, `waited for ${what}`);
    await sleep(2);
  }
}

describe('Pool', () => {
  it('fills up, one at a time, with sandboxes that are nobody’s and never strike by themselves before their age', async () => {
    const { pool, world, started } = setUp({ size: 3 });
    let [now, most] = [0, 0];
    world.start = async () => {
      most = Math.max(most, ++now);
      await sleep(5);
      now -= 1;
    };
    pool.begin();
    await until(() => readyIn(pool) === 3, 'three');
    assert.equal(most, 1);
    assert.equal(new Set(started.map((s) => s.id)).size, 3);
    for (const { id, owner, recording, maxLifetimeSeconds, idleTimeoutSeconds, pooled } of started) {
      assert.match(id, /^pool-[0-9a-f-]{36}$/);
      assert.deepEqual([owner, recording, maxLifetimeSeconds], ['', 'off', 3600]);
      assert.ok(idleTimeoutSeconds > 3600 && pooled);
    }
    await sleep(30);
    assert.equal(started.length, 3, 'no more than that');
  });

  it('keeps of each template what is wanted of it, and gives a create one of its own template', async () => {
    const { pool, started } = setUp({ sizes: sizes({ default: [1, 1], wide: [2, 2] }) });
    pool.begin();
    await until(() => readyIn(pool) === 1 && readyIn(pool, 'wide') === 2, 'all three');
    assert.deepEqual(started.map((s) => s.templateName).sort(), ['default', 'wide', 'wide']);
    const wanted = spec({ templateName: 'wide' });
    assert.ok(await pool.claim(pool.take(wanted), wanted));
    assert.deepEqual([readyIn(pool), readyIn(pool, 'wide')], [1, 1]);
    assert.deepEqual(pool.claims.get('wide'), { warm: 1, cold: 0 });
    assert.equal(pool.take(spec({ templateName: 'other' })), undefined);
    assert.equal(await pool.claim(undefined, spec({ templateName: 'other' })), undefined);
    assert.equal(pool.claims.has('other'), false, 'what has no pool is no miss');
    await until(() => readyIn(pool, 'wide') === 2, 'the one that is missing');
    assert.equal(started.at(-1)?.templateName, 'wide');
  });

  it('keeps as many as creates came lately, within its bounds, and gives the others back', async () => {
    const { pool, started, calls } = setUp({ sizes: sizes({ default: [0, 2] }) });
    pool.begin();
    await sleep(30);
    assert.equal(started.length, 0, 'nobody has asked');
    assert.equal(await pool.claim(undefined, spec()), undefined);
    await until(() => readyIn(pool) === 1, 'one');
    for (let i = 0; i < 4; i++) await pool.claim(undefined, spec());
    await until(() => readyIn(pool) === 2, 'the most');
    await until(() => readyIn(pool) === 0, 'them to be given back');
    assert.equal(started.length, 2);
    assert.equal(calls.filter((call) => call.startsWith('stop ')).length, 2);
  });

  it('gives each claim another one, tells its runtime, counts, and fills up again', async () => {
    const { pool, world, calls, started } = setUp();
    const told: RuntimeClaim[] = [];
    world.onClaim = async (_handle, claim) => void told.push(claim);
    pool.begin();
    await until(() => readyIn(pool) === 2, 'two');
    const [a, b] = [spec({ id: 'a' }), spec({ id: 'b' })];
    const [first, second, third] = [pool.take(a), pool.take(b), pool.take(spec())];
    assert.equal(third, undefined);
    const addresses = await Promise.all([pool.claim(first, a), pool.claim(second, b)]);
    assert.notDeepEqual(addresses[0], addresses[1]);
    assert.deepEqual(told.map((claim) => claim.spec.id).sort(), ['a', 'b']);
    assert.equal(await pool.claim(undefined, spec()), undefined);
    assert.deepEqual(pool.claims.get('default'), { warm: 2, cold: 1 });
    assert.deepEqual(
      calls.filter((call) => !call.startsWith('claim')),
      [],
      'nothing of them is ended',
    );
    await until(() => readyIn(pool) === 2 && started.length === 4, 'two more');
  });

  it('has nothing for another viewport, and nothing at all when it is off', async () => {
    const { pool } = setUp();
    pool.begin();
    await until(() => readyIn(pool) === 2, 'two');
    assert.equal(pool.take(spec({ viewport: { width: 800, height: 600 } })), undefined);
    const off = setUp({ size: 0 });
    off.pool.begin();
    await sleep(20);
    assert.equal(off.started.length, 0);
    assert.equal(await off.pool.claim(undefined, spec()), undefined);
    assert.equal(off.pool.claims.size, 0);
  });

  it('goes on to the next one when a runtime does not take the claim, and ends the former', async () => {
    const { pool, world, calls } = setUp();
    pool.begin();
    await until(() => readyIn(pool) === 2, 'two');
    let failed = '';
    world.onClaim = async (handle) => {
      if (failed === '') failed = handle;
      if (failed === handle) throw new Error('cannot be claimed');
    };
    const address = await pool.claim(pool.take(spec()), spec());
    assert.ok(address && (address.endpoint as { path: string }).path !== failed);
    assert.ok(calls.includes(`stop ${failed}`));
  });

  it('ends one that could not be claimed when it closes meanwhile', async () => {
    const { pool, world, calls } = setUp({ size: 1 });
    pool.begin();
    await until(() => readyIn(pool) === 1, 'one');
    let refuse = (): void => {};
    world.claim = () =>
      new Promise((resolve) => {
        refuse = () => resolve(false);
      });
    const claimed = pool.claim(pool.take(spec()), spec());
    const closed = pool.close();
    refuse();
    assert.equal(await claimed, undefined);
    await closed;
    await until(() => calls.some((call) => call.startsWith('stop pool-')), 'its end');
  });

  it('keeps one that cannot have the id that is asked for', async () => {
    const { pool, world, calls } = setUp();
    pool.begin();
    await until(() => readyIn(pool) === 2, 'two');
    world.claim = async () => false;
    assert.equal(await pool.claim(pool.take(spec()), spec()), undefined);
    assert.equal(readyIn(pool), 2);
    assert.deepEqual(calls, []);
  });

  it('replaces one that died, whose browser was started again, or that is made of something else', async () => {
    const { pool, world, calls, started, running } = setUp({ size: 1 });
    pool.begin();
    const replaced = async (spoil: () => void): Promise<void> => {
      await until(() => readyIn(pool) === 1, 'one');
      const before = started.at(-1)?.id;
      spoil();
      await until(() => readyIn(pool) === 1 && started.at(-1)?.id !== before, 'the next one');
      assert.ok(calls.includes(`stop ${before}`));
    };
    const only = () => [...running.values()].at(-1);
    await replaced(() => only()?.events.onClosed());
    await replaced(() => only()?.say({ browserRestarts: 1 }));
    await replaced(() => only()?.say({ endingReason: 'max_lifetime' }));
    await replaced(() => {
      world.shape = 'two';
    });
  });

  it('does not hand out one whose browser is down', async () => {
    const { pool, running } = setUp({ size: 1 });
    pool.begin();
    await until(() => readyIn(pool) === 1, 'one');
    const { devtools, ...down } = READY;
    for (const { events } of running.values()) events.onStatus(down);
    assert.equal(pool.take(spec()), undefined);
  });

  it('starts nothing while somebody starts, and gives way where there is no room for both', async () => {
    const { pool, world, started, admission } = setUp();
    const place = admission.enter(0);
    pool.begin();
    await sleep(40);
    assert.equal(started.length, 0);
    place.leave();
    await until(() => readyIn(pool) === 2, 'two');
    world.living = 9;
    pool.trim();
    assert.equal(readyIn(pool), 1);
    pool.relieve();
    assert.equal(readyIn(pool), 1, 'the memory of the one that is ending comes first');
    world.living = 10;
    pool.trim();
    assert.equal(readyIn(pool), 0);
    world.living = 0;
    await until(() => readyIn(pool) === 2, 'two again');
    await until(() => {
      pool.relieve();
      return readyIn(pool) < 2;
    }, 'one to be given back');
  });

  it('pauses longer after each start that fails, whatever wakes it meanwhile', { timeout: 60_000 }, async () => {
    const { pool, world, started, calls } = setUp({ pauses: { ...PAUSES, failed: 100, failedMost: 60_000 } });
    const at: number[] = [];
    world.start = async () => {
      at.push(performance.now());
      throw new Error('the image is broken');
    };
    pool.begin();
    while (at.length < 4) {
      assert.equal(await pool.claim(undefined, spec()), undefined);
      await sleep(5);
    }
    // Timers may be late, and are early by less than a millisecond or two.
    for (const [i, least] of [100, 200, 400].entries()) {
      const pause = (at[i + 1] as number) - (at[i] as number);
      assert.ok(pause > least - 5, `${pause} ms before start ${i + 2}`);
    }
    for (const { id } of started) assert.ok(calls.includes(`stop ${id}`), 'of each what may lie about is removed');
  });

  it('takes over what an earlier run left if it is right, and ends it if not', async () => {
    const first = setUp({ size: 1 });
    first.pool.begin();
    await until(() => readyIn(first.pool) === 1, 'one');
    const good = first.started[0] as SandboxSpec;
    const { pool, calls, driver, started } = setUp({ size: 1 });
    const address = await driver.start(good, new AbortController().signal);
    await pool.adopt({ spec: good, address });
    assert.equal(readyIn(pool), 1);
    for (const odd of [{ id: 'pool-surplus' }, { id: 'pool-other', pooled: 'other' }]) {
      await pool.adopt({ spec: { ...good, ...odd }, address: { ...address, endpoint: { path: odd.id } } });
    }
    pool.begin();
    const stopped = () => calls.filter((call) => call.startsWith('stop '));
    await until(() => stopped().length === 2, 'the others to go');
    assert.deepEqual(stopped().sort(), ['stop pool-other', 'stop pool-surplus']);
    assert.ok(calls.includes('end pool-other'), 'in order');
    assert.equal(started.length, 1, 'nothing had to be started');
    const off = setUp({ size: 0 });
    await off.pool.adopt({ spec: good, address });
    await until(() => off.calls.includes(`stop ${good.id}`), 'it to go where there is no pool any more');
  });

  it('ends with all of them gone, also the one that is starting', async () => {
    const { pool, world, calls, started } = setUp({ size: 2 });
    let go = (): void => {};
    world.start = async () => {
      if (started.length === 2) await new Promise<void>((resolve) => (go = resolve));
    };
    pool.begin();
    await until(() => started.length === 2, 'the second to start');
    const closed = pool.close();
    go();
    await closed;
    for (const { id } of started) assert.ok(calls.includes(`stop ${id}`));
    assert.equal(readyIn(pool), 0);
  });

  it('says so when the driver cannot remove one', async () => {
    const { pool, driver, calls, started } = setUp({ size: 1 });
    pool.begin();
    await until(() => readyIn(pool) === 1, 'one');
    driver.stop = async () => {
      throw new Error('the engine is away');
    };
    await pool.close();
    assert.ok(calls.includes(`not removed ${started[0]?.id}`));
  });
});
