/**
 * How long a cold sandbox takes to READY, stage by stage, beside a bare container and a bare Chromium of the same image:
 * `node dist/tests/bench/start.js [rounds, default 20]`. The contenders take turns. Then what an idle sandbox needs.
 */
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type Docker from 'dockerode';
import { folderOf } from '../../src/drivers/folders.ts';
import { docker, dockerSkip } from '../contract/engine.ts';
import { containerOf, type DriverName, pidsBelow } from '../e2e/drivers.ts';
import { type Service, startService } from '../e2e/service.ts';

const rounds = Number(process.argv[2] ?? 20);
const CHROMIUM = [
  '/usr/lib/chromium/chromium',
  '--headless',
  '--remote-debugging-port=0',
  '--user-data-dir=/sandbox/p',
];
const BARE = ['--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] as number);
}

function row(name: string, values: readonly number[]): string {
  const [p50, p95] = [percentile(values, 0.5), percentile(values, 0.95)];
  return `${name.padEnd(48)} ${String(p50).padStart(6)} ${String(p95).padStart(6)}`;
}

/** Milliseconds until a container of the sandbox image, as hardened as a sandbox's, has run a program or said a word. */
async function bare(
  like: Docker.ContainerInspectInfo,
  command: readonly string[],
  until: RegExp | null,
): Promise<number> {
  const { NetworkMode, ReadonlyRootfs, Tmpfs, CapDrop, SecurityOpt, PidsLimit, Memory, NanoCpus, ShmSize } =
    like.HostConfig;
  const since = performance.now();
  const container = await docker.createContainer({
    Image: like.Config.Image,
    User: like.Config.User,
    Entrypoint: [...command],
    Tty: true,
    HostConfig: { NetworkMode, ReadonlyRootfs, Tmpfs, CapDrop, SecurityOpt, PidsLimit, Memory, NanoCpus, ShmSize },
  });
  try {
    if (until) {
      const output = await container.attach({ stream: true, stdout: true, stderr: true });
      await container.start();
      for (let text = ''; !until.test(text); ) text += String((await once(output, 'data'))[0]);
      (output as unknown as { destroy(): void }).destroy();
    } else {
      await container.start();
      await container.wait();
    }
    return performance.now() - since;
  } finally {
    await container.remove({ force: true });
  }
}

/** Proportional set size in MB, by program. */
function pssOf(pids: readonly number[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const pid of pids) {
    const name = readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
    const kb = Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0);
    found.set(name, (found.get(name) ?? 0) + kb / 1000);
  }
  return found;
}

async function pidsOf(service: Service, id: string): Promise<number[]> {
  if (service.driver === 'local') return pidsBelow(folderOf(service.runDir, id));
  const rows = (await docker.getContainer(await containerOf(id)).top()).Processes as string[][];
  return rows.map((columns) => Number(columns[1])).filter((pid) => readdirSync('/proc').includes(String(pid)));
}

async function main(): Promise<void> {
  const withDocker = !(await dockerSkip());
  const drivers: DriverName[] = withDocker ? ['local', 'docker'] : ['local'];
  const services = await Promise.all(drivers.map((driver) => startService({ driver })));
  const times = new Map<string, number[]>();
  const note = (name: string, ms: number): void => {
    times.set(name, [...(times.get(name) ?? []), ms]);
  };
  try {
    // Once for nothing: the first of each fills the page cache.
    for (let round = -1; round < rounds; round++) {
      const take = round < 0 ? (): void => {} : note;
      for (const service of services) {
        const since = performance.now();
        const sandbox = await service.client.create();
        take(`${service.driver}: POST /sandboxes to READY`, performance.now() - since);
        for (const [stage, ms] of Object.entries(sandbox.startStages ?? {})) take(`${service.driver}:   ${stage}`, ms);
        if (service.driver === 'docker') {
          const like = await docker.getContainer(await containerOf(sandbox.sandboxId)).inspect();
          take('bare container: runs `true`', await bare(like, ['true'], null));
          take(
            'bare container: headless Chromium listens',
            await bare(like, [...CHROMIUM, ...BARE], /DevTools listening/),
          );
        }
        await service.client.delete(sandbox.sandboxId);
      }
    }
    process.stdout.write(`${`milliseconds, ${rounds} rounds`.padEnd(48)} ${'p50'.padStart(6)} ${'p95'.padStart(6)}\n`);
    for (const [name, values] of times) process.stdout.write(`${row(name, values)}\n`);
    for (const service of services) {
      const { sandboxId } = await service.client.create();
      await sleep(10_000);
      const pss = pssOf(await pidsOf(service, sandboxId));
      const total = [...pss.values()].reduce((sum, mb) => sum + mb, 0);
      const parts = [...pss].map(([name, mb]) => `${name} ${Math.round(mb)}`).join(', ');
      process.stdout.write(`${service.driver}: an idle sandbox, PSS in MB: ${Math.round(total)} (${parts})\n`);
      if (service.driver === 'docker') {
        const { memory_stats } = await docker.getContainer(await containerOf(sandboxId)).stats({ stream: false });
        const cache = memory_stats.stats.total_inactive_file ?? memory_stats.stats.inactive_file ?? 0;
        const [used, without] = [memory_stats.usage, memory_stats.usage - cache].map((b) => Math.round(b / 1e6));
        process.stdout.write(`docker: its cgroup in MB: ${used}, without inactive file cache ${without}\n`);
      }
      await service.client.delete(sandboxId);
    }
    for (const service of services) await service.stop();
  } finally {
    for (const service of services) await service.clean();
  }
}

await main();
