/**
 * (f) From a call that changes a small part of the page to a viewer that has it, and the bytes on the wire for it: the VNC
 * server's own socket, websockify on it and Berth, in turns, one viewer at a time.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import WebSocket, { createWebSocketStream } from 'ws';
import { folderOf } from '../../src/drivers/folders.ts';
import { Raw } from '../e2e/sockets.ts';
import { cpuMs, findProgram, percentile, spread, withChildren } from './measure.ts';
import { type Bench, freePort, type Row, runPart } from './part.ts';
import { type Area, Viewer } from './rfb.ts';
import { commandOf, pidsOf } from './sandbox.ts';

/** In the middle of a page that fills a screen of 1280x720; the browser's own bars stand above. */
const BOX: Area = { x: 500, y: 350, width: 100, height: 100 };
const PAGE =
  'data:text/html,<body style="margin:0;background:teal"><div id="box" style="position:fixed;left:500px;top:250px;width:100px;height:100px">';

interface Way {
  readonly name: string;
  readonly pids: () => number[];
  open(): Promise<{ stream: Duplex; wire: Socket }>;
}

interface Round {
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly bytes: number;
  readonly cpuMs: number;
}

async function overWebSocket(url: string): Promise<{ stream: Duplex; wire: Socket }> {
  const socket = new WebSocket(url, ['binary'], { perMessageDeflate: false, handshakeTimeout: 30_000 });
  // At once: the server speaks first, and its greeting may come together with the answer to the handshake.
  const stream = createWebSocketStream(socket);
  await once(socket, 'open');
  // ws has no other name for the connection below.
  const wire = (socket as unknown as { _socket: Socket })._socket;
  wire.setNoDelay(true);
  return { stream, wire };
}

async function ways(bench: Bench, vncSocket: string, livestreamUrl: string, servicePid: number): Promise<Way[]> {
  const all: Way[] = [
    {
      name: 'direct (unix socket)',
      pids: () => [],
      open: async () => {
        const wire = connect({ path: vncSocket });
        return { stream: wire, wire };
      },
    },
  ];
  const websockify = findProgram('websockify');
  if (websockify) {
    const port = await freePort();
    const { pid } = await bench.server(websockify, [`--unix-target=${vncSocket}`, `127.0.0.1:${port}`], port);
    const open = () => overWebSocket(`ws://127.0.0.1:${port}/`);
    // One more process for each viewer.
    all.push({ name: 'websockify', pids: () => withChildren([pid]), open });
  } else bench.notes.add('websockify is not installed (apt-get install websockify): its row is left out.');
  all.push({ name: 'berth', pids: () => [servicePid], open: () => overWebSocket(livestreamUrl) });
  return all;
}

/** Each change has a colour of its own, so that two that are seen as one are still a change. */
let colours = 0;

async function changes(way: Way, raw: Raw, sessionId: string, count: number): Promise<Round> {
  const { stream, wire } = await way.open();
  try {
    const viewer = await Viewer.open(stream);
    const times: number[] = [];
    let [bytes, cpu] = [wire.bytesRead, 0];
    for (let i = -3; i < count; i++) {
      if (i === 0) [bytes, cpu] = [wire.bytesRead, cpuMs(way.pids())];
      // What the change before has still to send must not be taken for this one.
      await sleep(40);
      const colour = `#${(++colours * 12_345).toString(16).padStart(6, '0')}`;
      const since = performance.now();
      const seen = viewer.changed(BOX);
      await raw.evaluate(`document.getElementById('box').style.background = '${colour}'`, sessionId);
      await seen;
      if (i >= 0) times.push(performance.now() - since);
    }
    times.sort((a, b) => a - b);
    const used = (cpuMs(way.pids()) - cpu) / count;
    return {
      p50: percentile(times, 0.5),
      p99: percentile(times, 0.99),
      bytes: (wire.bytesRead - bytes) / count,
      cpuMs: used,
    };
  } finally {
    stream.destroy();
  }
}

await runPart('vnc', 120, async (bench) => {
  const [rounds, count] = bench.quick ? [1, 5] : [5, 30];
  const service = await bench.service('local');
  const sandbox = await service.client.create({ viewport: { width: 1280, height: 720 } });
  const command = (await pidsOf(service, sandbox.sandboxId)).map(commandOf).find((c) => c.startsWith('X0tigervnc '));
  const vncSocket =
    /-rfbunixpath (\S+)/.exec(command ?? '')?.[1] ?? join(folderOf(service.runDir, sandbox.sandboxId), 'vnc');
  const raw = await Raw.open(sandbox.cdpUrl as string);
  const [targetId] = await raw.pageIds();
  const { sessionId } = await raw.send('Target.attachToTarget', { targetId, flatten: true });
  await raw.send('Page.navigate', { url: PAGE }, sessionId);
  const livestreamUrl = (sandbox.cdpUrl as string).replace('/ws/automation', '/ws/livestream');
  const all = await ways(bench, vncSocket, livestreamUrl, service.process.pid as number);
  const found = new Map<Way, Round[]>(all.map((way) => [way, []]));
  for (let round = 0; round < rounds; round++) {
    for (const way of all) found.get(way)?.push(await changes(way, raw, sessionId, count));
  }
  raw.socket.terminate();
  const direct = found.get(all[0] as Way) as Round[];
  const rows = [...found].map(
    ([{ name }, mine]): Row => ({
      way: name,
      'p50 ms': spread(mine.map((one) => one.p50)),
      'p99 ms': spread(mine.map((one) => one.p99)),
      'p50 / direct': spread(mine.map((one, i) => one.p50 / (direct[i] as Round).p50)),
      'bytes a change': spread(mine.map((one) => one.bytes)),
      'CPU ms a change': spread(mine.map((one) => one.cpuMs)),
    }),
  );
  const title = `A box of 100x100 pixels changes its colour: from the CDP call to a viewer that has it, ${rounds} rounds of ${count}`;
  return [{ title, rows }];
});
