/**
 * How long a create takes that finds a sandbox in the pool: to the answer, and until a client that connects then has heard of
 * its page. `node dist/tests/bench/warm.js`
 */
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';
import { waitFor } from '../e2e/service.ts';
import { type Bench, type Row, runPart, type Table } from './part.ts';
import { drivers } from './sandbox.ts';

function row(name: string, values: readonly number[]): Row {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part: number): number => Math.round(sorted[Math.floor((sorted.length - 1) * part)] as number);
  return { what: name, 'p50 ms': at(0.5), 'p95 ms': at(0.95) };
}

async function measure(bench: Bench): Promise<Table[]> {
  const rounds = bench.quick ? 1 : 12;
  const rows: Row[] = [];
  for (const driver of await drivers(bench)) {
    const service = await bench.service(driver, { BERTH_POOL_SIZE: '1' });
    const ready = async (): Promise<boolean> =>
      /^berth_pool_ready\{template="default"\} 1$/m.test(await (await fetch(`${service.url}/metrics`)).text());
    const [answers, pages]: [number[], number[]] = [[], []];
    // Once for nothing: the first fills the page cache.
    for (let round = bench.quick ? 0 : -1; round < rounds; round++) {
      // The pool is full again before each, and the machine as still as it gets.
      await waitFor(ready, 'the pool to be full', 60_000);
      await sleep(500);
      const since = performance.now();
      const sandbox = await service.client.create();
      const answered = performance.now() - since;
      const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl ?? '' });
      await browser.pages();
      if (round >= 0) {
        answers.push(answered);
        pages.push(performance.now() - since);
      }
      await browser.disconnect();
      await service.client.delete(sandbox.sandboxId);
    }
    rows.push(row(`${driver}: POST /sandboxes to READY`, answers), row(`${driver}:   and to a client's page`, pages));
  }
  return [{ title: `Creates from the pool, ${rounds} rounds`, rows }];
}

await runPart('warm', 240, measure);
