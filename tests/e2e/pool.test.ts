import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';
import type { Sandbox } from '../../src/client/client.ts';
import { BerthClient } from '../../src/client/client.ts';
import { DEFAULTS } from '../../src/core/sandbox.ts';
import { writeClaim } from '../../src/drivers/claims.ts';
import { type Site, serveSite, signalPart } from './drivers.ts';
import { assertNothingLeft, LIMIT, type Service, startService, waitFor } from './service.ts';
import { onTape } from './video.ts';

const KEYS = { a: 'key-of-tenant-a-1', b: 'key-of-tenant-b-1', admin: 'key-of-an-admin-1' } as const;
const WITH_KEYS = { BERTH_API_KEYS: `a:${KEYS.a},b:${KEYS.b},ops:${KEYS.admin}:admin` };

/** A figure of `/metrics`. */
async function metric(service: Service, name: string): Promise<number> {
  const answer = await fetch(`${service.url}/metrics`, { headers: { 'x-api-key': KEYS.admin } });
  const line = (await answer.text()).split('\n').find((text) => text.startsWith(`${name} `));
  return Number(line?.split(' ')[1]);
}

/** What has happened since the service started, as far as the bearer of the key may know. */
async function eventTypes(service: Service, path: string, key: string): Promise<string[]> {
  const answer = await fetch(`${service.url}${path}?after=0-0`, { headers: { 'x-api-key': key } });
  const { data } = (await answer.json()) as { data: { events: { type: string }[] } };
  return data.events.map((event) => event.type);
}

async function filled(service: Service, size: number): Promise<void> {
  const ready = async () => (await metric(service, 'berth_pool_ready{template="default"}')) === size;
  await waitFor(ready, `${size} in the pool`);
}

type Fate = 'READY' | 'claimed' | 'took over';

/** Ids that pooled sandboxes were started with, as the log tells, and what became of them. */
function handles(service: Service, what: Fate): string[] {
  const message = { READY: 'a pooled sandbox is READY', claimed: 'claimed a', 'took over': 'took over a' }[what];
  return service
    .log()
    .split('\n')
    .filter((line) => line.includes(`"msg":"${message}`))
    .map((line) => (JSON.parse(line) as { handle: string }).handle);
}

/** The log comes through a pipe: once it tells of so many. */
async function logged(service: Service, what: Fate, count: number): Promise<string[]> {
  await waitFor(() => handles(service, what).length >= count, `the log to tell of ${count} ${what}`);
  return handles(service, what);
}

const warmClaims = (service: Service): Promise<number> =>
  metric(service, 'berth_pool_claims_total{template="default",outcome="warm"}');

/** Creates one and says whether it was there before. */
async function create(
  service: Service,
  input: Parameters<BerthClient['create']>[0] = {},
): Promise<{ sandbox: Sandbox; warm: boolean }> {
  const before = await warmClaims(service);
  const sandbox = await service.client.create(input);
  return { sandbox, warm: (await warmClaims(service)) > before };
}

describe('A sandbox from the pool', () => {
  let service: Service;
  let site: Site;
  before(async () => {
    site = await serveSite((req, res) => {
      if (req.url === '/file') res.setHeader('content-disposition', 'attachment; filename="a.bin"').end('bytes');
      else res.setHeader('content-type', 'text/html').end('<title>a page</title>');
    });
    service = await startService({ env: { ...WITH_KEYS, BERTH_POOL_SIZE: '2' }, apiKey: KEYS.a });
    await filled(service, 2);
  }, LIMIT);
  after(async () => {
    site?.close();
    await service.end();
  }, LIMIT);

  it('is nobody’s and cannot be seen before', async () => {
    const pooled = await logged(service, 'READY', 2);
    assert.equal(pooled.length, 2);
    for (const key of Object.values(KEYS)) {
      const client = new BerthClient(service.url, key);
      assert.deepEqual(await client.list(), []);
      for (const id of pooled) await assert.rejects(client.get(id), /not found/);
      assert.deepEqual(await eventTypes(service, '/events', key), []);
    }
  });

  it('is as fresh as any: clocks, events, settings and owner are those of the create', async () => {
    await filled(service, 2);
    // So that time in the pool would show.
    await sleep(1500);
    const since = Date.now();
    const { sandbox, warm } = await create(service, {
      maxLifetimeSeconds: 500,
      sandboxIdleTimeoutSeconds: 90,
      metadata: { job: '42' },
    });
    const until = Date.now();
    assert.ok(warm);
    assert.equal(sandbox.status, 'READY');
    assert.deepEqual([sandbox.clients, sandbox.viewers, sandbox.browserRestarts], [0, 0, 0]);
    assert.deepEqual([sandbox.startStages, sandbox.metadata], [{}, { job: '42' }]);
    assert.equal(sandbox.recording.state, 'off');
    const within = (time: string | undefined, ms: number): void => {
      const at = Date.parse(time ?? '') - ms;
      assert.ok(at > since - 1000 && at < until + 1000, `${time} is not ${ms} ms after the create`);
    };
    within(sandbox.createdAt, 0);
    within(sandbox.lastUpdatedAt, 0);
    within(sandbox.expiresAt, 500_000);
    within(sandbox.idleDeadline, 90_000);
    const types = await eventTypes(service, `/sandboxes/${sandbox.sandboxId}/events`, KEYS.a);
    assert.deepEqual(types, ['sandbox.creating', 'sandbox.ready']);
    await assert.rejects(new BerthClient(service.url, KEYS.b).get(sandbox.sandboxId), /not found/);
    const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl ?? '' });
    const pages = await browser.pages();
    assert.deepEqual(
      pages.map((page) => page.url()),
      ['about:blank'],
    );
    assert.deepEqual(await browser.cookies(), []);
    await pages[0]?.goto(site.url);
    assert.equal(await pages[0]?.title(), 'a page');
    await browser.disconnect();
    await service.client.delete(sandbox.sandboxId);
  });

  it('strikes by the clocks that were asked for', async () => {
    await filled(service, 2);
    const before = await warmClaims(service);
    const [connect, idle] = await Promise.all([
      service.client.create({ connectTimeoutSeconds: 1 }),
      service.client.create({ maxLifetimeSeconds: 2 }),
    ]);
    assert.notEqual(connect.sandboxId, idle.sandboxId);
    const [first, second] = (await logged(service, 'claimed', before + 2)).slice(before);
    assert.notEqual(first, second, 'two at once are two');
    for (const [{ sandboxId }, reason] of [[connect, 'connect_timeout'] as const, [idle, 'max_lifetime'] as const]) {
      await waitFor(async () => (await service.client.get(sandboxId)).endedAt !== undefined, reason);
      assert.equal((await service.client.get(sandboxId)).endedReason, reason);
    }
  });

  it('has its recordings and downloads under its own id, where they outlive it', async () => {
    await filled(service, 2);
    const { sandbox, warm } = await create(service, { sandboxId: 'mine', recording: 'always' });
    assert.ok(warm);
    assert.equal(sandbox.recording.state, 'recording');
    const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl ?? '' });
    const page = await browser.newPage();
    await page.goto(`${site.url}/file`).catch(() => {}); // a download ends a navigation
    await waitFor(async () => (await service.client.downloads('mine')).some((file) => file.complete), 'the file');
    await browser.disconnect();
    await onTape(service, 'mine');
    await service.client.delete('mine');
    assert.deepEqual(
      (await service.client.downloads('mine')).map(({ name, size }) => ({ name, size })),
      [{ name: 'a.bin', size: 5 }],
    );
    const recordings = await service.client.recordings('mine');
    assert.equal(recordings.length, 1);
    assert.match(recordings[0]?.filename ?? '', /^vnc_mine_/);
    assert.equal(recordings[0]?.status, 'completed');
    await assert.rejects(new BerthClient(service.url, KEYS.b).recordings('mine'), /no such sandbox/);
    // Once more the same id: what is there of the former must not be in the way, nor get lost.
    await filled(service, 2);
    const again = await service.client.create({ sandboxId: 'mine', recording: 'always' });
    assert.equal(again.status, 'READY');
    assert.deepEqual(await service.client.downloads('mine'), [], 'downloads are the new one’s');
    await onTape(service, 'mine');
    await service.client.delete('mine');
    assert.equal((await service.client.recordings('mine')).length, 2);
  });

  it('is not for a create with another viewport', async () => {
    await filled(service, 2);
    const { sandbox, warm } = await create(service, { viewport: { width: 800, height: 600 } });
    assert.equal(warm, false);
    assert.deepEqual(sandbox.viewport, { width: 800, height: 600 });
    assert.equal((await metric(service, 'berth_pool_claims_total{template="default",outcome="cold"}')) > 0, true);
    await service.client.delete(sandbox.sandboxId);
  });

  it('is the same for a create that is repeated under its key', async () => {
    await filled(service, 2);
    const params = { header: { 'Idempotency-Key': 'once' } };
    const post = () => service.client.http.POST('/sandboxes', { body: {}, params });
    const before = await warmClaims(service);
    const answers = await Promise.all([post(), post()]);
    const [one, other] = answers.map((answer) => answer.data?.data.sandboxId);
    assert.ok(one);
    assert.equal(one, other);
    assert.equal(await warmClaims(service), before + 1, 'one was taken');
    await service.client.delete(one);
  });

  it('is never one that died or hangs', async () => {
    await filled(service, 2);
    const taken = await logged(service, 'claimed', await warmClaims(service));
    // The newest: of older ones that nobody claimed some have been given up.
    const [dead, stuck] = handles(service, 'READY')
      .filter((id) => !taken.includes(id))
      .slice(-2);
    await signalPart(service, dead as string, 'runtime', 'SIGKILL');
    await signalPart(service, stuck as string, 'runtime', 'SIGSTOP');
    const { sandbox } = await create(service);
    assert.equal(sandbox.status, 'READY');
    const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl ?? '' });
    assert.match(await browser.version(), /Chrome/);
    await browser.disconnect();
    await service.client.delete(sandbox.sandboxId);
    await filled(service, 2);
    assert.ok(!handles(service, 'claimed').includes(dead as string));
    assert.ok(!handles(service, 'claimed').includes(stuck as string));
  });
});

describe('The pool of a service', () => {
  const env = { ...WITH_KEYS, BERTH_POOL_SIZE: '2', BERTH_ON_EXIT: 'stop' };

  /** Kills the first, starts the second, and has both end without a trace. */
  async function restarted(
    second: Record<string, string>,
    use: (first: Service, second: Service, claimed: Sandbox) => Promise<void>,
  ): Promise<void> {
    const services = [await startService({ env, apiKey: KEYS.a })];
    try {
      const first = services[0] as Service;
      await filled(first, 2);
      const { sandbox, warm } = await create(first, { metadata: { k: 'v' }, recording: 'always' });
      assert.ok(warm);
      await filled(first, 2);
      await first.kill();
      const next = await startService({ env: { ...env, ...second }, apiKey: KEYS.a, on: first });
      services.push(next);
      await use(first, next, sandbox);
      await next.stop();
      assert.deepEqual(leftInData(first), []);
    } finally {
      for (const service of services.reverse()) await service.clean();
    }
  }

  /** Folders of pooled sandboxes in the data folder. */
  function leftInData({ dataDir }: Service): string[] {
    const names = (folder: string) => (existsSync(join(dataDir, folder)) ? readdirSync(join(dataDir, folder)) : []);
    return ['pool', 'recordings', 'downloads', 'ended'].flatMap(names).filter((name) => name.startsWith('pool-'));
  }

  it('is taken over by the next one when it is killed, and so are those that were claimed', async () => {
    await restarted({}, async (first, second, claimed) => {
      await filled(second, 2);
      const ready = handles(first, 'READY').filter((id) => !handles(first, 'claimed').includes(id));
      assert.deepEqual((await logged(second, 'took over', 2)).sort(), ready.sort());
      const found = await second.client.get(claimed.sandboxId);
      assert.equal(found.status, 'READY');
      assert.deepEqual([found.createdAt, found.metadata], [claimed.createdAt, { k: 'v' }]);
      assert.equal(found.recording.state, 'recording');
      const browser = await puppeteer.connect({ browserWSEndpoint: found.cdpUrl ?? '' });
      assert.match(await browser.version(), /Chrome/);
      await browser.disconnect();
      assert.ok((await create(second)).warm);
      assert.equal((await second.client.delete(claimed.sandboxId)).endedReason, 'deleted');
      assert.equal((await second.client.recordings(claimed.sandboxId))[0]?.status, 'completed');
    });
  });

  it('is ended by the next one when that has other settings, or none', async () => {
    for (const change of [{ BERTH_DOWNLOADS_MB: '77' }, { BERTH_POOL_SIZE: '0' }]) {
      await restarted(change, async (_first, second, claimed) => {
        assert.deepEqual(handles(second, 'took over'), []);
        assert.equal((await second.client.get(claimed.sandboxId)).status, 'READY');
        await second.client.delete(claimed.sandboxId);
        if (change.BERTH_POOL_SIZE === '0') await assertNothingLeft(second);
      });
    }
  });

  it('has nothing left of a claim that was cut short by its end', LIMIT, async () => {
    const first = await startService({ env, apiKey: KEYS.a });
    let second: Service | undefined;
    try {
      await filled(first, 2);
      await first.kill();
      const spec = {
        ...DEFAULTS,
        id: 'half',
        owner: 'a',
        templateName: 'default',
        createdAt: Date.now(),
        metadata: {},
      };
      await writeClaim(first.runDir, { handle: handles(first, 'READY')[0] as string, spec });
      second = await startService({ env, apiKey: KEYS.a, on: first });
      const half = await second.client.get('half');
      assert.deepEqual(
        [half.status, half.endedReason],
        ['FAILED', 'failed: the service ended before it was handed out'],
      );
      assert.equal((await second.client.create({ sandboxId: 'half' })).status, 'READY');
      await second.stop();
      assert.deepEqual(leftInData(first), []);
    } finally {
      await second?.clean();
      await first.clean();
    }
  });

  it('ends with it, also where it keeps its sandboxes', LIMIT, async () => {
    const first = await startService({ env: { ...env, BERTH_ON_EXIT: 'keep' }, apiKey: KEYS.a });
    try {
      await filled(first, 2);
      await first.stop();
    } finally {
      await first.clean();
    }
  });

  it('has sandboxes of each template that is named, and starts with none that there is not', LIMIT, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bt-templates-'));
    const templates = join(folder, 'templates.json');
    writeFileSync(
      templates,
      JSON.stringify({ wide: { viewport: { width: 1600, height: 600 }, metadata: { of: 'wide' } } }),
    );
    const sizes = { ...env, BERTH_TEMPLATES: templates, BERTH_POOL_SIZE: 'default=0..1,wide=1' };
    let service: Service | undefined;
    try {
      await assert.rejects(
        startService({ env: { ...sizes, BERTH_POOL_SIZE: 'tall=1' } }),
        /BERTH_POOL_SIZE: no template is called "tall"/,
      );
      service = await startService({ env: sizes, apiKey: KEYS.a });
      const running = service;
      const waiting = (template: string) => metric(running, `berth_pool_ready{template="${template}"}`);
      await waitFor(async () => (await waiting('wide')) === 1, 'the wide one', 60_000);
      assert.equal(await waiting('default'), 0, 'nobody has asked for one');
      const { viewport, metadata } = await service.client.create({ templateName: 'wide' });
      assert.deepEqual([viewport, metadata], [{ width: 1600, height: 600 }, { of: 'wide' }]);
      assert.equal(await metric(service, 'berth_pool_claims_total{template="wide",outcome="warm"}'), 1);
      await service.client.create();
      await waitFor(async () => (await waiting('default')) === 1, 'one, since it is in demand', 60_000);
      await service.stop();
    } finally {
      await service?.clean();
      rmSync(folder, { recursive: true });
    }
  });

  it('makes room for creates where there is none for both', LIMIT, async () => {
    const service = await startService({ env: { ...env, BERTH_MAX_SANDBOXES: '2' }, apiKey: KEYS.a });
    try {
      await filled(service, 2);
      const viewport = { width: 800, height: 600 };
      const [one, two] = await Promise.all([service.client.create({ viewport }), service.client.create({ viewport })]);
      await assert.rejects(service.client.create(), /BERTH_MAX_SANDBOXES/);
      assert.equal(await metric(service, 'berth_pool_ready{template="default"}'), 0);
      await Promise.all([one, two].map(({ sandboxId }) => service.client.delete(sandboxId)));
      await filled(service, 2);
      await service.stop();
    } finally {
      await service.clean();
    }
  });
});
