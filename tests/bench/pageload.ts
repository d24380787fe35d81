/** (j) A page with 100 images, loaded by puppeteer that listens to its requests: as a ratio to the direct way, all on one CPU, in turns. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { serveSite } from '../e2e/drivers.ts';
import { type Contender, contenders, directOf, wayOf } from './contenders.ts';
import { cpuMs, spread } from './measure.ts';
import { type Row, runPart } from './part.ts';
import type { LoadRequest, Loads } from './programs/loader.ts';

const IMAGE = `<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><desc>${'x'.repeat(1000)}</desc></svg>`;
/** Answers with a page of so many images wherever it is asked, and below it with those. */
function answer(images: number, req: IncomingMessage, res: ServerResponse): void {
  const tags = Array.from({ length: images }, (_, i) => `<img src="${i}.svg">`);
  const isImage = req.url?.endsWith('.svg');
  res.setHeader('cache-control', 'no-store').setHeader('content-type', isImage ? 'image/svg+xml' : 'text/html');
  res.end(isImage ? IMAGE : `<!doctype html><link rel="icon" href="data:,">${tags.join('')}`);
}

interface Round extends Loads {
  /** Of the proxy, in milliseconds a load. */
  readonly cpu: number;
}

await runPart('pageload', 300, async (bench) => {
  const [rounds, count, images] = bench.quick ? [1, 1, 10] : [5, 3, 100];
  const all = await contenders(bench, { pin: true, program: 'loader' });
  const site = await serveSite((req, res) => answer(images, req, res));
  const take = async (one: Contender): Promise<Round> => {
    const before = cpuMs(one.relays);
    const request: LoadRequest = { site: site.url, requests: images + 1, count };
    const { p50 } = await one.client.ask<Loads>(request);
    return { p50, cpu: (cpuMs(one.relays) - before) / (count + 1) };
  };
  const found = new Map<Contender, Round[]>(all.map((one) => [one, []]));
  let done = 0;
  for (const round of bench.rounds(rounds, 50)) {
    done = round + 1;
    for (const one of all) found.get(one)?.push(await take(one));
  }
  site.close();
  const rows = all.map((one): Row => {
    const mine = found.get(one) as Round[];
    const direct = directOf(one, all);
    const base = found.get(direct) as Round[];
    const row: Row = { way: wayOf(one), 'p50 ms': spread(mine.map(({ p50 }) => p50)) };
    if (one === direct) return row;
    return {
      ...row,
      'p50 / direct': spread(mine.map(({ p50 }, i) => p50 / (base[i] as Round).p50)),
      'CPU ms a load, with connecting': spread(mine.map(({ cpu }) => cpu)),
    };
  });
  const title = `A page with ${images} images, ${done} rounds of ${count} loads, everything but the site on one CPU`;
  return [{ title, rows }];
});
