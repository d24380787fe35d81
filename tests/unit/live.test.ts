import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Driver, RuntimeLink, RuntimeLinkEvents } from '../../src/core/contracts.ts';
import { LiveSandbox } from '../../src/core/live.ts';
import type { EndedReason, SandboxStatus } from '../../src/core/sandbox.ts';
import { STATUS, spec } from './sandbox.ts';

const ADDRESS = { endpoint: { path: 'x' }, secret: '', direct: true };

/** A sandbox whose runtime does at once what it is told, or what the test has put in its place. */
function setUp() {
  const world = {
    answers: true,
    state: 'READY' as SandboxStatus['state'],
    gone: false,
    lastWord: undefined as EndedReason | undefined,
  };
  let events: RuntimeLinkEvents | undefined;
  let status: SandboxStatus = STATUS;
  const say = (change: Partial<SandboxStatus>): void => {
    status = { ...status, ...change };
    events?.onStatus(status);
  };
  const link = {
    presence() {},
    async stop(endedReason: EndedReason) {
      say({ state: 'TERMINATED', endedReason });
    },
    async setRecording() {},
    async cutRecording() {},
    pages: async () => [],
    async change(changes: SandboxStatus['changes']) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      say({ changes: { ...status.changes, ...changes } });
    },
    close() {},
  } as unknown as RuntimeLink;
  const live = new LiveSandbox(spec(), {
    driver: {
      start: async () => ADDRESS,
      stop: async () => {},
      autopsy: async () => world.lastWord,
    } as unknown as Driver,
    async openLink(_address, to) {
      if (!world.answers) throw new Error('no runtime');
      events = to;
      say({ state: world.state });
      return link;
    },
    startTimeoutSeconds: 30,
    log: { info() {}, warn() {}, error() {} },
    watcher: { saw() {} },
    onEnded: async () => {},
    onGone() {
      world.gone = true;
    },
    onControl() {},
    onNotRemoved() {},
  });
  const die = (): void => {
    world.answers = false;
    events?.onClosed();
  };
  return { live, world, say, die };
}

const SOON = { timeout: 5000 };
const never = new AbortController().signal;
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

describe('LiveSandbox', () => {
  it('ends one that was still starting when an earlier run of the service ended', SOON, async () => {
    const { live, world } = setUp();
    world.state = 'CREATING';
    await live.adopt(ADDRESS, never);
    assert.equal(live.state, 'CREATING');
    await live.stop('deleted');
    assert.deepEqual([live.state, live.info.ended?.endedReason, world.gone], ['TERMINATED', 'deleted', true]);
  });

  it('notices when the runtime of such a one dies', SOON, async () => {
    const { live, world, die } = setUp();
    world.state = 'CREATING';
    await live.adopt(ADDRESS, never);
    die();
    await until(() => world.gone);
    assert.equal(live.info.ended?.endedReason, 'failed: the runtime died');
  });

  it('fails a start at once when the runtime dies', SOON, async () => {
    const { live, world, die } = setUp();
    world.state = 'CREATING';
    const started = live.start(undefined, async () => undefined);
    await until(() => live.info.status !== undefined);
    die();
    await assert.rejects(started, { errorName: 'START_FAILED', message: /its runtime died/ });
    assert.equal(live.state, 'FAILED');
  });

  it('knows why a start failed though the connection broke before the last word came', SOON, async () => {
    const { live, world, die } = setUp();
    world.state = 'CREATING';
    world.lastWord = 'failed: Chromium did not get ready in time';
    const started = live.start(undefined, async () => undefined);
    await until(() => live.info.status !== undefined);
    die();
    await assert.rejects(started, { message: 'The sandbox did not start: failed: Chromium did not get ready in time' });
    assert.equal(live.info.ended?.endedReason, world.lastWord);
  });

  it(
    'never goes back to a state that it has left, nor to one without a reason, whatever its runtime says',
    SOON,
    async () => {
      const { live, world, say, die } = setUp();
      await live.start(undefined, async () => undefined);
      for (const state of ['CREATING', 'TERMINATED'] as const) {
        say({ state });
        assert.equal(live.state, 'READY');
      }
      die();
      await until(() => world.gone);
    },
  );

  it('says so when it cannot be told to record, its control connection being opened again', SOON, async () => {
    const { live, die } = setUp();
    await live.start(undefined, async () => undefined);
    die();
    for (const told of [live.setRecording(true), live.cutRecording(), live.pages()]) {
      await assert.rejects(told, { errorName: 'SANDBOX_NOT_READY' });
    }
  });

  it('makes changes one after the other, each from what the one before has left', SOON, async () => {
    const { live } = setUp();
    await live.start(undefined, async () => undefined);
    const add = (key: string) => live.change(({ metadata }) => ({ metadata: { ...metadata, [key]: 'x' } }));
    const refused = live.change(() => {
      throw new Error('no such change');
    });
    await Promise.all([add('a'), add('b'), assert.rejects(refused, /no such change/), add('c')]);
    assert.deepEqual(live.spec.metadata, { a: 'x', b: 'x', c: 'x' });
  });
});
