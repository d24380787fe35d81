import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';
import WebSocket from 'ws';
import type { Sandbox } from '../../src/client/client.ts';
import { secretOf } from '../../src/drivers/folders.ts';
import { docker, dockerSkip } from '../contract/engine.ts';
import { containerOf, inside } from './drivers.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { openSocket } from './sockets.ts';
import { probe } from './video.ts';

const skip = await dockerSkip();

/** A line that tries to connect from inside, for at most two seconds. */
function connecting(host: string, port: number): string {
  const script = `const s=require('net').connect(${port},'${host}');s.on('connect',()=>process.exit(0));s.on('error',()=>process.exit(1));setTimeout(()=>process.exit(1),2000)`;
  return `node -e "${script}"`;
}

describe('sandboxes in containers', { skip }, () => {
  let service: Service;
  let a: Sandbox;
  let b: Sandbox;
  before(async () => {
    service = await startService({ driver: 'docker' });
    [a, b] = await Promise.all([service.client.create({ recording: 'always' }), service.client.create()]);
  }, LIMIT);
  after(async () => {
    await service.end();
  }, LIMIT);

  it('are driven by Puppeteer and Playwright, watched and recorded like any other', LIMIT, async () => {
    const browser = await puppeteer.connect({ browserWSEndpoint: a.cdpUrl ?? '', defaultViewport: null });
    const page = await browser.newPage();
    await page.goto('data:text/html,<title>in a container</title><h1>hello</h1>');
    assert.equal(await page.title(), 'in a container');
    assert.equal((await page.evaluate(() => 'x'.repeat(30 * 1024 * 1024))).length, 30 * 1024 * 1024);
    await browser.disconnect();
    const playwright = await chromium.connectOverCDP(`${service.url}/sandboxes/${a.sandboxId}`);
    assert.equal(playwright.contexts().length, 1);
    await playwright.close();
    const viewer = new WebSocket(a.vncUrl ?? '');
    // Listened for at once: the server speaks first.
    const [banner] = (await once(viewer, 'message')) as [Buffer];
    assert.equal(banner.toString('latin1'), 'RFB 003.008\n');
    viewer.close();
    const [recording] = await service.client.recordings(a.sandboxId);
    assert.equal(recording?.status, 'recording');
    await service.client.http.POST('/sandboxes/{id}/recordings/stop', { params: { path: { id: a.sandboxId } } });
    const { frames, errors } = await probe(join(service.dataDir, 'recordings', a.sandboxId, recording?.filename ?? ''));
    assert.ok(frames > 0 && errors === '', errors);
  });

  it('have no capabilities, no new privileges, a seccomp filter, and a user that is not root', LIMIT, async () => {
    const { text } = await inside(a.sandboxId, 'id -u; grep -E "^(CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/1/status');
    assert.match(text, /^10001$/m);
    assert.match(text, /CapEff:\s+0000000000000000/);
    assert.match(text, /CapBnd:\s+0000000000000000/);
    assert.match(text, /NoNewPrivs:\s+1/);
    assert.match(text, /Seccomp:\s+2/);
  });

  it("keep Chromium's own sandbox on: its renderers live in namespaces of their own", LIMIT, async () => {
    const { text } = await inside(a.sandboxId, 'cat /proc/[0-9]*/cmdline | tr "\\0" " "');
    assert.ok(text.includes('--type=renderer'), 'there is a renderer');
    assert.ok(!text.includes('--no-sandbox'));
    // A process has a number in each pid namespace from the reader's inwards (proc(5), NSpid). [r]: not the shell that looks.
    const line =
      'for p in /proc/[0-9]*; do grep -q -e --type=[r]enderer $p/cmdline && grep NSpid $p/status; done; true';
    const levels = (await inside(a.sandboxId, line)).text.trim().split('\n');
    for (const one of levels) assert.match(one, /^NSpid:(\s+\d+){2,}$/);
  });

  it('can write nowhere but on their own tmpfs and mounts', LIMIT, async () => {
    for (const path of ['/x', '/usr/x', '/opt/berth/x', '/etc/x', '/home/x', '/var/x', '/var/tmp/x']) {
      const { ok, text } = await inside(a.sandboxId, `touch ${path}`);
      assert.ok(!ok && /Read-only|Permission|No such/.test(text), `${path}: ${text}`);
    }
    assert.ok((await inside(a.sandboxId, 'touch /tmp/x /sandbox/x')).ok);
  });

  it('see no process and no file of another, and no engine socket', LIMIT, async () => {
    const { text } = await inside(
      a.sandboxId,
      'cat /proc/[0-9]*/cmdline | tr "\\0" "\\n"; ls /var/run /run /recordings',
    );
    assert.ok(!text.includes(b.sandboxId));
    assert.ok(!text.includes('docker.sock'));
    const names = (await inside(a.sandboxId, 'ls /recordings')).text.trim().split('\n');
    for (const name of names) assert.ok(name.includes(a.sandboxId), name);
  });

  it('have no network: a loopback interface, no route, no DNS, and cannot ask the kernel for more', LIMIT, async () => {
    const info = await docker.getContainer(await containerOf(b.sandboxId)).inspect();
    assert.equal(info.HostConfig.NetworkMode, 'none');
    const { text } = await inside(a.sandboxId, 'tail -n +3 /proc/net/dev; tail -n +2 /proc/net/route');
    assert.match(text, /^\s*lo:.*\n$/, 'one interface, no route');
    const port = Number(new URL(service.url).port);
    for (const host of ['172.17.0.1', '169.254.169.254', '192.0.2.1', 'host.docker.internal', '127.0.0.1', '::1']) {
      assert.equal((await inside(a.sandboxId, connecting(host, port))).ok, false, host);
    }
    const netlink = `node -e "require('os').networkInterfaces()"`;
    assert.equal((await inside(a.sandboxId, netlink)).ok, false, 'netlink');
  });

  it(
    'publish no port, and their secret stands in no label, environment, command line or file they could read',
    LIMIT,
    async () => {
      const info = await docker.getContainer(await containerOf(a.sandboxId)).inspect();
      assert.deepEqual(
        Object.values(info.NetworkSettings.Ports ?? {})
          .flat()
          .filter(Boolean),
        [],
      );
      assert.equal(info.HostConfig.Privileged, false);
      assert.deepEqual(
        Object.keys(info.Config.Labels)
          .filter((l) => l.startsWith('berth.'))
          .sort(),
        ['berth.created', 'berth.id', 'berth.inputs', 'berth.owner', 'berth.runtime', 'berth.service', 'berth.spec'],
      );
      const secret = secretOf(readFileSync(join(service.dataDir, 'master.key')), a.sandboxId);
      const { text } = await inside(
        a.sandboxId,
        'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; cat /run/berth/* /sandbox/box/*',
      );
      assert.ok(text.includes('--type=renderer'), 'command lines were read');
      assert.ok(!`${JSON.stringify(info)}${text}${service.log()}`.includes(secret));
      assert.equal((await inside(a.sandboxId, 'cat /run/berth/runtime.json')).ok, false);
    },
  );

  it('tell their clients within two seconds when the container is removed by hand', LIMIT, async () => {
    const mine = await service.client.create();
    const client = await openSocket(mine.cdpUrl ?? '');
    const closed = new Promise<{ code: number; reason: string }>((resolve) =>
      client.once('close', (code, reason) => resolve({ code, reason: reason.toString() })),
    );
    const container = docker.getContainer(await containerOf(mine.sandboxId));
    // Podman's forced removal asks first, and the sandbox would end in order; and the service may remove it before we do.
    await container.kill();
    await container.remove({ force: true }).catch(() => {});
    const end = await closed;
    assert.equal(end.code, 1011);
    assert.notEqual(end.reason, '');
    await waitFor(async () => (await service.client.get(mine.sandboxId)).status === 'FAILED', 'it to be FAILED');
    assert.match(
      (await service.client.get(mine.sandboxId)).endedReason ?? '',
      /^failed: the container (was removed|ended with code 137)/,
    );
    assert.equal((await service.client.get(b.sandboxId)).status, 'READY', 'its neighbour does not notice');
  });
});

describe('a service with containers that is killed', { skip }, () => {
  it('finds them again by their labels, with their clocks, and leaves those of others alone', LIMIT, async () => {
    const stranger = await docker.createContainer({
      Image: 'berth-runtime',
      Entrypoint: ['sleep', '120'],
      HostConfig: { NetworkMode: 'none' },
    });
    await stranger.start();
    const first = await startService({ driver: 'docker' });
    let second: Service | undefined;
    try {
      const sandbox = await first.client.create({ recording: 'always' });
      await first.kill();
      second = await startService({ on: first });
      const found = await second.client.get(sandbox.sandboxId);
      assert.equal(found.status, 'READY');
      assert.ok(Math.abs(Date.parse(found.expiresAt) - Date.parse(sandbox.expiresAt)) < 1000);
      const browser = await puppeteer.connect({ browserWSEndpoint: found.cdpUrl ?? '' });
      await browser.disconnect();
      assert.equal((await second.client.recordings(sandbox.sandboxId)).length, 1);
      await second.stop();
      assert.equal((await stranger.inspect()).State.Running, true);
    } finally {
      await second?.clean();
      await first.clean();
      await stranger.remove({ force: true });
    }
  });
});

describe('a service that cannot have containers', { skip }, () => {
  const refusals: [string, Record<string, string>, RegExp][] = [
    [
      'no engine answers',
      { BERTH_DOCKER_SOCKET: '/nowhere/docker.sock' },
      /No container engine answers at \/nowhere\/docker\.sock/,
    ],
    [
      'the image is missing',
      { BERTH_RUNTIME_IMAGE: 'berth-nowhere' },
      /The image berth-nowhere is missing: build it with npm run images/,
    ],
    ['the image has no runtime', { BERTH_RUNTIME_IMAGE: 'debian:trixie-slim' }, /has no Berth runtime in it/],
  ];
  for (const [what, env, sentence] of refusals) {
    it(`says so at its start when ${what}`, LIMIT, async () => {
      await assert.rejects(startService({ driver: 'docker', env }), sentence);
    });
  }
});

describe('a container at its memory limit', { skip }, () => {
  it('costs the page or the sandbox, which says why, and never a neighbour', LIMIT, async () => {
    const service = await startService({ driver: 'docker', env: { BERTH_SANDBOX_MEMORY_MB: '512' } });
    try {
      const [greedy, neighbour] = await Promise.all([service.client.create(), service.client.create()]);
      const browser = await puppeteer.connect({ browserWSEndpoint: greedy.cdpUrl ?? '' });
      const page = await browser.newPage();
      // Resolves or rejects when the tab is gone; a renderer that the kernel killed answers nothing.
      const eaten = page.evaluate(() => {
        const kept: ArrayBuffer[] = [];
        for (;;) {
          const part = new Uint8Array(16 * 1024 * 1024).fill(1);
          kept.push(part.buffer);
        }
      });
      const crashed = new Promise((resolve) => page.once('error', resolve));
      const gone = new Promise((resolve) => browser.once('disconnected', resolve));
      await Promise.race([eaten.catch(() => {}), crashed, gone]);
      const after = await service.client.get(greedy.sandboxId);
      if (after.endedReason) assert.match(after.endedReason, /out of memory/);
      assert.equal((await service.client.get(neighbour.sandboxId)).status, 'READY');
      await browser.disconnect().catch(() => {});
      await service.stop();
    } finally {
      await service.clean();
    }
  });
});
