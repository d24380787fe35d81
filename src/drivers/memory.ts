import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const MB = 1024 * 1024;

/** One version of the kernel's memory controller: where its groups lie and what its files are called. */
interface Controller {
  readonly mount: string;
  /** Our group's line in /proc/self/cgroup. */
  readonly line: RegExp;
  readonly limit: string;
  readonly used: string;
  /** In memory.stat: page cache that the kernel gives back before it kills, all groups below included. */
  readonly cache: RegExp;
}

/** Version 2 (cgroup-v2.rst) and version 1 (memory.rst). */
const CONTROLLERS: readonly Controller[] = [
  {
    mount: 'sys/fs/cgroup',
    line: /^0::(\/.*)$/m,
    limit: 'memory.max',
    used: 'memory.current',
    cache: /^inactive_file (\d+)$/m,
  },
  {
    mount: 'sys/fs/cgroup/memory',
    line: /^\d+:(?:[^:\n]+,)?memory(?:,[^:\n]+)?:(\/.*)$/m,
    limit: 'memory.limit_in_bytes',
    used: 'memory.usage_in_bytes',
    cache: /^total_inactive_file (\d+)$/m,
  },
];

/**
 * Megabytes that new processes may take before this machine swaps: MemAvailable, which counts the cache that the kernel
 * can give up. Undefined where nobody says. `root` is where `proc` and `sys` lie.
 */
export function hostFreeMemoryMb(root = '/'): number | undefined {
  const kb = /^MemAvailable:\s+(\d+) kB$/m.exec(read(join(root, 'proc/meminfo')))?.[1];
  return kb === undefined ? undefined : Number(kb) / 1024;
}

/**
 * The same for processes that we start ourselves, which share the limits of our own control group (a container, a
 * systemd unit with MemoryMax) and of those above it: the smallest counts.
 */
export function ownFreeMemoryMb(root = '/'): number | undefined {
  const groups = read(join(root, 'proc/self/cgroup'));
  const free = CONTROLLERS.flatMap((controller) => {
    const ours = controller.line.exec(groups)?.[1];
    return ours === undefined ? [] : groupsUpFrom(ours).map((group) => freeIn(controller, root, group));
  });
  const known = [hostFreeMemoryMb(root), ...free].filter((mb) => mb !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

/** `/a/b` is `/a/b`, `/a`, `/`. In a container the last is its own group, whatever the path said of the host's. */
function groupsUpFrom(group: string): string[] {
  return group === '/' ? ['/'] : [group, ...groupsUpFrom(dirname(group))];
}

function freeIn(controller: Controller, root: string, group: string): number | undefined {
  const file = (name: string): string => read(join(root, controller.mount, group, name)).trim();
  const [limit, used] = [file(controller.limit), file(controller.used)];
  // No limit is "max" in version 2 and about 2^63 in version 1, which leaves more than any host has.
  if (!/^\d+$/.test(limit) || !/^\d+$/.test(used)) return undefined;
  const cache = Number(controller.cache.exec(file('memory.stat'))?.[1] ?? 0);
  return Math.max(0, Number(limit) - Number(used) + cache) / MB;
}

/** Empty where there is no such file: another kernel, another version, or no group that is ours to see. */
function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
