import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { IdempotencyKeys, idempotencyOf } from '../../src/core/idempotency.ts';
import type { SandboxInfo } from '../../src/core/live.ts';
import { DEFAULTS, type EndedSandbox, type Idempotency, type SandboxSpec } from '../../src/core/sandbox.ts';

function specOf(id: string, idempotency?: Idempotency, createdAt = 0): SandboxSpec {
  const { idleTimeoutSeconds, maxLifetimeSeconds, connectTimeoutSeconds, ...rest } = DEFAULTS;
  const limits = { idleTimeoutSeconds, maxLifetimeSeconds, connectTimeoutSeconds };
  const base = { id, owner: 'acme', templateName: 'default', createdAt, metadata: {}, ...limits, ...rest };
  return idempotency ? { ...base, idempotency } : base;
}

function setUp(limits = { count: 3, ageMs: 1000 }) {
  const clock = { now: 0 };
  const sandboxes = new Map<string, SandboxInfo>();
  const keys = new IdempotencyKeys(
    (id) => sandboxes.get(id),
    limits,
    () => clock.now,
  );
  const add = (spec: SandboxSpec, ended?: Partial<EndedSandbox>): void => {
    const end = ended && { spec, state: 'FAILED' as const, endedAt: 1, endedReason: 'failed: x' as const, ...ended };
    sandboxes.set(spec.id, { spec, state: end?.state ?? 'READY', ...(end ? { ended: end } : {}) });
    keys.add(spec);
  };
  return { clock, sandboxes, keys, add };
}

const A = idempotencyOf('acme', 'a', {});

describe('IdempotencyKeys', () => {
  it('finds the sandbox of a key, and none where there was no key', () => {
    const { keys, add } = setUp();
    add(specOf('plain'));
    assert.equal(keys.earlier(A), undefined);
    add(specOf('one', A));
    assert.equal(keys.earlier(A)?.id, 'one');
    assert.equal(keys.earlier(idempotencyOf('acme', 'b', {})), undefined);
    assert.equal(keys.earlier(idempotencyOf('other', 'a', {})), undefined, 'another tenant');
  });

  it('refuses another body, whose fields may come in any order', () => {
    const { keys, add } = setUp();
    add(specOf('one', idempotencyOf('acme', 'a', { metadata: { x: '1', y: '2' }, viewport: { width: 1, height: 2 } })));
    const same = { viewport: { height: 2, width: 1 }, metadata: { y: '2', x: '1' } };
    assert.equal(keys.earlier(idempotencyOf('acme', 'a', same))?.id, 'one');
    for (const other of [{}, { metadata: { x: '1' } }, { ...same, recording: 'off' }]) {
      assert.throws(() => keys.earlier(idempotencyOf('acme', 'a', other)), { errorName: 'IDEMPOTENCY_KEY_REUSED' });
    }
  });

  it('remembers what was READY once, and forgets a start that failed', () => {
    const { keys, add } = setUp();
    add(specOf('one', A), { readyAt: 1, state: 'TERMINATED' });
    assert.equal(keys.earlier(A)?.id, 'one');
    add(specOf('two', A), {});
    assert.equal(keys.earlier(A), undefined);
  });

  it('forgets by age, by count, and when the sandbox is forgotten or its id another’s', () => {
    const { clock, sandboxes, keys, add } = setUp();
    const key = (name: string): Idempotency => idempotencyOf('acme', name, {});
    for (const name of ['a', 'b', 'c', 'd']) add(specOf(`of-${name}`, key(name)));
    assert.deepEqual(
      ['a', 'b', 'c', 'd'].map((name) => keys.earlier(key(name))?.id),
      [undefined, 'of-b', 'of-c', 'of-d'],
    );
    sandboxes.delete('of-b');
    assert.equal(keys.earlier(key('b')), undefined);
    sandboxes.set('of-c', { spec: specOf('of-c'), state: 'READY' });
    assert.equal(keys.earlier(key('c')), undefined);
    clock.now = 999;
    assert.equal(keys.earlier(key('d'))?.id, 'of-d');
    clock.now = 1000;
    assert.equal(keys.earlier(key('d')), undefined);
  });
});
