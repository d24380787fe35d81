import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { after, before, describe, it, mock } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { EventReader } from '../../src/api/events.ts';
import { Api } from '../../src/api/server.ts';
import type { Downloads } from '../../src/core/contracts.ts';
import { Counters } from '../../src/core/counters.ts';
import { Events } from '../../src/core/events.ts';
import type { SandboxInfo } from '../../src/core/live.ts';
import type { Sandboxes } from '../../src/core/sandboxes.ts';
import { Gateway } from '../../src/gateway/server.ts';
import type { Recordings } from '../../src/recordings/recordings.ts';
import { waitFor } from '../e2e/service.ts';
import { noAudit, noTickets, openAccess } from './doors.ts';

const look = (id: string, clients: number, state = 'READY'): SandboxInfo =>
  ({ spec: { id, owner: 'default' }, state, status: { clients } }) as unknown as SandboxInfo;
const all = (): boolean => true;

/** Makes as many events as it is asked for. */
function maker(events: Events, id = 's'): (count: number) => void {
  const watcher = events.watcher();
  let made = 0;
  return (count) => {
    for (let i = 0; i < count; i++) watcher.saw(look(id, made++));
  };
}

/** What has arrived so far. */
function read(stream: Readable): () => string {
  let text = '';
  stream.setEncoding('utf8');
  stream.on('data', (chunk) => (text += chunk));
  return () => text;
}

describe('a stream of events', () => {
  it('is framed as server-sent events', async () => {
    const events = new Events(10, () => Date.UTC(2026, 0, 2));
    const text = read(new EventReader(events, undefined, all).stream(false, false));
    maker(events)(2);
    await turn();
    const [hello, adopted, joined, ...rest] = text().split('\n\n');
    assert.equal(hello, ':');
    assert.deepEqual(rest, ['']);
    const start = Date.UTC(2026, 0, 2);
    assert.equal(adopted?.split('\n')[0], `id: ${start}-1`);
    const [id, event, data, ...none] = joined?.split('\n') ?? [];
    assert.deepEqual([id, event, none], [`id: ${start}-2`, 'event: client.joined', []]);
    const { at, ...said } = JSON.parse(data?.replace(/^data: /, '') ?? '');
    assert.equal(Date.parse(at), start);
    assert.deepEqual(said, { id: `${start}-2`, type: 'client.joined', sandboxId: 's', owner: 'default', clients: 1 });
  });

  it('begins after the event that was asked for, and ends with its sandbox', async () => {
    const events = new Events(10, () => 7);
    const watcher = events.watcher();
    for (let clients = 0; clients < 3; clients++) watcher.saw(look('s', clients));
    const stream = new EventReader(events, '7-2', all).stream(false, true);
    const text = read(stream);
    watcher.saw(look('s', 0, 'TERMINATED'));
    await turn();
    maker(events)(3);
    await turn();
    assert.deepEqual(
      [...text().matchAll(/^id: 7-(\d+)$/gm)].map(([, n]) => n),
      ['3', '4', '5'],
    );
    assert.ok(stream.readableEnded);
    assert.equal(events.listening, 0);
  });

  it('ends with its sandbox also when recordings are removed after that', async () => {
    const events = new Events();
    const watcher = events.watcher();
    for (const state of ['READY', 'TERMINATED']) watcher.saw(look('s', 0, state));
    events.recordingRemoved({ sandboxId: 's', owner: 'default', filename: 'a.mkv', reason: 'deleted' });
    const stream = new EventReader(events, '0-0', all).stream(true, true);
    const text = read(stream);
    await new Promise((resolve) => stream.once('end', resolve));
    assert.deepEqual(
      text()
        .match(/^event: .*$/gm)
        ?.slice(-2),
      ['event: sandbox.ended', 'event: recording.removed'],
    );
  });

  it('ends when there will be no more, after the last one', async () => {
    const events = new Events();
    const stream = new EventReader(events, undefined, all).stream(false, false);
    const text = read(stream);
    maker(events)(1);
    events.close();
    await turn();
    assert.match(text(), /^event: sandbox\.adopted$/m);
    assert.ok(stream.readableEnded);
  });

  it('says something every 15 s, and drops a reader that has taken nothing for two of these', async () => {
    mock.timers.enable({ apis: ['setInterval'] });
    try {
      const events = new Events();
      const text = read(new EventReader(events, undefined, all).stream(false, false));
      const unread = new EventReader(events, undefined, all).stream(false, false);
      unread.read(0);
      maker(events)(200);
      for (let i = 0; i < 4; i++) {
        await turn();
        assert.equal(unread.destroyed, i >= 2, `after ${i * 15} s`);
        mock.timers.tick(15_000);
      }
      await turn();
      assert.match(text(), /(:\n\n){4}$/);
      assert.ok(unread.readableLength < 20_000, `${unread.readableLength} bytes wait`);
      assert.equal(events.listening, 1);
    } finally {
      mock.timers.reset();
    }
  });
});

describe('a stream of events through the gateway', { timeout: 60_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'bt-'));
  const events = new Events(2000);
  const counters = new Counters();
  const make = maker(events);
  let api: Api;
  let gateway: Gateway;
  let port: number;
  /** Without readers the metrics listen. */
  let idle: number;

  before(async () => {
    const log = { info() {}, warn() {}, error() {} };
    const sandboxes = { live: () => [], pool: { ready: new Map(), claims: new Map() } } as unknown as Sandboxes;
    const access = openAccess();
    const apiSocket = join(folder, 'api');
    const openapiYaml = readFileSync(new URL('../../../openapi.yaml', import.meta.url), 'utf8');
    const recordings = {} as Recordings;
    const downloads = {} as Downloads;
    const rest = { downloads, ready: async () => ({ archive: undefined }), publicUrl: undefined, novncDir: folder };
    api = new Api(
      {
        access,
        sandboxes,
        recordings,
        events,
        counters,
        audit: noAudit,
        tickets: noTickets,
        openapiYaml,
        log,
        ...rest,
      },
      apiSocket,
    );
    gateway = new Gateway({ access, sandboxes, apiSocket, counters, audit: noAudit, log });
    await api.listen();
    port = await gateway.listen('127.0.0.1', 0);
    idle = events.listening;
  });
  after(async () => {
    gateway.close();
    await api.close();
    rmSync(folder, { recursive: true });
  });

  function ask(path: string): Socket {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n`);
    return socket;
  }

  it('brings each event at once, and is forgotten when its reader goes', async () => {
    const socket = ask('/events');
    const text = read(socket);
    await waitFor(() => text().includes('\r\n:\n\n'), 'the head of the answer');
    for (let n = 1; n <= 3; n++) {
      make(1);
      await waitFor(() => text().split('\nid: ').length === n + 1, `event ${n}`);
    }
    assert.equal(events.listening, idle + 1);
    socket.destroy();
    await waitFor(() => events.listening === idle, 'the reader to be forgotten');
  });

  it('is cut when its reader reads nothing: nothing piles up, and the others go on', async () => {
    const stalled = Array.from({ length: 4 }, () => ask('/events').pause());
    const reading = ask('/events');
    let tail = '';
    reading.on('data', (chunk) => {
      tail = (tail + chunk).slice(-1000);
    });
    await waitFor(() => events.listening === idle + 5, 'the readers');
    let made = 0;
    // The system's own buffers take some 4 MB a connection, 24,000 events. Had anything else a buffer without end, no
    // reader would ever fall behind what is remembered, and all would still be there after 25 MB.
    for (; events.listening > idle + 1 && made < 150_000; made += 500) {
      make(500);
      const last = `\nid: ${events.idAt(events.position(undefined))}\n`;
      await waitFor(() => tail.includes(last), 'the one that reads');
    }
    assert.equal(events.listening, idle + 1, `the stalled ones are there after ${made} events`);
    assert.ok(!reading.destroyed);
    for (const socket of [...stalled, reading]) socket.destroy();
    await waitFor(() => events.listening === idle, 'all to be forgotten');
  });

  it('counts bytes and refusals, and shows both as Prometheus reads them', async () => {
    const get = async (path: string): Promise<Response> => fetch(`http://127.0.0.1:${port}${path}`);
    assert.equal((await get('/nothing')).status, 404);
    assert.equal((await get('/events?after=x')).status, 400);
    assert.equal((await get('/events?limit=1001')).status, 400);
    const bad = await fetch(`http://127.0.0.1:${port}/events`, { headers: { 'last-event-id': 'x' } });
    assert.match(((await bad.json()) as { message: string }).message, /^Last-Event-ID: /);
    assert.equal((await get('/sandboxes/s/ws/automation')).status, 426);
    const answer = await get('/metrics');
    assert.equal(answer.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
    const text = await answer.text();
    for (const [error, times] of Object.entries({ NOT_FOUND: 1, INVALID_REQUEST: 3, UPGRADE_REQUIRED: 1, INTERNAL: 0 }))
      assert.ok(text.includes(`\nberth_refusals_total{error="${error}"} ${times}\n`), error);
    const out = Number(/^berth_bytes_total\{path="http",direction="out"\} (\d+)$/m.exec(text)?.[1]);
    assert.ok(out > 1_000_000, `${out} bytes`);
  });
});
