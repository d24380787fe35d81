import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { BerthClient, BerthError, type Sandbox, type SandboxEvent } from '../../src/client/client.ts';
import { signalPart } from './drivers.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { openSocket, Raw } from './sockets.ts';

const KEYS = { a: 'key-a-8f14e45fceea', b: 'key-b-c9f0f895fb98', ops: 'key-ops-45c48cce2e' };

/** Reads a stream to its end in the background. */
class Reader {
  readonly events: SandboxEvent[] = [];
  readonly done: Promise<void>;
  readonly #abort = new AbortController();

  constructor(client: BerthClient, id?: string, after?: string) {
    const { signal } = this.#abort;
    this.done = this.#read(client.events(id, { signal, ...(after === undefined ? {} : { after }) }));
    this.done.catch(() => {}); // whoever awaits it has the rejection
  }

  get types(): string[] {
    return this.events.map((event) => event.type);
  }

  async until(type: string, times = 1): Promise<SandboxEvent> {
    const found = (): SandboxEvent[] => this.events.filter((event) => event.type === type);
    await waitFor(
      () => found().length >= times,
      () => `${type} after ${this.types}`,
    );
    return found()[times - 1] as SandboxEvent;
  }

  close(): void {
    this.#abort.abort();
  }

  async #read(stream: AsyncIterable<SandboxEvent>): Promise<void> {
    for await (const event of stream) this.events.push(event);
  }
}

/** One page of what is remembered; its type has the stream's text beside it. */
async function page(
  client: BerthClient,
  after = '0-0',
  limit = 1000,
): Promise<{ events: SandboxEvent[]; next: string }> {
  const { data } = await client.http.GET('/events', { params: { query: { after, limit } } });
  assert.ok(typeof data === 'object');
  return data.data;
}

/** Every metric by its name and labels as they stand in the text, such as `berth_sandboxes{state="READY"}`. */
async function metrics(service: Service): Promise<Map<string, number>> {
  const answer = await fetch(`${service.url}/metrics`, { headers: { authorization: `Bearer ${KEYS.ops}` } });
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
  const values = new Map<string, number>();
  const typed = new Set<string>();
  for (const line of (await answer.text()).split('\n')) {
    if (line.startsWith('# TYPE ')) typed.add(line.split(' ')[2] as string);
    if (line === '' || line.startsWith('#')) continue;
    const [, name, labels = '', value] = /^([a-z][a-z0-9_]*)(\{(?:\w+="[^"\\\n]*",?)*\})? (\S+)$/.exec(line) ?? [];
    // prom-client writes `Nan` for a lag of which it has no sample yet; Prometheus reads that in any case of letters.
    const number = /^nan$/i.test(value ?? '') ? 0 : Number(value);
    assert.ok(name !== undefined && !Number.isNaN(number), `no metric: ${line}`);
    const family = name.replace(/_(bucket|sum|count)$/, '');
    assert.ok(typed.has(name) || typed.has(family), `${name} has no type`);
    assert.ok(!values.has(name + labels), `${line} is there twice`);
    values.set(name + labels, number);
  }
  return values;
}

describe('events and metrics', { timeout: 3 * LIMIT.timeout }, () => {
  let service: Service;
  let client: BerthClient;
  let box: Sandbox;
  let all: Reader;
  let one: Reader;

  before(async () => {
    const { a, b, ops } = KEYS;
    const env = { BERTH_API_KEYS: `a:${a},b:${b},ops:${ops}:admin`, BERTH_MAX_SANDBOXES: '1' };
    service = await startService({ env, apiKey: KEYS.a });
    client = service.client;
    all = new Reader(client);
    // The first line comes at once, but only events can be seen through the client.
    await waitFor(async () => (await metrics(service)).get('berth_event_streams') === 1, 'the stream to be open');
  });
  after(async () => {
    await service.end();
  });

  it('begin with the start of a sandbox', LIMIT, async () => {
    box = await client.create({ sandboxId: 'watched' });
    const ready = await all.until('sandbox.ready');
    assert.deepEqual(all.types, ['sandbox.creating', 'sandbox.ready']);
    assert.deepEqual([ready.sandboxId, ready.owner, ready.startStages], ['watched', 'a', box.startStages]);
    assert.ok((ready.startMs ?? 0) >= (box.startStages.ready ?? 1), 'the whole is not shorter than its part');
    assert.ok(Math.abs(Date.parse(ready.at) - Date.now()) < 60_000);
    one = new Reader(client, 'watched');
    await waitFor(async () => (await metrics(service)).get('berth_event_streams') === 2, 'the other stream');
    await assert.rejects(client.create(), (err: BerthError) => err.status === 429);
    const now = await metrics(service);
    assert.equal(now.get('berth_sandboxes{state="READY"}'), 1);
    assert.equal(now.get('berth_creates_total{outcome="ready"}'), 1);
    assert.equal(now.get('berth_refusals_total{error="NO_CAPACITY"}'), 1);
    for (const stage of ['xvfb', 'openbox', 'vnc', 'browser', 'ready', 'total']) {
      assert.equal(now.get(`berth_create_duration_seconds_count{stage="${stage}"}`), 1, stage);
    }
    assert.ok((now.get('process_resident_memory_bytes') ?? 0) > 10e6);
    assert.ok(now.has('nodejs_eventloop_lag_seconds') && now.has('process_cpu_seconds_total'));
  });

  it('tell of clients and viewers, and count their bytes', LIMIT, async () => {
    const first = await Raw.open(box.cdpUrl as string);
    assert.equal((await one.until('client.joined')).clients, 1);
    const second = await Raw.open(box.cdpUrl as string);
    assert.equal((await one.until('client.joined', 2)).clients, 2);
    const viewer = await openSocket(box.vncUrl as string);
    assert.equal((await one.until('viewer.joined')).viewers, 1);
    const before = await metrics(service);
    assert.deepEqual([before.get('berth_clients'), before.get('berth_viewers')], [2, 1]);
    await first.send('Browser.getVersion');
    const now = await metrics(service);
    for (const direction of ['in', 'out']) {
      const name = `berth_bytes_total{path="automation",direction="${direction}"}`;
      assert.ok((now.get(name) ?? 0) > (before.get(name) ?? 0), name);
    }
    const banner = 'berth_bytes_total{path="livestream",direction="out"}';
    await waitFor(async () => ((await metrics(service)).get(banner) ?? 0) >= 12, "the VNC server's banner");
    for (const socket of [first.socket, second.socket, viewer]) socket.close();
    await one.until('viewer.left');
    assert.equal((await one.until('client.left', 2)).clients, 0);
    await waitFor(async () => (await metrics(service)).get('berth_clients') === 0, 'no clients');
  });

  it('tell of recordings', LIMIT, async () => {
    const params = { path: { id: 'watched' } };
    const started = await client.http.POST('/sandboxes/{id}/recordings/start', { params });
    await client.http.POST('/sandboxes/{id}/recordings/stop', { params });
    const { sessionId } = await one.until('recording.stopped');
    assert.equal(sessionId, started.data?.data.recording.sessionId);
    assert.equal((await one.until('recording.started')).sessionId, sessionId);
  });

  it('tell of a browser that died and was started again', LIMIT, async () => {
    await signalPart(service, 'watched', 'chromium');
    assert.equal((await one.until('browser.restarted')).browserRestarts, 1);
    assert.ok(one.types.indexOf('browser.down') < one.types.indexOf('browser.restarted'));
    await waitFor(async () => (await metrics(service)).get('berth_browser_restarts_total') === 1, 'it to be counted');
  });

  it('come again after the last that was read, and in pages', LIMIT, async () => {
    const known = [...all.events];
    const again = new Reader(client, undefined, known[2]?.id);
    await waitFor(() => again.events.length >= known.length - 3, 'the replay');
    assert.deepEqual(again.events, known.slice(3));
    again.close();
    const headers = { authorization: `Bearer ${KEYS.a}`, accept: 'text/event-stream' };
    const resumed = await fetch(`${service.url}/sandboxes/watched/events?after=0-0`, {
      headers: { ...headers, 'last-event-id': known.at(-2)?.id as string },
    });
    const stream = resumed.body?.getReader();
    let text = '';
    while (!text.includes('\ndata: ')) text += new TextDecoder().decode((await stream?.read())?.value);
    assert.equal(/^id: (.*)$/m.exec(text)?.[1], known.at(-1)?.id, 'the header counts, not the address');
    await stream?.cancel();
    const paged: SandboxEvent[] = [];
    for (let got = await page(client, '0-0', 4); got.events.length > 0; got = await page(client, got.next, 4)) {
      assert.ok(got.events.length <= 4);
      paged.push(...got.events);
    }
    assert.deepEqual(paged, known);
    const { response } = await client.http.GET('/events', { params: { query: { after: 'x' } } });
    assert.equal(response.status, 400);
  });

  it("are a tenant's own, and metrics are for admins", LIMIT, async () => {
    const other = new BerthClient(service.url, KEYS.b);
    const mayNot = (err: BerthError): boolean => err instanceof BerthError && err.code === 2001;
    await assert.rejects(new Reader(other, 'watched').done, mayNot);
    assert.deepEqual((await page(other)).events, []);
    const { response } = await other.http.GET('/metrics', { parseAs: 'text' });
    assert.equal(response.status, 403);
    assert.deepEqual((await page(new BerthClient(service.url, KEYS.ops))).events, all.events);
  });

  it('leave nothing behind of readers that read nothing or go without a word', LIMIT, async () => {
    const before = (await metrics(service)).get('berth_event_streams') as number;
    const sockets = Array.from({ length: 20 }, () => {
      const socket = connect(Number(new URL(service.url).port), '127.0.0.1').pause();
      socket.on('error', () => {});
      const headers = `Host: localhost\r\nAuthorization: Bearer ${KEYS.a}\r\nAccept: text/event-stream`;
      socket.write(`GET /events?after=0-0 HTTP/1.1\r\n${headers}\r\n\r\n`);
      return socket;
    });
    const open = async (): Promise<number> => ((await metrics(service)).get('berth_event_streams') as number) - before;
    await waitFor(async () => (await open()) === 20, 'the readers');
    for (const socket of sockets) socket.destroy();
    await waitFor(async () => (await open()) === 0, 'the readers to be forgotten');
  });

  it('end with the sandbox: its stream is over, and nothing comes after', LIMIT, async () => {
    await client.delete('watched');
    await one.done;
    const last = one.events.at(-1);
    assert.deepEqual([last?.type, last?.status, last?.endedReason], ['sandbox.ended', 'TERMINATED', 'deleted']);
    await all.until('sandbox.ended');
    assert.deepEqual(one.events, all.events.slice(2), 'both have heard the same');
    const late = new Reader(client, 'watched', '0-0');
    await late.done;
    assert.deepEqual(late.events, all.events, 'also afterwards');
    const headers = { authorization: `Bearer ${KEYS.a}`, accept: 'text/event-stream' };
    assert.equal((await fetch(`${service.url}/sandboxes/watched/events`, { headers })).status, 204);
    const now = await metrics(service);
    assert.equal(now.get('berth_sandboxes{state="READY"}'), 0);
    assert.equal(now.get('berth_sandboxes_ended_total{reason="deleted"}'), 1);
  });

  it('have a proper end when the service has: after the last of them', LIMIT, async () => {
    await client.create({ sandboxId: 'last' });
    await service.stop();
    await all.done;
    const last = all.events.at(-1);
    assert.deepEqual([last?.type, last?.sandboxId, last?.endedReason], ['sandbox.ended', 'last', 'service_stopped']);
    assert.ok(!service.log().includes(KEYS.a));
  });
});

describe('events of a sandbox that the service finds when it starts', () => {
  it('begin with that', LIMIT, async () => {
    const first = await startService({ env: { BERTH_ON_EXIT: 'keep' } });
    let second: Service | undefined;
    try {
      await first.client.create({ sandboxId: 'kept' });
      const old = (await page(first.client)).next;
      await first.kill();
      second = await startService({ on: first });
      const since = await page(second.client, old);
      assert.deepEqual(
        since.events.map(({ type, clients }) => [type, clients]),
        [['sandbox.adopted', 0]],
        'whatever was read of the earlier service',
      );
      await second.stop();
    } finally {
      await second?.clean();
      await first.clean();
    }
  });
});
