/** (i) A page that answers with megabytes, again and again: throughput as a share of the direct way's, all on one CPU, in turns. */
import { type Contender, contenders, directOf, wayOf } from './contenders.ts';
import { cpuMs, spread } from './measure.ts';
import { type Row, runPart } from './part.ts';
import type { Bulk, ClientRequest } from './programs/client.ts';

const MIB = 4;

interface Round {
  readonly mibPerSecond: number;
  /** Of the proxy, in microseconds a MiB. */
  readonly cpu: number;
}

await runPart('bulk', 240, async (bench) => {
  const [rounds, count] = bench.quick ? [1, 1] : [5, 6];
  const all = await contenders(bench, { pin: true, wsFront: true });
  const take = async (one: Contender, answers: number): Promise<Round> => {
    const before = cpuMs(one.relays);
    const request: ClientRequest = { what: 'bulk', count: answers, mib: MIB };
    const { mibPerSecond } = await one.client.ask<Bulk>(request);
    return { mibPerSecond, cpu: ((cpuMs(one.relays) - before) * 1000) / (answers * MIB) };
  };
  const found = new Map<Contender, Round[]>(all.map((one) => [one, []]));
  for (const one of all) await take(one, 1);
  let done = 0;
  for (const round of bench.rounds(rounds, 40)) {
    done = round + 1;
    for (const one of all) found.get(one)?.push(await take(one, count));
  }
  const rows = all.map((one): Row => {
    const mine = found.get(one) as Round[];
    const direct = directOf(one, all);
    const base = found.get(direct) as Round[];
    const row: Row = { way: wayOf(one), 'MiB/s': spread(mine.map(({ mibPerSecond }) => mibPerSecond)) };
    if (one === direct) return row;
    return {
      ...row,
      'share of direct': spread(mine.map(({ mibPerSecond }, i) => mibPerSecond / (base[i] as Round).mibPerSecond)),
      'CPU us a MiB': spread(mine.map(({ cpu }) => cpu)),
    };
  });
  return [{ title: `${done} rounds of ${count} answers of ${MIB} MiB, everything on one CPU`, rows }];
});
