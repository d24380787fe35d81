/** (g) What a sandbox needs while nothing happens in it, by process, alone and among others, and the service that looks after it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { DriverName } from '../e2e/drivers.ts';
import type { Service } from '../e2e/service.ts';
import { cpuMs, pssKb, rssKb, unlessGone } from './measure.ts';
import { type Bench, type Row, runPart, type Table } from './part.ts';
import { commandOf, drivers, pidsOf } from './sandbox.ts';

/** After its start a browser has some tidying to do. */
const SETTLE_SECONDS = 15;
/** Longer than all of this takes. */
const KEPT = { sandboxIdleTimeoutSeconds: 3600 };
const SERVICE = 'service';

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
  readonly processes: number;
  readonly pssKb: number;
  readonly cpuMs: number;
}

const NOTHING: Use = { processes: 0, pssKb: 0, cpuMs: 0 };

function add(a: Use, b: Use): Use {
  return { processes: a.processes + b.processes, pssKb: a.pssKb + b.pssKb, cpuMs: a.cpuMs + b.cpuMs };
}

function look(pid: number): Use | undefined {
  return unlessGone(() => ({ processes: 1, pssKb: pssKb([pid]), cpuMs: cpuMs([pid]) }));
}

/** What the parts of these sandboxes use in the next seconds, all of them together. */
async function useOf(service: Service, ids: readonly string[], seconds: number): Promise<Map<string, Use>> {
  const pids = [service.process.pid as number];
  for (const id of ids) pids.push(...(await pidsOf(service, id)));
  const before = pids.map((pid) => [pid, look(pid)] as const);
  await sleep(seconds * 1000);
  const uses = new Map<string, Use>();
  for (const [pid, then] of before) {
    const now = look(pid);
    if (!then || !now) continue;
    const part = pid === service.process.pid ? SERVICE : partOf(pid);
    uses.set(part, add(uses.get(part) ?? NOTHING, { ...now, cpuMs: now.cpuMs - then.cpuMs }));
  }
  if (!uses.has(SERVICE)) throw new Error(`the service has ended: ${service.log().slice(-2000)}`);
  return uses;
}

async function measure(bench: Bench, driver: DriverName, options: Options): Promise<Table[]> {
  const { seconds, settle, counts } = options;
  const service = await bench.service(driver);
  const ids: string[] = [];
  const services: Row[] = [];
  const found = new Map<number, Map<string, Use>>();
  for (const count of [0, ...counts]) {
    const wanted = Array.from({ length: count - ids.length }, () => service.client.create(KEPT));
    for (const { sandboxId } of await Promise.all(wanted)) ids.push(sandboxId);
    if (count > 0) await sleep(settle * 1000);
    const watched = count > 0 ? seconds : seconds / 2;
    const uses = await useOf(service, ids, watched);
    services.push({
      sandboxes: count,
      'PSS MB': (uses.get(SERVICE) as Use).pssKb / 1000,
      'RSS MB': rssKb([service.process.pid as number]) / 1000,
      'CPU % of a core': (uses.get(SERVICE) as Use).cpuMs / (watched * 10),
    });
    uses.delete(SERVICE);
    if (count > 0) found.set(count, uses.set('the sandbox', [...uses.values()].reduce(add, NOTHING)));
  }
  const parts = new Set([...found.values()].flatMap((uses) => [...uses.keys()]));
  const row = (part: string): Row => {
    const cells: Record<string, string | number> = { part };
    for (const [count, uses] of found) {
      const { processes, pssKb, cpuMs } = uses.get(part) ?? NOTHING;
      cells[`of ${count}: processes`] = processes / count;
      cells[`of ${count}: PSS MB`] = pssKb / 1000 / count;
      cells[`of ${count}: CPU %`] = cpuMs / (seconds * 10) / count;
    }
    return cells;
  };
  const last = found.get(counts.at(-1) as number) as Map<string, Use>;
  const size = (part: string): number => last.get(part)?.pssKb ?? 0;
  const rows = [...parts].sort((a, b) => size(b) - size(a)).map(row);
  const numbers = counts.join(' and ');
  return [
    { title: `${driver}: one idle sandbox of ${numbers}, for ${seconds} s; CPU in percent of a core`, rows },
    { title: `${driver}: the service (ours) while they idle`, rows: services },
  ];
}

interface Options {
  readonly seconds: number;
  readonly settle: number;
  /** So many sandboxes idle at once, fewest first: the more there are, the more share the pages of one program. */
  readonly counts: readonly number[];
}

await runPart('idle', 240, async (bench) => {
  const options = bench.quick
    ? { seconds: 1, settle: 0, counts: [1, 2] }
    : { seconds: 20, settle: SETTLE_SECONDS, counts: [1, 4] };
  return (await Promise.all((await drivers(bench)).map((driver) => measure(bench, driver, options)))).flat();
});
