/**
 * (a) What stands between a client and its browser adds to a CDP call: the same Chromium met directly, through other proxies and
 * through Berth, all on one CPU, in turns.
 */
import { type Contender, contenders, directOf, wayOf } from './contenders.ts';
import { cpuMs, type Spread, spread } from './measure.ts';
import { type Row, runPart } from './part.ts';
import type { ClientRequest, Trips } from './programs/client.ts';

type Method = (ClientRequest & { what: 'trips' })['method'];
type Round = ReadonlyMap<Contender, Trips>;

/** Microseconds and ratios to the direct way of the same driver and round. */
function rowOf(
  one: Contender,
  rounds: readonly Round[],
  direct: Contender,
  nginx: { readonly way: Contender; readonly direct: Contender } | undefined,
): Row {
  const of = (value: (round: Round) => number): Spread => spread(rounds.map(value));
  const at = (round: Round, who: Contender): Trips => round.get(who) as Trips;
  const added = (round: Round, who: Contender, base: Contender): number => at(round, who).p50 - at(round, base).p50;
  const row: Row = {
    way: wayOf(one),
    'p50 us': of((round) => at(round, one).p50),
    'p99 us': of((round) => at(round, one).p99),
  };
  if (one === direct) return row;
  return {
    ...row,
    'p50 / direct': of((round) => at(round, one).p50 / at(round, direct).p50),
    'p99 / direct': of((round) => at(round, one).p99 / at(round, direct).p99),
    'added us': of((round) => added(round, one, direct)),
    // Of medians, since the difference of two times of one round is mostly noise.
    ...(nginx
      ? {
          "added / nginx's":
            of((round) => added(round, one, direct)).median /
            of((round) => added(round, nginx.way, nginx.direct)).median,
        }
      : {}),
  };
}

await runPart('roundtrip', 150, async (bench) => {
  const [roundCount, count] = bench.quick ? [1, 20] : [7, 1000];
  const all = await contenders(bench, { pin: true, wsFront: true });
  const tables = [];
  for (const method of ['Browser.getVersion', 'Runtime.evaluate'] satisfies Method[]) {
    const rounds: Round[] = [];
    const cpu = new Map<Contender, number>();
    const ask = (one: Contender, calls: number): Promise<Trips> =>
      one.client.ask<Trips>({ what: 'trips', method, count: calls } satisfies ClientRequest);
    for (const one of all) await ask(one, count);
    for (let n = 0; n < roundCount; n++) {
      const round = new Map<Contender, Trips>();
      for (const one of all) {
        const before = cpuMs(one.relays);
        round.set(one, await ask(one, count));
        cpu.set(one, (cpu.get(one) ?? 0) + cpuMs(one.relays) - before);
      }
      rounds.push(round);
    }
    const way = all.find(({ name, driver }) => name === 'nginx' && driver === 'local');
    const rows = all.map((one) => {
      const direct = directOf(one, all);
      const row = rowOf(one, rounds, direct, way && { way, direct: directOf(way, all) });
      return one === direct ? row : { ...row, 'CPU us a call': ((cpu.get(one) ?? 0) * 1000) / (roundCount * count) };
    });
    tables.push({ title: `${method}: ${roundCount} rounds of ${count} calls, everything on one CPU`, rows });
  }
  return tables;
});
