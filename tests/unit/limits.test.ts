import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AppError, NEVER_OURS } from '../../src/core/errors.ts';
import { AddressLimits, Rate, subnetOf, TenantLimits } from '../../src/core/limits.ts';

let now = 0;
const clock = (): number => now;

function refused(name: string, says: RegExp, retryAfter?: string) {
  return (err: unknown) => {
    assert.ok(err instanceof AppError);
    assert.equal(err.errorName, name);
    assert.match(err.message, says);
    assert.match(
      err.headers['Retry-After'] ?? '',
      retryAfter === undefined ? /^[1-9]\d*$/ : new RegExp(`^${retryAfter}$`),
    );
    return true;
  };
}

describe('A rate', () => {
  it('gives all at once, then one whenever its share of the period has passed, and never more than all', () => {
    now = 1000;
    const rate = new Rate(3, 60_000, clock);
    assert.deepEqual(
      [1, 2, 3, 4, 5].map(() => rate.take('a')),
      [0, 0, 0, 20, 20],
    );
    assert.equal(rate.take('b'), 0, 'others have their own');
    now += 19_000;
    assert.deepEqual([rate.wait('a'), rate.take('a')], [1, 1]);
    now += 1000;
    assert.deepEqual([rate.wait('a'), rate.take('a'), rate.take('a')], [0, 0, 20]);
    now += 3_600_000;
    assert.deepEqual(
      [1, 2, 3, 4].map(() => rate.take('a')),
      [0, 0, 0, 20],
    );
  });

  it('of 0 is none, and one in a period is one', () => {
    const none = new Rate(0, 60_000, clock);
    for (let i = 0; i < 1000; i++) assert.equal(none.take('a'), 0);
    assert.equal(none.size, 0);
    const one = new Rate(1, 60_000, clock);
    assert.deepEqual([one.take('a'), one.take('a')], [0, 60]);
  });

  it('gives exactly as many as it says, however the calls lie', () => {
    now = 0;
    for (const limit of [7, 20, 300, 12_000]) {
      const rate = new Rate(limit, 60_000, clock);
      let given = 0;
      for (now = 0; now <= 60_000; now += 37) for (let i = 0; i < 20; i++) given += rate.take('a') === 0 ? 1 : 0;
      // Some of the last ones would have come after the end.
      const least = 2 * limit - 1 - (limit * 37) / 60_000;
      assert.ok(given >= least && given <= 2 * limit, `${given} of ${limit} and as many again`);
    }
  });

  it('remembers a bounded number of names, and forgets those that have their allowance whole', () => {
    now = 0;
    const rate = new Rate(20_000, 60_000, clock);
    for (let i = 0; i < 100_000; i++) rate.take(`flood ${i}`);
    assert.ok(rate.size <= 10_001, `${rate.size} names`);
    now += 60_000;
    for (let i = 0; i < 10_001; i++) rate.take('one');
    assert.ok(rate.size <= 1, `${rate.size} names`);
  });
});

describe('Limits of an address', () => {
  const guess = () => {
    throw new AppError('UNAUTHORIZED', 'The API key is not known.', {}, NEVER_OURS);
  };

  it('wrong secrets are counted, and then nothing is looked at any more', () => {
    now = 0;
    const limits = new AddressLimits({ addressFailuresPerMinute: 3 }, clock);
    const missing = () => {
      throw new AppError('UNAUTHORIZED', 'An API key is needed.');
    };
    for (let i = 0; i < 10; i++) assert.throws(() => limits.authenticating('1.2.3.4', missing), /needed/);
    for (let i = 0; i < 10; i++)
      assert.equal(
        limits.authenticating('1.2.3.4', () => i),
        i,
      );
    for (let i = 0; i < 3; i++) assert.throws(() => limits.authenticating('1.2.3.4', guess), /not known/);
    let looked = false;
    const look = () => {
      looked = true;
    };
    assert.throws(() => limits.authenticating('1.2.3.4', look), refused('TOO_MANY_REQUESTS', /wrong keys/, '20'));
    assert.equal(looked, false, 'the right one is not looked at either');
    limits.authenticating('1.2.3.5', look);
    now += 20_000;
    limits.authenticating('1.2.3.4', look);
  });

  it('requests, and WebSockets in a minute and under way', () => {
    now = 0;
    const options = { addressRequestsPerMinute: 2, addressUpgradesPerMinute: 5, addressUpgrades: 2 };
    const limits = new AddressLimits(options, clock);
    limits.request('a');
    limits.request('a');
    assert.throws(() => limits.request('a'), refused('TOO_MANY_REQUESTS', /BERTH_ADDRESS_REQUESTS_PER_MINUTE/, '30'));
    const [first, second] = [limits.upgrade('a'), limits.upgrade('a')];
    assert.throws(() => limits.upgrade('a'), refused('TOO_MANY_REQUESTS', /\(BERTH_ADDRESS_UPGRADES\)/));
    limits.upgrade('b')();
    first();
    limits.upgrade('a')();
    second();
    for (let i = 0; i < 2; i++) limits.upgrade('a')();
    assert.throws(() => limits.upgrade('a'), refused('TOO_MANY_REQUESTS', /BERTH_ADDRESS_UPGRADES_PER_MINUTE/, '12'));
  });

  it('connections', () => {
    now = 0;
    const limits = new AddressLimits({ addressConnections: 2 }, clock);
    assert.deepEqual(
      [1, 2, 3].map(() => limits.connection('a')),
      [true, true, false],
    );
    now += 6000;
    assert.deepEqual(
      [1, 2].map(() => limits.connection('a')),
      [true, false],
    );
  });

  it('count all of an IPv6 /64 as one, in whatever form', () => {
    for (const address of [
      '2001:db8:0:1::',
      '2001:db8:0:1:ffff::1',
      '2001:0db8:0000:0001:0000:0000:0000:0009',
      '2001:DB8::1:1:2:3:4',
    ])
      assert.equal(subnetOf(address), '2001:db8:0:1');
    assert.equal(subnetOf('::1'), '0:0:0:0');
    assert.notEqual(subnetOf('2001:db8:0:2::'), subnetOf('2001:db8:0:1::'));
    assert.equal(subnetOf('192.0.2.1'), '192.0.2.1');
    assert.equal(subnetOf(''), '');
  });

  it('are none where none are said', () => {
    const limits = new AddressLimits();
    for (let i = 0; i < 1000; i++) {
      limits.request('a');
      limits.upgrade('a');
      assert.equal(limits.connection('a'), true);
      assert.throws(() => limits.authenticating('a', guess), /not known/);
    }
  });
});

describe('Limits of a tenant', () => {
  it('sandboxes, creates and tickets', () => {
    now = 0;
    const options = { tenantSandboxes: 2, tenantCreatesPerMinute: 3, tenantTicketsPerMinute: 1 };
    const limits = new TenantLimits(options, clock);
    limits.create('a', 1);
    assert.throws(() => limits.create('a', 2), refused('NO_CAPACITY', /BERTH_TENANT_SANDBOXES/));
    limits.create('b', 0);
    limits.create('a', 0);
    assert.throws(() => limits.create('a', 0), refused('TOO_MANY_REQUESTS', /BERTH_TENANT_CREATES_PER_MINUTE/, '20'));
    limits.ticket('a');
    assert.throws(() => limits.ticket('a'), refused('TOO_MANY_REQUESTS', /BERTH_TENANT_TICKETS_PER_MINUTE/, '60'));
    limits.ticket('b');
  });
});
