import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import type { EndedSandbox } from '../../src/core/sandbox.ts';
import { EmbeddedRegistry } from '../../src/registry/embedded.ts';

const folder = mkdtempSync(join(tmpdir(), 'bt-registry-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const file = (): string => join(folder, `${files++}`, 'history.jsonl');

function ended(id: string, endedAt: number): EndedSandbox {
  return { spec: { id, owner: 'a' }, state: 'TERMINATED', endedAt, endedReason: 'deleted' } as EndedSandbox;
}

describe('EmbeddedRegistry', () => {
  it('remembers across a restart, newest first', async () => {
    const path = file();
    const first = await EmbeddedRegistry.open(path, undefined, () => 1000);
    await first.remember(ended('a', 900));
    await first.remember(ended('b', 950));
    const second = await EmbeddedRegistry.open(path, undefined, () => 1000);
    assert.deepEqual(
      second.list().map((e) => e.spec.id),
      ['b', 'a'],
    );
    assert.equal(second.find('a')?.endedReason, 'deleted');
    assert.equal(second.find('c'), undefined);
  });

  it('forgets what is too old or too many, also on disk', async () => {
    let now = 1000;
    const path = file();
    const registry = await EmbeddedRegistry.open(path, { count: 3, ageMs: 100 }, () => now);
    for (let i = 0; i < 10; i++) await registry.remember(ended(`s${i}`, now));
    assert.deepEqual(
      registry.list().map((e) => e.spec.id),
      ['s9', 's8', 's7'],
    );
    assert.ok(readFileSync(path, 'utf8').trim().split('\n').length <= 6);
    now = 1200;
    assert.deepEqual(registry.list(), []);
    assert.equal(registry.find('s9'), undefined);
  });

  it('loses no more than a torn last line, and writes on after it', async () => {
    const path = file();
    const first = await EmbeddedRegistry.open(path, undefined, () => 1000);
    await first.remember(ended('a', 900));
    appendFileSync(path, '{"spec":{"id":"torn"');
    const second = await EmbeddedRegistry.open(path, undefined, () => 1000);
    await second.remember(ended('b', 950));
    const third = await EmbeddedRegistry.open(path, undefined, () => 1000);
    assert.deepEqual(
      third.list().map((e) => e.spec.id),
      ['b', 'a'],
    );
  });

  it('skips lines that are not its own', async () => {
    const path = file();
    await EmbeddedRegistry.open(path);
    writeFileSync(path, `null\n[]\n"x"\n{}\n${JSON.stringify(ended('a', 900))}\n`);
    const registry = await EmbeddedRegistry.open(path, undefined, () => 1000);
    assert.deepEqual(
      registry.list().map((e) => e.spec.id),
      ['a'],
    );
  });

  it('keeps a sandbox in memory when the disk refuses, and says so', async () => {
    const path = file();
    const registry = await EmbeddedRegistry.open(path, undefined, () => 1000);
    rmSync(join(path, '..'), { recursive: true });
    await assert.rejects(registry.remember(ended('a', 900)), /ENOENT/);
    assert.equal(registry.find('a')?.spec.id, 'a');
  });
});
