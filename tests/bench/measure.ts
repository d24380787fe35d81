/** What the bench reads from /proc, and how it sums up. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants, readdirSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Of the values of several rounds. */
export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

export function isSpread(value: unknown): value is Spread {
  return typeof value === 'object' && value !== null && 'median' in value;
}

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  return { median: percentile(sorted, 0.5), low: sorted[0] as number, high: sorted.at(-1) as number };
}

/** Of values that are sorted already. */
export function percentile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] as number;
}

/** Milliseconds of CPU that these processes have used, all threads, in steps of 10. */
export function cpuMs(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /, '')
      .split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks * 10;
}

export function rssKb(pids: readonly number[]): number {
  return sum(pids.map((pid) => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)));
}

/** Resident memory in which what processes share is divided among them. */
export function pssKb(pids: readonly number[]): number {
  const rollups = pids.map((pid) => readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
  return sum(rollups.map((text) => Number(/^Pss:\s+(\d+)/m.exec(text)?.[1] ?? 0)));
}

/** What a look at a process says; undefined when it has gone: Chromium's helpers come and go. */
export function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (err) {
    if (['ENOENT', 'ESRCH'].includes((err as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw err;
  }
}

/** Memory that no file stands behind, what several share divided among them. Who else runs makes no difference to it. */
export function privateKb(pids: readonly number[]): number {
  const rollups = pids.map((pid) => readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
  return sum(
    rollups.flatMap((text) => [...text.matchAll(/^Pss_(?:Anon|Shmem):\s+(\d+)/gm)].map(([, kb]) => Number(kb))),
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

/** Processes whose parents lead up to one of these, and these themselves. */
export function withChildren(roots: readonly number[]): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const fields = readFileSync(`/proc/${name}/stat`, 'latin1')
        .replace(/^.*\) /, '')
        .split(' ');
      if (fields[0] !== 'Z') parents.set(Number(name), Number(fields[1]));
    } catch {
      // Gone meanwhile.
    }
  }
  const found = new Set(roots);
  for (let before = -1; before !== found.size; ) {
    before = found.size;
    for (const [pid, parent] of parents) if (found.has(parent)) found.add(pid);
  }
  return [...found];
}

/** Binds these processes, all their threads and what they start from now on to the last CPU that we may use. */
export function pinToOneCpu(pids: readonly number[]): void {
  pin(pids, String(ourCpus().at(-1)));
}

/** Leaves that CPU to those on it: binds these processes, likewise, to all others that we may use, if there are any. */
export function pinAway(pids: readonly number[]): void {
  const others = ourCpus().slice(0, -1);
  if (others.length > 0) pin(pids, others.join(','));
}

function ourCpus(): number[] {
  const list = /^Cpus_allowed_list:\s+(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return list.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

function pin(pids: readonly number[], cpus: string): void {
  for (const pid of pids) {
    try {
      execFileSync('taskset', ['-a', '-c', '-p', cpus, String(pid)], { stdio: 'ignore' });
    } catch (err) {
      // Chromium's helpers come and go.
      if (readdirSync('/proc').includes(String(pid))) throw err;
    }
  }
}

/** The program's full path; undefined when it is not installed. Debian keeps servers where only root's PATH leads. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}
