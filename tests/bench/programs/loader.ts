/**
 * A puppeteer client that loads pages and listens to their requests. It is connected only while it is asked to: puppeteer attaches
 * to all pages of a browser, so that clients that stay would hear of each other's.
 */
import puppeteer from 'puppeteer-core';
import { percentile } from '../measure.ts';
import { args, serve } from './answer.ts';

export interface LoadRequest {
  /** Without a slash at its end; a number is put behind it, so that nothing comes from a cache. */
  readonly site: string;
  /** Requests that the page makes, itself included. */
  readonly requests: number;
  readonly count: number;
}
export interface Loads {
  /** Milliseconds from `goto` to the load event. */
  readonly p50: number;
}

const [browserWSEndpoint] = args as [string];
let loads = 0;

serve({}, async ({ site, requests, count }: LoadRequest): Promise<Loads> => {
  const browser = await puppeteer.connect({ browserWSEndpoint, defaultViewport: null });
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  let seen = 0;
  page.on('request', () => seen++);
  for (const event of ['response', 'requestfinished'] as const) page.on(event, () => {});
  const times: number[] = [];
  // Once for nothing: the first starts the renderer.
  for (let i = -1; i < count; i++) {
    seen = 0;
    const since = performance.now();
    await page.goto(`${site}/${process.pid}-${++loads}/`, { waitUntil: 'load', timeout: 60_000 });
    if (i >= 0) times.push(performance.now() - since);
    if (seen < requests) throw new Error(`a page with ${requests} requests, and ${seen} were heard of`);
  }
  await context.close();
  await browser.disconnect();
  times.sort((a, b) => a - b);
  return { p50: percentile(times, 0.5) };
});
