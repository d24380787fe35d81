import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';
import WebSocket from 'ws';
import type { Sandbox } from '../../src/client/client.ts';
import { folderOf } from '../../src/drivers/folders.ts';
import { runningIn, signalPart } from './drivers.ts';
import { assertNothingLeft, type Service, startService, waitFor } from './service.ts';
import { onTape } from './video.ts';

async function endedOf(service: Service, id: string): Promise<Sandbox> {
  await waitFor(async () => (await service.client.get(id)).endedAt !== undefined, `sandbox ${id} to end`);
  return service.client.get(id);
}

/** That it ended by this clock: not before it, and not at some later look at everything. */
function assertEndedAt(sandbox: Sandbox, deadline: string | undefined): void {
  const late = Date.parse(sandbox.endedAt ?? '') - Date.parse(deadline ?? '');
  assert.ok(late > -1000 && late < 20_000, `${late} ms late`);
}

/** Has it live so many seconds from now, however long its start took. */
async function expireIn(service: Service, { sandboxId, createdAt }: Sandbox, seconds: number): Promise<Sandbox> {
  const maxLifetimeSeconds = Math.ceil((Date.now() - Date.parse(createdAt)) / 1000) + seconds;
  const asked = { params: { path: { id: sandboxId } }, body: { maxLifetimeSeconds } };
  const { data } = await service.client.http.PATCH('/sandboxes/{id}', asked);
  return data?.data ?? assert.fail('it could not be changed');
}

const past = (time: string | undefined, ms: number): boolean => Date.now() > Date.parse(time ?? '') + ms;

function socket(url: string | undefined): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url ?? '', { perMessageDeflate: false });
    ws.once('open', () => resolve(ws));
    ws.once('error', reject);
  });
}

function closed(ws: WebSocket): Promise<{ code: number; reason: string }> {
  return new Promise((resolve) => ws.once('close', (code, reason) => resolve({ code, reason: reason.toString() })));
}

describe('the clocks of a sandbox', () => {
  let service: Service;
  before(async () => {
    service = await startService();
  });
  after(async () => {
    await service.end();
  });

  it('end an idle one at its deadline, and tell its client why', async () => {
    const sandbox = await service.client.create({ sandboxIdleTimeoutSeconds: 4 });
    const ws = await socket(sandbox.cdpUrl);
    const end = closed(ws);
    const { idleDeadline } = await service.client.get(sandbox.sandboxId);
    assert.deepEqual(await end, { code: 1001, reason: 'sandbox ended: idle_timeout' });
    const ended = await endedOf(service, sandbox.sandboxId);
    assert.equal(ended.status, 'TERMINATED');
    assert.equal(ended.endedReason, 'idle_timeout');
    assertEndedAt(ended, idleDeadline);
  });

  it('let messages of a client prolong it, but not messages of the browser', async () => {
    const sandbox = await service.client.create({ sandboxIdleTimeoutSeconds: 6 });
    const ws = await socket(sandbox.cdpUrl);
    const { idleDeadline } = await service.client.get(sandbox.sandboxId);
    for (let i = 0; !past(idleDeadline, 1500); i++) {
      ws.send(`{"id":${i},"method":"Browser.getVersion"}`);
      await sleep(500);
    }
    assert.equal((await service.client.get(sandbox.sandboxId)).status, 'READY', 'messages kept it alive');
    // From here on only the browser talks: a page that logs twice a second.
    const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl ?? '' });
    const page = await browser.newPage();
    let lines = 0;
    page.on('console', () => lines++);
    await page.evaluate(() => void setInterval(() => console.log('tick'), 500));
    const ended = await endedOf(service, sandbox.sandboxId);
    assert.equal(ended.endedReason, 'idle_timeout');
    assert.ok(lines > 1, 'the browser did talk');
    ws.terminate();
  });

  it('keep it while a viewer is attached, and count from the moment the viewer leaves', async () => {
    const sandbox = await service.client.create({ sandboxIdleTimeoutSeconds: 4 });
    const ws = await socket(sandbox.vncUrl);
    while (!past(sandbox.idleDeadline, 1500)) await sleep(200);
    const watched = await service.client.get(sandbox.sandboxId);
    assert.equal(watched.status, 'READY');
    assert.equal(watched.viewers, 1);
    assert.equal(watched.idleDeadline, undefined);
    ws.close();
    assert.equal((await endedOf(service, sandbox.sandboxId)).endedReason, 'idle_timeout');
  });

  it('end it at its maximum lifetime though client and viewer are busy', async () => {
    const sandbox = await service.client.create();
    const ws = await socket(sandbox.cdpUrl);
    const viewer = await socket(sandbox.vncUrl);
    const chatter = setInterval(() => ws.send('{"id":1,"method":"Browser.getVersion"}'), 200);
    const closes = Promise.all([closed(ws), closed(viewer)]);
    const { expiresAt } = await expireIn(service, sandbox, 3);
    const ends = await closes;
    clearInterval(chatter);
    for (const end of ends) assert.deepEqual(end, { code: 1001, reason: 'sandbox ended: max_lifetime' });
    const ended = await endedOf(service, sandbox.sandboxId);
    assert.equal(ended.endedReason, 'max_lifetime');
    assertEndedAt(ended, expiresAt);
  });

  it('finish the recording of a sandbox that ends by itself', async () => {
    const sandbox = await service.client.create({ recording: 'always' });
    await onTape(service, sandbox.sandboxId);
    await expireIn(service, sandbox, 1);
    await endedOf(service, sandbox.sandboxId);
    const recordings = await service.client.recordings(sandbox.sandboxId);
    assert.equal(recordings.length, 1);
    assert.equal(recordings[0]?.status, 'completed');
    const file = readFileSync(join(service.dataDir, 'recordings', sandbox.sandboxId, recordings[0]?.filename ?? ''));
    // Matroska's Duration element: written only when ffmpeg was allowed to finish (matroska.org, element 0x4489).
    assert.ok(file.includes(Buffer.from([0x44, 0x89])), 'the file has a duration');
  });
});

describe('a service that is killed', () => {
  it('takes no sandbox along: they are found again, with their clocks, clients come back, and the next end is clean', async () => {
    const first = await startService();
    let second: Service | undefined;
    try {
      const sandbox = await first.client.create({ recording: 'always', metadata: { k: 'v' } });
      const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl ?? '' });
      const page = await browser.newPage();
      await page.goto('data:text/html,<title>still here</title>');
      const lost = new Promise((resolve) => browser.once('disconnected', resolve));
      await first.kill();
      await lost;
      assert.ok((await runningIn(first)).length > 0, 'the sandbox lives on');
      second = await startService({ on: first });
      const found = await second.client.get(sandbox.sandboxId);
      assert.equal(found.status, 'READY');
      assert.equal(found.createdAt, sandbox.createdAt);
      assert.ok(
        Math.abs(Date.parse(found.expiresAt) - Date.parse(sandbox.expiresAt)) < 1000,
        'its lifetime did not start anew',
      );
      assert.deepEqual(found.metadata, { k: 'v' });
      assert.equal(found.recording.state, 'recording');
      const again = await puppeteer.connect({ browserWSEndpoint: found.cdpUrl ?? '' });
      const titles = await Promise.all((await again.pages()).map((p) => p.title()));
      assert.ok(titles.includes('still here'), `pages: ${titles}`);
      await again.disconnect();
      assert.equal((await second.client.recordings(sandbox.sandboxId)).length, 1);
      await second.stop();
    } finally {
      await second?.clean();
      await first.clean();
    }
  });

  it('is not needed: an idle and an expired sandbox end on time without it, and the next service knows why', async () => {
    const first = await startService();
    let second: Service | undefined;
    try {
      const [idle, expired] = await Promise.all([
        first.client.create({ sandboxIdleTimeoutSeconds: 2 }),
        first.client.create({ maxLifetimeSeconds: 20 }),
      ]);
      await first.kill();
      await waitFor(async () => (await runningIn(first)).length === 0, 'both to end');
      // A container that has ended is removed by the next service; it has the last word of its runtime until then.
      if (first.driver === 'local') await assertNothingLeft(first);
      second = await startService({ on: first });
      const [idleEnd, expiredEnd] = await Promise.all([
        second.client.get(idle.sandboxId),
        second.client.get(expired.sandboxId),
      ]);
      assert.equal(idleEnd.endedReason, 'idle_timeout');
      assertEndedAt(idleEnd, idle.idleDeadline);
      assert.equal(expiredEnd.endedReason, 'max_lifetime');
      assertEndedAt(expiredEnd, expired.expiresAt);
      const words = join(first.dataDir, 'ended');
      assert.deepEqual(existsSync(words) ? readdirSync(words) : [], [], 'no word left over');
      await second.stop();
    } finally {
      await second?.clean();
      await first.clean();
    }
  });

  it('and whose runtime was killed too leaves nothing once the next service has started', async () => {
    const first = await startService();
    let second: Service | undefined;
    try {
      const sandbox = await first.client.create({ recording: 'always' });
      await first.kill();
      await signalPart(first, sandbox.sandboxId, 'runtime');
      second = await startService({ on: first });
      await assertNothingLeft(second);
      const found = await second.client.get(sandbox.sandboxId);
      assert.equal(found.status, 'FAILED');
      assert.match(found.endedReason ?? '', /^failed: the (runtime was gone|container ended with code 137)/);
      assert.equal((await second.client.recordings(sandbox.sandboxId))[0]?.status, 'completed');
      await second.stop();
    } finally {
      await second?.clean();
      await first.clean();
    }
  });
});

describe('a runtime that is killed', () => {
  it('ends its sandbox as FAILED, tells its clients, and leaves nothing', async () => {
    const service = await startService();
    try {
      const sandbox = await service.client.create({ recording: 'always' });
      const other = await service.client.create();
      const ws = await socket(sandbox.cdpUrl);
      const end = closed(ws);
      const dir = folderOf(service.runDir, sandbox.sandboxId);
      assert.ok(existsSync(dir));
      await signalPart(service, sandbox.sandboxId, 'runtime');
      assert.equal((await end).code, 1011);
      const ended = await endedOf(service, sandbox.sandboxId);
      assert.equal(ended.status, 'FAILED');
      assert.match(ended.endedReason ?? '', /^failed: /);
      await waitFor(() => !existsSync(dir), 'its folder to go');
      assert.equal((await service.client.get(other.sandboxId)).status, 'READY', 'its neighbour does not notice');
      await service.stop();
    } finally {
      await service.clean();
    }
  });
});

describe('a service that is asked to end', () => {
  it('with BERTH_ON_EXIT=keep leaves its sandboxes to the next one', async () => {
    const first = await startService({ env: { BERTH_ON_EXIT: 'keep' } });
    let second: Service | undefined;
    try {
      const sandbox = await first.client.create();
      const ws = await socket(sandbox.cdpUrl);
      const end = closed(ws);
      first.process.kill('SIGTERM');
      assert.equal((await end).code, 1001);
      await waitFor(() => first.process.exitCode === 0, 'the service to end');
      second = await startService({ on: first });
      assert.equal((await second.client.get(sandbox.sandboxId)).status, 'READY');
      await second.stop();
    } finally {
      await second?.clean();
      await first.clean();
    }
  });

  it('admits nobody and says so while it ends, and a second signal does not wait', async () => {
    const first = await startService({ env: { BERTH_ON_EXIT: 'stop' } });
    let second: Service | undefined;
    try {
      const { sandboxId } = await first.client.create({ recording: 'always' });
      assert.equal((await fetch(`${first.url}/readyz`)).status, 200);
      // The recording cannot be finished now, so the end takes its twelve seconds.
      await signalPart(first, sandboxId, 'ffmpeg', 'SIGSTOP');
      first.process.kill('SIGTERM');
      await waitFor(async () => (await fetch(`${first.url}/readyz`)).status === 503, 'it to be no more ready');
      assert.equal((await fetch(`${first.url}/health`)).status, 200);
      await assert.rejects(first.client.create(), /shutting down/);
      first.process.kill('SIGTERM');
      await waitFor(() => first.process.exitCode !== null, 'the service to end');
      assert.equal(first.process.exitCode, 130, 'not the 0 of one that waited');
      second = await startService({ on: first });
      const left = second.client;
      await waitFor(async () => (await left.get(sandboxId)).endedAt !== undefined, 'the sandbox to end');
      assert.equal((await left.get(sandboxId)).endedReason, 'service_stopped');
      await second.stop();
    } finally {
      await second?.clean();
      await first.clean();
    }
  });
});
