/** (c) Four sessions that take screenshots at once, each in its own context: throughput as a share of the direct way's, in turns. */
import { type Contender, contenders, directOf, wayOf } from './contenders.ts';
import { spread } from './measure.ts';
import { runPart } from './part.ts';
import type { ClientRequest, Screenshots } from './programs/client.ts';

const SESSIONS = 4;

await runPart('screenshots', 180, async (bench) => {
  const [rounds, count] = bench.quick ? [1, 2] : [5, 10];
  const all = await contenders(bench, { sessions: SESSIONS });
  const ask = (one: Contender, shots: number): Promise<Screenshots> =>
    one.client.ask<Screenshots>({ what: 'screenshots', count: shots } satisfies ClientRequest);
  const perSecond = new Map<Contender, number[]>(all.map((one) => [one, []]));
  for (const one of all) await ask(one, 2);
  for (let round = 0; round < rounds; round++) {
    for (const one of all) perSecond.get(one)?.push((await ask(one, count)).perSecond);
  }
  const rows = all.map((one) => {
    const direct = directOf(one, all);
    const mine = perSecond.get(one) as number[];
    const share = mine.map((value, round) => value / (perSecond.get(direct)?.[round] as number));
    return {
      way: wayOf(one),
      'per second': spread(mine),
      ...(one === direct ? {} : { 'share of direct': spread(share) }),
    };
  });
  return [{ title: `${SESSIONS} sessions at once, ${rounds} rounds of ${count} screenshots each`, rows }];
});
