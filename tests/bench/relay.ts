/**
 * (b) What a proxy needs of the CPU for a small message there and back and for a MiB, before an echo server that no proxy
 * can tire: a browser would be the slow part. 64 connections; in turns.
 */
import type WebSocket from 'ws';
import { openSocket } from '../e2e/sockets.ts';
import { cpuMs, percentile, type Spread, spread } from './measure.ts';
import { type Bench, type Row, runPart } from './part.ts';
import {
  echoUrl,
  gatewayAlone,
  gatewayAndRuntime,
  gatewayOnWs,
  peers,
  type Relay,
  type StartRelay,
} from './proxies.ts';

const SMALL = JSON.stringify({
  id: 123,
  method: 'Runtime.evaluate',
  params: { expression: 'document.title', returnByValue: true },
  sessionId: 'ABCDEF0123456789ABCDEF0123456789',
}).padEnd(300, ' ');
const BIG_MIB = 2;
const BIG = `G${BIG_MIB * 1024 * 1024}`;

interface Cost {
  /** Milliseconds of CPU, by process in the order of the proxy's. */
  readonly cpu: readonly number[];
  readonly seconds: number;
  /** Microseconds, sorted. */
  readonly times: readonly number[];
}

/** Sends and waits for the answer, this many times on each connection at once. */
async function exchange(
  sockets: readonly WebSocket[],
  pids: readonly number[],
  text: string,
  count: number,
): Promise<Cost> {
  const times: number[] = [];
  const before = pids.map((pid) => cpuMs([pid]));
  const since = performance.now();
  await Promise.all(
    sockets.map(
      (socket) =>
        new Promise<void>((resolve, reject) => {
          let left = count;
          let sent = 0;
          const send = (): void => {
            sent = performance.now();
            socket.send(text);
          };
          socket.once('close', () => reject(new Error('a connection broke')));
          socket.on('message', () => {
            times.push((performance.now() - sent) * 1000);
            if (--left > 0) return send();
            socket.removeAllListeners('message').removeAllListeners('close');
            resolve();
          });
          send();
        }),
    ),
  );
  const seconds = (performance.now() - since) / 1000;
  times.sort((a, b) => a - b);
  return { cpu: pids.map((pid, i) => cpuMs([pid]) - (before[i] as number)), seconds, times };
}

function open(proxy: Relay, connections: number): Promise<WebSocket[]> {
  const one = (): Promise<WebSocket> => openSocket(echoUrl(proxy), [], { skipUTF8Validation: true });
  return Promise.all(Array.from({ length: connections }, one));
}

function rowsOf(name: string, pids: number, small: readonly Cost[], big: readonly Cost[], counts: Counts): Row[] {
  const messages = counts.connections * counts.small;
  const mib = counts.bigConnections * counts.big * BIG_MIB;
  const total = (cost: Cost, of: number): number => cost.cpu.slice(0, of).reduce((a, b) => a + b, 0);
  const each = (costs: readonly Cost[], what: (cost: Cost) => number): Spread => spread(costs.map(what));
  const row = (label: string, of: number): Row => ({
    proxy: label,
    'CPU us a message': each(small, (cost) => (total(cost, of) * 1000) / messages),
    'CPU us a MiB': each(big, (cost) => (total(cost, of) * 1000) / mib),
    'messages/s': each(small, (cost) => messages / cost.seconds),
    'p99 us': each(small, (cost) => percentile(cost.times, 0.99)),
    'MiB/s': each(big, (cost) => mib / cost.seconds),
  });
  if (pids === 1) return [row(name, 1)];
  return [row(name, pids), row(`  of it the gateway`, 1)];
}

interface Counts {
  readonly rounds: number;
  readonly connections: number;
  readonly small: number;
  readonly bigConnections: number;
  readonly big: number;
}

async function measure(bench: Bench): Promise<[string, Row[]]> {
  const counts: Counts = bench.quick
    ? { rounds: 1, connections: 4, small: 20, bigConnections: 2, big: 1 }
    : { rounds: 3, connections: 64, small: 500, bigConnections: 16, big: 6 };
  const echo = await bench.program('echo');
  const { port } = echo.ready as { port: number };
  const starts: StartRelay[] = [...peers(bench), gatewayAlone, gatewayOnWs, gatewayAndRuntime];
  const all = await Promise.all(
    starts.map(async (start) => {
      const proxy = await start(bench, port);
      return { proxy, sockets: await open(proxy, counts.connections), small: [] as Cost[], big: [] as Cost[] };
    }),
  );
  for (let round = -1; round < counts.rounds; round++) {
    for (const { proxy, sockets, small, big } of all) {
      const costSmall = await exchange(sockets, proxy.pids, SMALL, counts.small);
      const costBig = await exchange(sockets.slice(0, counts.bigConnections), proxy.pids, BIG, counts.big);
      // Once for nothing: programs of Node get quicker as they run.
      if (round < 0) continue;
      small.push(costSmall);
      big.push(costBig);
    }
  }
  for (const { sockets } of all) for (const socket of sockets) socket.terminate();
  const rows = all.flatMap(({ proxy, small, big }) => rowsOf(proxy.name, proxy.pids.length, small, big, counts));
  const title =
    `${counts.rounds} rounds: ${counts.connections} connections x ${counts.small} messages of ${SMALL.length} bytes both ways, ` +
    `${counts.bigConnections} x ${counts.big} answers of ${BIG_MIB} MiB`;
  return [title, rows];
}

await runPart('relay', 240, async (bench) => {
  const [title, rows] = await measure(bench);
  return [{ title, rows }];
});
