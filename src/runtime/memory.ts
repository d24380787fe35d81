import { readFileSync } from 'node:fs';

/** Of the container's own cgroup: version 2 (cgroup-v2.rst, memory.events), then version 1 (memory.rst, memory.oom_control). */
const COUNTERS = ['/sys/fs/cgroup/memory.events', '/sys/fs/cgroup/memory/memory.oom_control'];

/** How many processes the kernel has killed so far because the container was at its memory limit; 0 where nobody counts. */
export function oomKills(): number {
  for (const file of COUNTERS) {
    try {
      const count = /^oom_kill (\d+)$/m.exec(readFileSync(file, 'utf8'))?.[1];
      if (count !== undefined) return Number(count);
    } catch {
      // The other version, or no cgroup that is ours to see.
    }
  }
  return 0;
}
