/**
 * (e) How long a cold sandbox takes to READY, stage by stage, beside a bare container and a bare Chromium of the same image:
 * `node dist/tests/bench/start.js`. The contenders take turns.
 */
import { once } from 'node:events';
import type Docker from 'dockerode';
import { docker } from '../contract/engine.ts';
import { containerOf } from '../e2e/drivers.ts';
import { percentile } from './measure.ts';
import { type Bench, type Row, runPart, type Table } from './part.ts';
import { drivers } from './sandbox.ts';

const CHROMIUM = [
  '/usr/lib/chromium/chromium',
  '--headless',
  '--remote-debugging-port=0',
  '--user-data-dir=/sandbox/p',
];
const BARE = ['--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

function row(what: string, values: readonly number[]): Row {
  const sorted = [...values].sort((a, b) => a - b);
  return { what, 'p50 ms': percentile(sorted, 0.5), 'p95 ms': percentile(sorted, 0.95) };
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

async function measure(bench: Bench): Promise<Table[]> {
  const rounds = bench.quick ? 1 : 12;
  const services = await Promise.all((await drivers(bench)).map((driver) => bench.service(driver)));
  const times = new Map<string, number[]>();
  const note = (name: string, ms: number): void => {
    times.set(name, [...(times.get(name) ?? []), ms]);
  };
  // Once for nothing: the first of each fills the page cache.
  for (let round = bench.quick ? 0 : -1; round < rounds; round++) {
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
  return [{ title: `Cold starts, ${rounds} rounds`, rows: [...times].map(([name, values]) => row(name, values)) }];
}

await runPart('start', 240, measure);
