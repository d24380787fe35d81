import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Log } from '../../src/core/contracts.ts';
import type { Entry } from '../../src/recordings/index.ts';
import type { Library } from '../../src/recordings/library.ts';
import { expired, Retention } from '../../src/recordings/retention.ts';

const HOUR = 3_600_000;
const NOW = Date.UTC(2026, 0, 31);
const UNLIMITED = { ageMs: 0, bytes: 0, tenantBytes: 0 };

/** A minute of recording that began so many hours ago. */
function entry(n: number, hoursAgo: number, more: Partial<Entry> = {}): Entry {
  const sessionId = 'vnc_box_20260101_000000';
  return {
    ...{ filename: `${sessionId}_seg00${n}.mkv`, sandboxId: 'box', sessionId, segment: n, size: 100 },
    ...{ durationMs: 60_000, frames: 1, headerBytes: 1, clusters: 1, frameBytes: 1 },
    ...{ startedAt: NOW - hoursAgo * HOUR, owner: 'acme', metadata: {}, reason: 'full', dropped: 0, onDisk: true },
    ...more,
  };
}

/** Which go, and why; entries are given newest first. */
function going(entries: Entry[], limits: Partial<typeof UNLIMITED>, mayGo = (_: Entry) => true, held = 0): unknown[] {
  const other = held > 0 ? [{ size: held, owner: 'acme' }] : [];
  return expired(entries, other, { ...UNLIMITED, ...limits }, NOW, mayGo).map((one) => [one.name.segment, one.reason]);
}

describe('expired', () => {
  const three = [entry(2, 1), entry(1, 2), entry(0, 3)];

  it('keeps everything without a limit', () => assert.deepEqual(going(three, {}), []));

  it('counts age from the end', () => {
    assert.deepEqual(going(three, { ageMs: 2 * HOUR }), [[0, 'age']]);
    assert.deepEqual(going(three, { ageMs: 2 * HOUR - 61_000 }), [
      [0, 'age'],
      [1, 'age'],
    ]);
  });

  it('takes the oldest until the rest fits, and no more', () => {
    assert.deepEqual(going(three, { bytes: 300 }), []);
    assert.deepEqual(going(three, { bytes: 299 }), [[0, 'bytes']]);
    assert.deepEqual(going(three, { bytes: 100 }), [
      [0, 'bytes'],
      [1, 'bytes'],
    ]);
  });

  it('counts what is being written, and cannot take it', () => {
    assert.deepEqual(going(three, { bytes: 300 }, undefined, 50), [[0, 'bytes']]);
    assert.equal(going(three, { bytes: 10 }, undefined, 500).length, 3);
  });

  it('counts each tenant for itself, and nobody not at all', () => {
    const mixed = [
      entry(4, 1, { owner: 'b' }),
      entry(3, 2),
      entry(2, 3),
      entry(1, 4, { owner: 'b' }),
      { ...entry(0, 5), owner: undefined } as unknown as Entry,
    ];
    assert.deepEqual(going(mixed, { tenantBytes: 150 }), [
      [1, 'tenant_bytes'],
      [2, 'tenant_bytes'],
    ]);
  });

  it('passes over what may not go, and takes the next', () => {
    const mayGo = (one: Entry): boolean => one.segment !== 0;
    assert.deepEqual(going(three, { bytes: 200 }, mayGo), [[1, 'bytes']]);
  });

  it('takes a time that lies ahead for new', () => {
    const ahead = [entry(2, -1000), entry(1, 0), entry(0, 1)];
    assert.deepEqual(going(ahead, { ageMs: HOUR / 2 }), [[0, 'age']]);
    assert.deepEqual(going(ahead, { bytes: 100 }), [
      [0, 'bytes'],
      [1, 'bytes'],
    ]);
  });

  it('gives the first reason of several', () => {
    assert.deepEqual(going(three, { ageMs: 1, bytes: 1, tenantBytes: 1 }).length, 3);
    assert.ok(going(three, { ageMs: 1, bytes: 1 }).every((one) => (one as string[])[1] === 'age'));
  });
});

describe('Retention', () => {
  it('goes on after a failure, never runs twice at once, and stops when it is closed', async () => {
    const removed: string[] = [];
    const errors: string[] = [];
    const entries = [entry(2, 1), entry(1, 2), entry(0, 3)];
    const library = {
      unread: async () => [],
      closed: () => entries,
      remove: async ({ segment }: Entry, reason: string) => {
        if (segment === 1) throw new Error('the archive is away');
        removed.push(`${segment} ${reason}`);
        return true;
      },
    } as unknown as Library;
    const log: Log = { info: () => {}, warn: () => {}, error: (_, message) => errors.push(message) };
    const limits = { ...UNLIMITED, ageMs: 1 };
    const retention = new Retention({ library, limits, archives: false, log, now: () => NOW });
    await Promise.all([retention.run(), retention.run()]);
    assert.deepEqual(removed, ['0 age', '2 age']);
    assert.deepEqual(errors, ['could not remove a recording']);
    await retention.close();
    await retention.run();
    assert.equal(removed.length, 2);
  });

  it('leaves alone what the archive, where there is one, has yet to get', async () => {
    const removed: number[] = [];
    const library = {
      unread: async () => [],
      closed: () => [entry(1, 2, { archivedAt: 1 }), entry(0, 3)],
      remove: async ({ segment }: Entry) => removed.push(segment),
    } as unknown as Library;
    const log: Log = { info: () => {}, warn: () => {}, error: () => {} };
    await new Retention({ library, limits: { ...UNLIMITED, ageMs: 1 }, archives: true, log, now: () => NOW }).run();
    assert.deepEqual(removed, [1]);
  });
});
