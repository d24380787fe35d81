import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { hostFreeMemoryMb, ownFreeMemoryMb } from '../../src/drivers/memory.ts';

const MB = 1024 * 1024;
const MEMINFO = 'MemTotal:       24683520 kB\nMemFree:          102400 kB\nMemAvailable:    2048000 kB\n';

/** What both say of a machine with these files. */
function freeWith(files: Readonly<Record<string, string | number>>): [number | undefined, number | undefined] {
  const root = mkdtempSync(join(tmpdir(), 'bt-memory-'));
  try {
    for (const [file, content] of Object.entries(files)) {
      mkdirSync(dirname(join(root, file)), { recursive: true });
      writeFileSync(join(root, file), `${content}\n`);
    }
    return [hostFreeMemoryMb(root), ownFreeMemoryMb(root)];
  } finally {
    rmSync(root, { recursive: true });
  }
}

/** A control group of version 2 in megabytes. */
function group(path: string, max: number | 'max', current: number, cache = 0): Record<string, string | number> {
  return {
    [`sys/fs/cgroup${path}/memory.max`]: max === 'max' ? max : max * MB,
    [`sys/fs/cgroup${path}/memory.current`]: current * MB,
    [`sys/fs/cgroup${path}/memory.stat`]: `anon 5\ninactive_file ${cache * MB}\nactive_file 7`,
  };
}

describe('free memory', () => {
  it('is what the kernel calls available, or unknown', () => {
    assert.deepEqual(freeWith({ 'proc/meminfo': MEMINFO }), [2000, 2000]);
    assert.deepEqual(freeWith({}), [undefined, undefined]);
  });

  it('is for our own processes what our control group leaves, its cache counted as free', () => {
    const container = { 'proc/meminfo': MEMINFO, 'proc/self/cgroup': '0::/' };
    assert.deepEqual(freeWith({ ...container, ...group('', 1024, 700, 100) }), [2000, 424]);
    assert.deepEqual(freeWith({ ...container, ...group('', 1024, 1100) }), [2000, 0], 'over its limit');
    assert.deepEqual(freeWith({ ...container, ...group('', 'max', 700) }), [2000, 2000]);
    assert.deepEqual(freeWith({ ...container, ...group('', 8192, 700) }), [2000, 2000], 'the smaller counts');
  });

  it('heeds the limits of all groups above, and those of a container that sees the host’s path', () => {
    const unit = { 'proc/meminfo': MEMINFO, 'proc/self/cgroup': '0::/system.slice/berth.service' };
    const files = { ...group('/system.slice/berth.service', 'max', 100), ...group('/system.slice', 900, 100) };
    assert.deepEqual(freeWith({ ...unit, ...files }), [2000, 800]);
    assert.deepEqual(freeWith({ ...unit, ...group('', 600, 100) }), [2000, 500]);
  });

  it('knows version 1', () => {
    const v1 = (limit: string) => ({
      'proc/meminfo': MEMINFO,
      'proc/self/cgroup': '9:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/',
      'sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes': limit,
      'sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes': 200 * MB,
      'sys/fs/cgroup/memory/docker/abc/memory.stat': `inactive_file 1\ntotal_inactive_file ${50 * MB}`,
    });
    assert.deepEqual(freeWith(v1(String(512 * MB))), [2000, 362]);
    assert.deepEqual(freeWith(v1('9223372036854771712')), [2000, 2000], 'no limit');
  });

  it('is known of this machine', { skip: process.platform !== 'linux' }, () => {
    assert.ok((hostFreeMemoryMb() ?? 0) > 0);
    assert.ok((ownFreeMemoryMb() ?? 0) > 0);
  });
});
