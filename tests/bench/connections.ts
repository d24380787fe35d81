/** (d) Memory that a proxy needs for each connection on which nothing happens, with 2,000 open; each time a new process. */
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { pssKb, rssKb, type Spread, spread } from './measure.ts';
import { type Row, runPart } from './part.ts';
import {
  echoUrl,
  gatewayAlone,
  gatewayAndRuntime,
  gatewayOnWs,
  peers,
  type Relay,
  type StartRelay,
} from './proxies.ts';

/** Opened at the same time. */
const ABREAST = 50;

function open(relay: Relay): Promise<Socket> {
  const { pathname } = new URL(echoUrl(relay));
  return new Promise((resolve, reject) => {
    const socket = connect(relay.port, '127.0.0.1');
    socket.write(
      `GET ${pathname} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    socket.once('error', reject);
    socket.once('close', () => reject(new Error(`${relay.name} closed a connection`)));
    let answer = '';
    socket.on('data', (data) => {
      answer += data.toString('latin1');
      if (!answer.includes('\r\n\r\n')) return;
      if (answer.startsWith('HTTP/1.1 101')) resolve(socket);
      else reject(new Error(`${relay.name} answered ${answer.slice(0, 40)}`));
    });
  });
}

interface Memory {
  readonly rss: number;
  readonly pss: number;
}

await runPart('connections', 180, async (bench) => {
  const [rounds, connections, settleMs] = bench.quick ? [1, 50, 50] : [3, 2000, 1500];
  const { port } = (await bench.program('echo')).ready as { port: number };
  const starts: StartRelay[] = [...peers(bench), gatewayAlone, gatewayOnWs, gatewayAndRuntime];
  const found = new Map<string, { idle: Memory[]; each: Memory[] }>();
  for (let round = 0; round < rounds; round++) {
    for (const start of starts) {
      const proxy = await start(bench, port);
      const memory = (): Memory => ({ rss: rssKb(proxy.pids), pss: pssKb(proxy.pids) });
      const sockets: Socket[] = [];
      // What is made once, at the first connections, is not the later ones'.
      for (let i = 0; i < ABREAST; i++) sockets.push(await open(proxy));
      await sleep(settleMs / 2);
      const before = memory();
      for (let i = 0; i < connections; i += ABREAST) {
        sockets.push(...(await Promise.all(Array.from({ length: ABREAST }, () => open(proxy)))));
      }
      await sleep(settleMs);
      const after = memory();
      for (const socket of sockets) socket.destroy();
      await proxy.stop();
      const { idle, each } = found.get(proxy.name) ?? { idle: [], each: [] };
      idle.push(before);
      each.push({ rss: (after.rss - before.rss) / connections, pss: (after.pss - before.pss) / connections });
      found.set(proxy.name, { idle, each });
    }
  }
  const of = (all: readonly Memory[], what: keyof Memory, unit = 1): Spread =>
    spread(all.map((one) => one[what] / unit));
  const rows = [...found].map(
    ([proxy, { idle, each }]): Row => ({
      proxy,
      'KB RSS a connection': of(each, 'rss'),
      'KB PSS a connection': of(each, 'pss'),
      'MB RSS before': of(idle, 'rss', 1000),
      'MB PSS before': of(idle, 'pss', 1000),
    }),
  );
  return [{ title: `${connections} idle connections more than the first ${ABREAST}, ${rounds} rounds`, rows }];
});
