import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Activity } from '../../src/runtime/activity.ts';

const LIMITS = { idleMs: 1000, connectMs: 5000, maxLifetimeMs: 60_000, viewersCount: true };

function at(ageMs = 0, limits = LIMITS): { activity: Activity; pass: (ms: number) => void } {
  let now = 1_000_000;
  const activity = new Activity(limits, ageMs, () => now);
  return {
    activity,
    pass(ms) {
      now += ms;
    },
  };
}

describe('Activity', () => {
  it('lets viewers count or not, as it is asked to', () => {
    const { activity, pass } = at(0, { ...LIMITS, viewersCount: false });
    const gateway = {};
    activity.ready();
    pass(400);
    activity.report(gateway, { clients: 0, viewers: 1 }, false);
    assert.equal(activity.idleInMs(), 600);
    activity.report(gateway, { clients: 1, viewers: 1 }, true);
    assert.equal(activity.idleInMs(), 1000);
    pass(300);
    activity.forget(gateway);
    assert.equal(activity.idleInMs(), 700, 'a viewer that leaves changes nothing either');
  });

  it('takes other limits while it runs', () => {
    const { activity, pass } = at();
    activity.ready();
    activity.report({}, { clients: 1, viewers: 0 }, true);
    pass(900);
    activity.change({ ...LIMITS, idleMs: 5000, maxLifetimeMs: 2000 });
    assert.equal(activity.idleInMs(), 4100);
    assert.deepEqual(activity.next(), { reason: 'max_lifetime', inMs: 1100 });
    activity.change({ ...LIMITS, maxLifetimeMs: 500 });
    assert.deepEqual(activity.next(), { reason: 'max_lifetime', inMs: -400 }, 'a limit that is over strikes now');
  });

  it('begins anew for whoever gets a sandbox that was there before', () => {
    const { activity, pass } = at();
    activity.ready();
    activity.report({}, { clients: 0, viewers: 0 }, true);
    pass(59_000);
    activity.restart({ ...LIMITS, connectMs: 500, maxLifetimeMs: 2000 }, 100);
    assert.equal(activity.idleInMs(), 1000);
    assert.equal(activity.expiresInMs(), 1900);
    assert.deepEqual(activity.next(), { reason: 'connect_timeout', inMs: 500 }, 'nobody ever came');
  });

  it('has only a lifetime before READY', () => {
    const { activity } = at();
    assert.equal(activity.idleInMs(), null);
    assert.deepEqual(activity.next(), { reason: 'max_lifetime', inMs: 60_000 });
  });

  it('counts the lifetime from the creation, not from the start of the clock', () => {
    const { activity, pass } = at(10_000);
    pass(20_000);
    assert.equal(activity.expiresInMs(), 30_000);
  });

  it('strikes idle when nothing happens after READY', () => {
    const { activity, pass } = at();
    pass(5000);
    activity.ready();
    pass(400);
    assert.deepEqual(activity.next(), { reason: 'idle_timeout', inMs: 600 });
  });

  it('begins anew with each message of a client', () => {
    const { activity, pass } = at();
    activity.ready();
    activity.report('gateway' as unknown as object, { clients: 1, viewers: 0 }, true);
    pass(900);
    activity.report('gateway' as unknown as object, { clients: 1, viewers: 0 }, true);
    pass(900);
    assert.equal(activity.idleInMs(), 100);
  });

  it('does not take a connected but silent client for activity', () => {
    const { activity, pass } = at();
    const gateway = {};
    activity.ready();
    activity.report(gateway, { clients: 1, viewers: 0 }, true);
    pass(700);
    activity.report(gateway, { clients: 1, viewers: 0 }, false);
    assert.equal(activity.idleInMs(), 300);
  });

  it('is never idle while a viewer is attached, and counts from the moment the last one leaves', () => {
    const { activity, pass } = at();
    const gateway = {};
    activity.ready();
    activity.report(gateway, { clients: 0, viewers: 1 }, true);
    pass(50_000);
    assert.equal(activity.idleInMs(), null);
    assert.equal(activity.next().reason, 'max_lifetime');
    activity.report(gateway, { clients: 0, viewers: 0 }, false);
    assert.equal(activity.idleInMs(), 1000);
  });

  it('takes the clients of a gateway that is gone for gone', () => {
    const { activity, pass } = at();
    const one = {};
    const two = {};
    activity.ready();
    activity.report(one, { clients: 2, viewers: 1 }, true);
    activity.report(two, { clients: 1, viewers: 0 }, true);
    assert.deepEqual([activity.clients, activity.viewers], [3, 1]);
    pass(10_000);
    activity.forget(one);
    assert.deepEqual([activity.clients, activity.viewers], [1, 0]);
    assert.equal(activity.idleInMs(), 1000, 'a viewer was there until now');
  });

  it('ends a sandbox that nobody ever used at the connect timeout', () => {
    const { activity, pass } = at(0, { ...LIMITS, idleMs: 30_000 });
    activity.ready();
    pass(4000);
    assert.deepEqual(activity.next(), { reason: 'connect_timeout', inMs: 1000 });
    activity.report({}, { clients: 1, viewers: 0 }, true);
    assert.equal(activity.next().reason, 'idle_timeout');
  });

  it('keeps the lifetime whatever happens', () => {
    const { activity, pass } = at();
    activity.ready();
    const gateway = {};
    for (let i = 0; i < 120; i++) {
      activity.report(gateway, { clients: 1, viewers: 1 }, true);
      pass(500);
    }
    assert.deepEqual(activity.next(), { reason: 'max_lifetime', inMs: 0 });
  });
});
