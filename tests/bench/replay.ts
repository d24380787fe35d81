/**
 * (h) What 50 sandboxes at work ask of one gateway: clients that replay a conversation over CDP at a fixed rate, alone, while
 * recordings are downloaded, while viewers watch, and all of it, through Berth and through nginx, in turns. Fakes stand for the
 * sandboxes; gateway, API and recordings are the real ones, in one process as in the service. nginx sends the same file itself, and
 * the screens behind it speak WebSocket, since it cannot lead from WebSocket to VNC. The proxies have a CPU to themselves.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cpuMs, findProgram, pinAway, pinToOneCpu, spread } from './measure.ts';
import { type Bench, type Program, type Row, runPart } from './part.ts';
import type { AudienceRequest, Got } from './programs/audience.ts';
import type { Replay, ReplayRequest } from './programs/automation.ts';
import { nginx } from './proxies.ts';

const SANDBOXES = 50;
/** Calls a second of each client. */
const RATE = 20;
const DOWNLOADS = 20;
/** Of each of them. */
const BYTES_PER_SECOND = 2_000_000;
const VIEWERS = 20;
const MIB = 1024 * 1024;
const FILE = 'vnc_big_20260101_000000_seg000.mkv';

interface Contender {
  readonly name: string;
  readonly pids: readonly number[];
  readonly automation: Program;
  /** What the others do meanwhile; direct there is nothing to pass through. */
  readonly audience?: { readonly download: string; readonly viewers: readonly string[] };
}

/** Together with the replay. */
const PHASES = [
  { name: 'alone', downloads: 0, viewers: 0 },
  { name: 'downloads', downloads: DOWNLOADS, viewers: 0 },
  { name: 'viewers', downloads: 0, viewers: VIEWERS },
  { name: 'all together', downloads: DOWNLOADS, viewers: VIEWERS },
] as const;
type Phase = (typeof PHASES)[number];

interface Round extends Replay, Got {
  /** Of the proxy, percent of a CPU. */
  readonly cpu: number;
}

async function contenders(bench: Bench, fileMib: number): Promise<Contender[]> {
  const dataDir = join(bench.folder, 'd');
  const folder = join(dataDir, 'recordings', 'big');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, FILE), randomBytes(fileMib * MIB));
  // A minute ago, or it would be taken for one that is still being written.
  utimesSync(join(folder, FILE), new Date(), new Date(Date.now() - 60_000));
  const standIns = await bench.program('stand-ins');
  const { cdpPort, vncPort } = standIns.ready as { cdpPort: number; vncPort: number };
  const all: Contender[] = [];
  const add = async (
    name: string,
    pids: readonly number[],
    port: number,
    path: (id: string) => string,
    screen?: (id: string) => string,
  ): Promise<void> => {
    const urls = (of: (id: string) => string): string[] =>
      Array.from({ length: SANDBOXES }, (_, i) => `ws://127.0.0.1:${port}${of(`s${i}`)}`);
    const automation = await bench.program('automation', [urls(path)]);
    const audience = screen && {
      download: `http://127.0.0.1:${port}/recordings/${FILE}`,
      viewers: urls(screen).slice(0, VIEWERS),
    };
    all.push({ name, pids, automation, ...(audience ? { audience } : {}) });
  };
  const target = (id: string): string => `/devtools/browser/${id}`;
  await add('direct', [], cdpPort, target);
  const program = findProgram('nginx');
  if (program) {
    const files = `location /recordings/ { alias ${folder}/; sendfile on; }`;
    const { pids, port } = await nginx(program, bench, cdpPort, files);
    await add('nginx', pids, port, target, (id) => `/vnc/${id}`);
  } else bench.notes.add('nginx is not installed (apt-get install nginx): its rows are left out.');
  const service = await bench.program('service', [dataDir, cdpPort, vncPort]);
  const sockets = (id: string): string => `/sandboxes/${id}/ws`;
  await add(
    'berth',
    [service.pid],
    (service.ready as { port: number }).port,
    (id) => `${sockets(id)}/automation`,
    (id) => `${sockets(id)}/livestream`,
  );
  pinToOneCpu(all.flatMap(({ pids }) => pids));
  pinAway([standIns.pid, ...all.map(({ automation }) => automation.pid)]);
  return all;
}

async function measure(one: Contender, phase: Phase, audience: Program, request: ReplayRequest): Promise<Round> {
  const { automation, pids } = one;
  const tell = <T>(what: AudienceRequest): Promise<T> => audience.ask<T>(what);
  const { download = '', viewers = [] } = one.audience ?? {};
  await tell({
    what: 'start',
    downloads: Array.from({ length: phase.downloads }, () => download),
    bytesPerSecond: BYTES_PER_SECOND,
    viewers: viewers.slice(0, phase.viewers),
  });
  // Until the kernel's buffers are full downloads are faster than they then are.
  await sleep(phase.downloads > 0 ? request.seconds * 300 : 50);
  await tell({ what: 'count' });
  const [before, since] = [cpuMs(pids), performance.now()];
  const replay = await automation.ask<Replay>(request);
  const cpu = ((cpuMs(pids) - before) / (performance.now() - since)) * 100;
  return { ...replay, ...(await tell<Got>({ what: 'stop' })), cpu };
}

await runPart('replay', 180, async (bench) => {
  const [rounds, seconds, fileMib] = bench.quick ? [1, 0.3, 2] : [3, 1, 64];
  const all = await contenders(bench, fileMib);
  const audience = await bench.program('audience');
  pinAway([audience.pid]);
  const cases = PHASES.flatMap((phase) =>
    all.filter((one) => one.audience || phase.name === 'alone').map((one) => ({ one, phase, found: [] as Round[] })),
  );
  // Once for nothing: programs of Node get quicker as they run.
  for (const { one, phase } of cases) await measure(one, phase, audience, { seconds: seconds / 3, rate: RATE });
  for (let round = 0; round < rounds; round++) {
    for (const { one, phase, found } of cases) found.push(await measure(one, phase, audience, { seconds, rate: RATE }));
  }
  const foundOf = (name: string, phase: Phase): readonly Round[] | undefined =>
    cases.find((other) => other.one.name === name && other.phase === phase)?.found;
  const rows = cases.map(({ one, phase, found }): Row => {
    const of = (value: (round: Round, i: number) => number) => spread(found.map(value));
    const row: Row = {
      way: `${one.name}, ${phase.name}`,
      'p50 us': of(({ p50 }) => p50),
      'p99 us': of(({ p99 }) => p99),
    };
    if (!one.audience) return row;
    const alone = foundOf(one.name, PHASES[0]) as readonly Round[];
    const nginxs = foundOf('nginx', phase);
    return {
      ...row,
      'p99 / alone': of(({ p99 }, i) => p99 / (alone[i] as Round).p99),
      ...(nginxs ? { "p50 / nginx's": of(({ p50 }, i) => p50 / (nginxs[i] as Round).p50) } : {}),
      ...(nginxs ? { "p99 / nginx's": of(({ p99 }, i) => p99 / (nginxs[i] as Round).p99) } : {}),
      'CPU %': of(({ cpu }) => cpu),
      'calls/s': of(({ callsPerSecond }) => callsPerSecond),
      'MB/s downloads': of(({ downloaded }) => downloaded),
      'MB/s viewers': of(({ watched }) => watched),
    };
  });
  const title =
    `${SANDBOXES} clients with ${RATE} calls a second each, beside up to ${DOWNLOADS} downloads at ${BYTES_PER_SECOND / 1e6} MB/s ` +
    `and ${VIEWERS} viewers, ${rounds} rounds of ${seconds} s; times of the small calls`;
  return [{ title, rows }];
});
