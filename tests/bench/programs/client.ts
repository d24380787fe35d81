/** A client of CDP with any number of sessions, each on a connection and in a browser context of its own. */
import { Raw } from '../../e2e/sockets.ts';
import { percentile } from '../measure.ts';
import { args, serve } from './answer.ts';

export type ClientRequest =
  | { readonly what: 'trips'; readonly method: 'Browser.getVersion' | 'Runtime.evaluate'; readonly count: number }
  | { readonly what: 'screenshots'; readonly count: number }
  | { readonly what: 'bulk'; readonly count: number; readonly mib: number };
/** In microseconds. */
export interface Trips {
  readonly p50: number;
  readonly p99: number;
}
export interface Screenshots {
  readonly perSecond: number;
  readonly bytes: number;
}

export interface Bulk {
  readonly mibPerSecond: number;
}

const PAGE = `data:text/html,<body>${'<p style="color:teal">The quick brown fox jumps over the lazy dog.</p>'.repeat(40)}`;

interface Session {
  readonly raw: Raw;
  readonly id: string;
}

async function open(url: string): Promise<Session> {
  const raw = await Raw.open(url);
  // Tabs of one window starve each other, so each session has a context, and with it a window.
  const { browserContextId } = await raw.send('Target.createBrowserContext', { disposeOnDetach: true });
  const { targetId } = await raw.send('Target.createTarget', { url: PAGE, browserContextId });
  const { sessionId } = await raw.send('Target.attachToTarget', { targetId, flatten: true });
  return { raw, id: sessionId };
}

async function trips({ raw, id }: Session, request: ClientRequest & { what: 'trips' }): Promise<Trips> {
  const page = request.method === 'Runtime.evaluate';
  const params = page ? { expression: 'document.title', returnByValue: true } : {};
  const times: number[] = [];
  for (let i = 0; i < request.count; i++) {
    const since = performance.now();
    await raw.send(request.method, params, page ? id : undefined);
    times.push((performance.now() - since) * 1000);
  }
  times.sort((a, b) => a - b);
  return { p50: percentile(times, 0.5), p99: percentile(times, 0.99) };
}

async function screenshots(sessions: readonly Session[], count: number): Promise<Screenshots> {
  const since = performance.now();
  let bytes = 0;
  const take = async ({ raw, id }: Session): Promise<void> => {
    for (let i = 0; i < count; i++) {
      const { data } = await raw.send('Page.captureScreenshot', { format: 'jpeg', quality: 80 }, id);
      bytes += data.length;
    }
  };
  await Promise.all(sessions.map(take));
  return { perSecond: (sessions.length * count * 1000) / (performance.now() - since), bytes };
}

/** A page that answers with this much, one call after the other. */
async function bulk({ raw, id }: Session, { count, mib }: ClientRequest & { what: 'bulk' }): Promise<Bulk> {
  const length = mib * 1024 * 1024;
  const since = performance.now();
  for (let i = 0; i < count; i++) {
    const text = (await raw.evaluate(`'${i % 10}'.repeat(${length})`, id)) as string;
    if (text.length !== length) throw new Error(`${text.length} characters instead of ${length}`);
  }
  return { mibPerSecond: (mib * count * 1000) / (performance.now() - since) };
}

const [url, count] = args as [string, number];
const sessions = await Promise.all(Array.from({ length: count }, () => open(url)));
const [first] = sessions as [Session, ...Session[]];
serve({}, async (request: ClientRequest) => {
  if (request.what === 'trips') return trips(first, request);
  if (request.what === 'bulk') return bulk(first, request);
  return screenshots(sessions, request.count);
});
