import { readdir, readFile, stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** How long killed processes may take to go, in milliseconds. */
const PATIENCE_MS = 3000;
/** Processes looked at together: each takes a file descriptor, and a machine full of sandboxes has thousands of processes. */
const AT_ONCE = 32;

/**
 * Kills every process of the sandbox whose folder this is and waits until they are gone: its runtime (started with the
 * folder's runtime.json), its children (their X cookie or profile lies in the folder), and whatever runs as the sandbox's own user.
 * A look into /proc finds them all, also after a kill -9 of service and runtime, and cannot hit a stranger whose number
 * was reused.
 */
export async function endProcessesOf(dir: string, uid: number | undefined): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const pids = await processesOf(dir, uid);
    if (pids.length === 0) return;
    for (const pid of pids) kill(pid);
    if (performance.now() > deadline) throw new Error(`processes ${pids.join(', ')} of ${dir} do not go away`);
    await sleep(20);
  }
}

/** Process ids, without zombies: those are dead and only wait for their parent. */
export async function processesOf(dir: string, uid: number | undefined): Promise<number[]> {
  const pids = (await readdir('/proc')).map(Number).filter((pid) => pid > 1 && pid !== process.pid);
  const ours: number[] = [];
  for (let i = 0; i < pids.length; i += AT_ONCE) {
    const some = pids.slice(i, i + AT_ONCE);
    const belonging = await Promise.all(some.map((pid) => belongs(pid, dir, uid)));
    ours.push(...some.filter((_, j) => belonging[j]));
  }
  return ours;
}

async function belongs(pid: number, dir: string, uid: number | undefined): Promise<boolean> {
  try {
    const cmdline = await readFile(`/proc/${pid}/cmdline`, 'latin1');
    // Zombies and kernel threads have none.
    if (cmdline === '') return false;
    if (cmdline.includes(`\0${dir}/runtime.json\0`)) return true;
    // Chromium's helpers write their command line where their environment was, with spaces for zeros.
    if (cmdline.includes(`--user-data-dir=${dir}/`)) return true;
    if (uid !== undefined && (await stat(`/proc/${pid}`)).uid === uid) return true;
    return (await readFile(`/proc/${pid}/environ`, 'latin1')).includes(`XAUTHORITY=${dir}/`);
  } catch (err) {
    // Gone meanwhile, or another user's.
    const code = (err as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM') return false;
    throw err;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code !== 'ESRCH') throw err;
  }
}
