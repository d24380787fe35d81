import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Driver, RuntimeAddress, RuntimeLink } from '../../src/core/contracts.ts';
import { AppError } from '../../src/core/errors.ts';
import { DEFAULTS, type SandboxSpec, type SandboxStatus } from '../../src/core/sandbox.ts';
import { openRuntimeLink } from '../../src/runtime/link.ts';
import type { EgressBook } from './egress-book.ts';

/** What the suite needs of a driver under test. */
export interface DriverUnderTest {
  readonly driver: Driver;
  /** Of all drivers on these folders. */
  readonly egress: EgressBook;
  /** A second driver on the same folders, as after a restart of the service. */
  again(): Driver;
  /** What is there of sandboxes: processes, containers, folders. Empty when nothing is left. */
  leftovers(): Promise<string[]>;
  clean(): Promise<void>;
}

/** For a start, a stop and what comes after them, in milliseconds: a machine may be busy with other tests. */
const LIMIT_MS = 60_000;

let ids = 0;

export function spec(over: Partial<SandboxSpec> = {}): SandboxSpec {
  return {
    id: `contract-${process.pid}-${ids++}`,
    owner: 'tester',
    templateName: 'default',
    createdAt: Date.now(),
    ...DEFAULTS,
    metadata: { note: 'über "quotes"' },
    ...over,
  };
}

/** Connects as the service does and waits until the sandbox is READY. */
export async function ready(address: RuntimeAddress, limitMs = LIMIT_MS): Promise<RuntimeLink> {
  let latest: SandboxStatus | undefined;
  let closed = false;
  const events = {
    onStatus(status: SandboxStatus): void {
      latest = status;
    },
    onClosed(): void {
      closed = true;
    },
  };
  const link = await openRuntimeLink(address, events, AbortSignal.timeout(limitMs));
  const deadline = Date.now() + limitMs;
  while (latest?.state !== 'READY') {
    assert.ok(
      !closed && Date.now() < deadline,
      `it is ${latest?.state}: ${latest?.endedReason ?? latest?.endingReason ?? ''}`,
    );
    await sleep(20);
  }
  return link;
}

function startFailed(err: unknown): boolean {
  return err instanceof AppError && err.errorName === 'START_FAILED';
}

/** Every driver passes this. */
export function driverContract(name: string, make: () => Promise<DriverUnderTest>): void {
  describe(`the ${name} driver`, () => {
    let it_: DriverUnderTest;
    before(async () => {
      it_ = await make();
      await it_.driver.check();
    });
    after(async () => {
      await it_.clean();
    });
    const nothingLeft = async (): Promise<void> => {
      let left = await it_.leftovers();
      for (const until = Date.now() + LIMIT_MS; left.length > 0 && Date.now() < until; ) {
        await sleep(50);
        left = await it_.leftovers();
      }
      assert.deepEqual(left, []);
    };

    it('starts a sandbox that gets READY, lists it, and stops it without a trace', async () => {
      const wanted = spec();
      const address = await it_.driver.start(wanted, AbortSignal.timeout(LIMIT_MS));
      const link = await ready(address);
      assert.ok(link.status.devtools?.browserPath.startsWith('/devtools/browser/'));
      assert.deepEqual([...it_.egress.open_.values()], [wanted], 'its way out is open');
      it_.egress.open_.clear();
      const [found, ...others] = await it_.again().list();
      assert.deepEqual(found, { spec: wanted, address });
      assert.equal(others.length, 0);
      assert.deepEqual([...it_.egress.open_.values()], [wanted], 'and after a restart of the service it is again');
      await it_.driver.stop(wanted.id);
      assert.deepEqual(it_.egress.ids, [], 'and closed at the end');
      link.close();
      await nothingLeft();
    });

    it('stops what was stopped, and what never was', async () => {
      await it_.driver.stop('never-was');
      const one = spec();
      await it_.driver.start(one, AbortSignal.timeout(LIMIT_MS));
      await Promise.all([it_.driver.stop(one.id), it_.driver.stop(one.id)]);
      await it_.driver.stop(one.id);
      await nothingLeft();
    });

    it('asks for the secret', async () => {
      const one = spec();
      const address = await it_.driver.start(one, AbortSignal.timeout(LIMIT_MS));
      const wrong = { ...address, secret: `${address.secret}x` };
      await assert.rejects(ready(wrong), /refused the control connection with 401/);
      await it_.driver.stop(one.id);
    });

    it('starts two at once', async () => {
      const specs = [spec(), spec()];
      const addresses = await Promise.all(specs.map((s) => it_.driver.start(s, AbortSignal.timeout(LIMIT_MS))));
      const links = await Promise.all(addresses.map((a) => ready(a)));
      assert.equal((await it_.driver.list()).length, 2);
      await Promise.all(specs.map((s) => it_.driver.stop(s.id)));
      for (const link of links) link.close();
      await nothingLeft();
    });

    it('leaves nothing of a start that is aborted, whenever that is', async () => {
      const aborted = spec();
      await assert.rejects(it_.driver.start(aborted, AbortSignal.abort(new Error('no'))), startFailed);
      for (const afterMs of [1, 15, 40, 80, 150, 300]) {
        const one = spec();
        const outcome = it_.driver.start(one, AbortSignal.timeout(afterMs)).then(
          () => it_.driver.stop(one.id),
          (err: unknown) => assert.ok(startFailed(err), String(err)),
        );
        await outcome;
      }
      await nothingLeft();
    });

    it('takes a stop in the middle of a start', async () => {
      const one = spec();
      const started = it_.driver
        .start(one, AbortSignal.timeout(LIMIT_MS))
        .catch((err: unknown) => assert.ok(startFailed(err)));
      await sleep(60);
      await it_.driver.stop(one.id);
      await started;
      await it_.driver.stop(one.id);
      await nothingLeft();
    });

    /** One started ahead of demand, READY. */
    const pooled = async (): Promise<{ one: SandboxSpec; link: RuntimeLink }> => {
      const one = spec({ owner: '', pooled: await it_.driver.shape(), maxLifetimeSeconds: 3600 });
      return { one, link: await ready(await it_.driver.start(one, AbortSignal.timeout(LIMIT_MS))) };
    };

    it('lists a pooled sandbox as such, names what it is made of the same way each time, and stops it', async () => {
      const { one, link } = await pooled();
      assert.equal(link.status.pooled, true);
      assert.equal(await it_.again().shape(), one.pooled);
      const [found, ...others] = await it_.again().list();
      assert.deepEqual([found?.spec, others.length], [one, 0]);
      await it_.driver.stop(one.id);
      link.close();
      await nothingLeft();
    });

    it('makes a pooled sandbox the one of another id, with clocks of its own, and ends it by that id', async () => {
      const { one, link } = await pooled();
      const mine = spec({ maxLifetimeSeconds: 500, recording: 'always', egress: { deny: ['example.com'] } });
      const [way] = it_.egress.open_.keys();
      const claimed = await it_.driver.claim(one.id, mine);
      assert.deepEqual([...it_.egress.open_], [[way, mine]], 'the same way out, by other rules');
      assert.ok(claimed);
      await link.claim(claimed.runtime);
      assert.equal(link.status.pooled, undefined);
      assert.ok(
        Math.abs(link.status.expiresAt - mine.createdAt - 500_000) < 2000,
        'its lifetime begins at its creation',
      );
      assert.equal(link.status.recorder.sessionId?.startsWith(`vnc_${mine.id}_`), true);
      await assert.rejects(link.claim(claimed.runtime), /cannot be claimed/, 'a second claim is refused');
      assert.deepEqual(await it_.again().list(), [{ spec: mine, address: claimed.address }]);
      const other = await ready(claimed.address);
      await other.stop('deleted');
      assert.equal(await it_.again().autopsy?.(mine.id), 'deleted');
      await it_.again().stop(mine.id);
      for (const each of [link, other]) each.close();
      assert.deepEqual(await it_.driver.list(), []);
      await nothingLeft();
    });

    it('knows a sandbox whose claim was cut short, and gives the id to the next one', async () => {
      const { one, link } = await pooled();
      const mine = spec();
      assert.ok(await it_.driver.claim(one.id, mine));
      const [found] = await it_.again().list();
      assert.equal(found?.spec.id, mine.id);
      assert.equal(link.status.pooled, true, 'its own runtime was never told');
      link.close();
      await it_.driver.stop(one.id);
      const next = await ready(await it_.driver.start(mine, AbortSignal.timeout(LIMIT_MS)));
      next.close();
      await it_.driver.stop(mine.id);
      await nothingLeft();
    });

    it('tells of a sandbox that ended by itself while nobody looked', async () => {
      // Time enough to get READY on a busy machine.
      const one = spec({ maxLifetimeSeconds: 15 });
      (await ready(await it_.driver.start(one, AbortSignal.timeout(LIMIT_MS)))).close();
      let found = await it_.again().list();
      for (const until = Date.now() + LIMIT_MS; !found[0]?.ended && Date.now() < until; ) {
        await sleep(100);
        found = await it_.again().list();
      }
      assert.equal(found[0]?.ended?.endedReason, 'max_lifetime');
      assert.deepEqual(found[0]?.spec, one);
      assert.equal(await it_.again().autopsy?.(one.id), 'max_lifetime');
      const late = (found[0]?.ended?.endedAt ?? 0) - one.createdAt - 15_000;
      assert.ok(late > -1000 && late < 20_000, `${late} ms late`);
      await it_.driver.stop(one.id);
      assert.deepEqual(await it_.driver.list(), []);
      await nothingLeft();
    });
  });
}
