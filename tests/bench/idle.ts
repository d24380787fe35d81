/** (g) What a sandbox needs while nothing happens in it, by process, and the service that looks after it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { DriverName } from '../e2e/drivers.ts';
import { cpuMs, pssKb, rssKb } from './measure.ts';
import { type Bench, type Row, runPart, type Table } from './part.ts';
import { commandOf, drivers, pidsOf } from './sandbox.ts';

/** After its start a browser has some tidying to do. */
const SETTLE_SECONDS = 15;

/** What a process is called in the table. */
function partOf(pid: number): string {
  const command = commandOf(pid);
  if (/^\S*node .*runtime\.json/.test(command)) return 'runtime (ours)';
  const type = /--type=(\S+)/.exec(command)?.[1];
  if (type) return `chromium ${type}`;
  if (/chromium\/chromium /.test(command)) return 'chromium';
  return command.split(' ')[0]?.split('/').at(-1) ?? '';
}

interface Use {
  processes: number;
  pssKb: number;
  cpuMs: number;
}

function take(use: Map<string, Use>, part: string, pid: number, cpuBefore: number): void {
  const one = use.get(part) ?? { processes: 0, pssKb: 0, cpuMs: 0 };
  one.processes++;
  one.pssKb += pssKb([pid]);
  one.cpuMs += cpuMs([pid]) - cpuBefore;
  use.set(part, one);
}

async function measure(bench: Bench, driver: DriverName, seconds: number, settle: number): Promise<Table> {
  const service = await bench.service(driver);
  const ours = service.process.pid as number;
  const emptyBefore = cpuMs([ours]);
  await sleep(seconds * 500);
  const empty = { rss: rssKb([ours]), pss: pssKb([ours]), cpu: (cpuMs([ours]) - emptyBefore) / (seconds * 5) };
  const { sandboxId } = await service.client.create();
  await sleep(settle * 1000);
  const before = new Map([...(await pidsOf(service, sandboxId)), ours].map((pid) => [pid, cpuMs([pid])]));
  await sleep(seconds * 1000);
  const use = new Map<string, Use>();
  for (const [pid, cpu] of before)
    if (commandOf(pid)) take(use, pid === ours ? 'service (ours)' : partOf(pid), pid, cpu);
  const row = (part: string, { processes, pssKb, cpuMs }: Use): Row => ({
    part,
    processes,
    'PSS MB': pssKb / 1000,
    'CPU % of a core': cpuMs / (seconds * 10),
  });
  const service1 = use.get('service (ours)') as Use;
  use.delete('service (ours)');
  const all = [...use.values()].reduce(
    (a, b) => ({ processes: a.processes + b.processes, pssKb: a.pssKb + b.pssKb, cpuMs: a.cpuMs + b.cpuMs }),
    { processes: 0, pssKb: 0, cpuMs: 0 },
  );
  const rows: Row[] = [...use].sort(([, a], [, b]) => b.pssKb - a.pssKb).map(([part, one]) => row(part, one));
  rows.push(row('the sandbox', all), row('service with it', service1));
  rows.push({
    part: 'service without any sandbox',
    processes: 1,
    'PSS MB': empty.pss / 1000,
    'CPU % of a core': empty.cpu,
    'RSS MB': empty.rss / 1000,
  });
  return { title: `${driver}: one idle sandbox for ${seconds} s`, rows };
}

await runPart('idle', 150, async (bench) => {
  const [seconds, settle] = bench.quick ? [1, 0] : [30, SETTLE_SECONDS];
  return Promise.all((await drivers(bench)).map((driver) => measure(bench, driver, seconds, settle)));
});
