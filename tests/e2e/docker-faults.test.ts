import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import puppeteer from 'puppeteer-core';
import { docker, dockerSkip } from '../contract/engine.ts';
import { EngineProxy } from '../contract/engine-proxy.ts';
import { containerOf, containersLeft, envWithFile, inside } from './drivers.ts';
import { assertNothingLeft, LIMIT, type Service, startService, waitFor, withService } from './service.ts';

const skip = await dockerSkip();
const RUNTIME = '/opt/berth/runtime.mjs';

async function endOf(service: Service, id: string): Promise<string> {
  await waitFor(async () => (await service.client.get(id)).endedAt !== undefined, `${id} to end`);
  return (await service.client.get(id)).endedReason ?? '';
}

/** That the browser of a sandbox works. */
async function assertBrowses(service: Service, id: string): Promise<void> {
  const browser = await puppeteer.connect({ browserWSEndpoint: (await service.client.get(id)).cdpUrl ?? '' });
  const page = await browser.newPage();
  assert.equal(await page.evaluate('6 * 7'), 42);
  await page.close();
  await browser.disconnect();
}

describe('a container whose runtime', { skip }, () => {
  for (const [what, program, sentence] of [
    ['ends at its start', 'console.error("no legs"); process.exit(3)', /the container ended with code 3: .*no legs/],
    [
      'never answers',
      'console.error("thinking"); setInterval(() => {}, 1000)',
      /its runtime did not answer: .*thinking/,
    ],
  ] as const) {
    it(`${what} is removed, and the error has its last words`, LIMIT, async () => {
      const env = await envWithFile(RUNTIME, program);
      await withService({ driver: 'docker', env: { ...env, BERTH_START_TIMEOUT_SECONDS: '5' } }, async (service) => {
        await assert.rejects(service.client.create({ sandboxId: 'dumb' }), sentence);
        assert.match((await service.client.get('dumb')).endedReason ?? '', sentence);
        await assertNothingLeft(service);
      });
    });
  }
});

describe('a container at its limits', { skip }, () => {
  let service: Service;
  before(async () => {
    const limits = { BERTH_SANDBOX_MEMORY_MB: '512', BERTH_SANDBOX_PIDS: '400' };
    service = await startService({ driver: 'docker', env: limits });
    await service.client.create({ sandboxId: 'neighbour' });
  }, LIMIT);
  after(async () => {
    await service.end();
  }, LIMIT);

  it(
    'of memory, filled by what lies in its files, ends and says so; its neighbour does not notice',
    LIMIT,
    async () => {
      await service.client.create({ sandboxId: 'full', recording: 'always' });
      // What lies on a tmpfs cannot be swapped or freed: every kill makes room only for the next bite.
      void inside('full', 'while :; do head -c 16000000 /dev/zero >>/sandbox/filler; done');
      assert.match(await endOf(service, 'full'), /^failed: out of memory/);
      await assertBrowses(service, 'neighbour');
    },
  );

  it('of processes cannot be broken out of by a fork bomb; its neighbour does not notice', LIMIT, async () => {
    await service.client.create({ sandboxId: 'bomb' });
    // A bomb of shells would end by itself: each gives up at its first failure.
    const more = `for (let i = 0; i < 20; i++) spawn('sleep', ['60'], { stdio: 'ignore' }).on('error', () => {})`;
    void inside('bomb', `node -e "const { spawn } = require('child_process'); setInterval(() => { ${more} }, 10)"`);
    const container = docker.getContainer(await containerOf('bomb'));
    // Threads count, too. While the bomb goes off the engine may find nothing to list.
    let most = 0;
    await waitFor(async () => {
      const { Processes } = (await container.top({ ps_args: '-eLo pid,lwp' })) as { Processes: string[][] | null };
      most = Math.max(most, Processes?.length ?? 0);
      return most >= 390;
    }, 'the bomb to fill its container');
    assert.ok(most <= 400, `${most} tasks`);
    await assertBrowses(service, 'neighbour');
    await service.client.create({ sandboxId: 'after' });
    await service.client.delete('after');
    await service.client.delete('bomb');
    assert.equal(await containerOf('bomb'), '');
  });
});

describe('an engine that fails', { skip }, () => {
  let service: Service;
  let engine: EngineProxy;
  const folder = mkdtempSync(join(tmpdir(), 'bt-engine-'));
  before(async () => {
    engine = new EngineProxy(join(folder, 'engine.sock'));
    await engine.up();
    service = await startService({ driver: 'docker', env: { BERTH_DOCKER_SOCKET: engine.socket } });
  }, LIMIT);
  after(async () => {
    await service.end();
    engine.down();
    rmSync(folder, { recursive: true, force: true });
  }, LIMIT);

  const ready = async (): Promise<number> => (await fetch(`${service.url}/readyz`)).status;

  for (const [step, method, path] of [
    ['making the container', 'POST', /\/containers\/create/],
    ['starting it', 'POST', /\/containers\/[^/]+\/start/],
  ] as const) {
    it(`for want of room while ${step} costs that sandbox alone, with the engine's own words`, LIMIT, async () => {
      engine.fault = { method, path, status: 500, message: 'write /var/lib/layer: no space left on device' };
      await assert.rejects(service.client.create({ sandboxId: 'poor' }), /no space left on device/);
      assert.equal(engine.fault, undefined, 'the fault was met');
      assert.match((await service.client.get('poor')).endedReason ?? '', /^failed: .*no space left on device/);
      await assertNothingLeft(service);
    });
  }

  it('goes away and comes back: sandboxes work on, what ended meanwhile is removed then', LIMIT, async () => {
    const [stays, ends] = await Promise.all([service.client.create(), service.client.create()]);
    engine.down();
    assert.equal(await ready(), 503);
    await assert.rejects(service.client.create({ sandboxId: 'not-now' }), /ECONNREFUSED|ENOENT/);
    await assertBrowses(service, stays.sandboxId);
    assert.equal((await service.client.delete(ends.sandboxId)).endedReason, 'deleted');
    assert.equal((await containersLeft(service)).length, 2, 'nobody could remove it');
    await engine.up();
    assert.equal(await ready(), 200);
    await waitFor(async () => (await containersLeft(service)).length === 1, 'the ended one to be removed');
    await assertBrowses(service, stays.sandboxId);
    await service.client.create({ sandboxId: 'not-now' });
    await service.client.delete('not-now');
    await service.client.delete(stays.sandboxId);
    await assertNothingLeft(service);
  });
});
