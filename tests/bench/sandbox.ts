/** A sandbox as the bench sees it: its processes as this machine numbers them, and its browser's own port. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { folderOf } from '../../src/drivers/folders.ts';
import { docker, dockerSkip } from '../contract/engine.ts';
import { containerOf, type DriverName, pidsBelow } from '../e2e/drivers.ts';
import { type Service, waitFor } from '../e2e/service.ts';
import type { Bench } from './part.ts';

export interface BrowserPort {
  /** Its main process. */
  readonly pid: number;
  readonly port: number;
  /** Of the browser's own socket. */
  readonly path: string;
}

/** The drivers that can be measured here. */
export async function drivers(bench: Bench): Promise<DriverName[]> {
  const skip = await dockerSkip();
  if (!skip) return ['local', 'docker'];
  bench.notes.add(`No Docker rows: ${skip}`);
  return ['local'];
}

/** Whether a program of ours can be put beside a container's browser, into its network. */
export function canEnterNetworks(bench: Bench): boolean {
  try {
    execFileSync('nsenter', [`--net=/proc/${process.pid}/ns/net`, 'true'], { stdio: 'ignore' });
    return true;
  } catch {
    bench.notes.add("No Docker rows: only root may measure a container's browser directly.");
    return false;
  }
}

export async function pidsOf(service: Service, id: string): Promise<number[]> {
  if (service.driver === 'local') return pidsBelow(folderOf(service.runDir, id));
  const { Processes } = await docker.getContainer(await containerOf(id)).top();
  return (Processes as string[][]).map((columns) => Number(columns[1]));
}

export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
  } catch {
    return ''; // gone meanwhile
  }
}

/** Where the sandbox's Chromium itself listens, on its own loopback. */
export async function browserPort(service: Service, id: string): Promise<BrowserPort> {
  let found: BrowserPort | undefined;
  await waitFor(async () => {
    for (const pid of await pidsOf(service, id)) {
      const command = commandOf(pid);
      const profile = /--user-data-dir=(\S+)/.exec(command)?.[1];
      if (!profile || command.includes('--type=') || !/chromium\/chromium /.test(command)) continue;
      // A container's files are seen through its process.
      const [port, path] = readFileSync(`/proc/${pid}/root${profile}/DevToolsActivePort`, 'utf8').split('\n');
      found = { pid, port: Number(port), path: path as string };
    }
    return found !== undefined;
  }, 'the browser to listen');
  return found as BrowserPort;
}

/** The runtime's own process among a sandbox's. */
export function runtimeOf(pids: readonly number[]): number {
  const found = pids.find((pid) => /^\S*node .*runtime\.json/.test(commandOf(pid)));
  if (found === undefined) throw new Error('a sandbox without a runtime');
  return found;
}
