import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { dockerSkip, ENGINE_SOCKET, docker as engine, RUNTIME_IMAGE } from '../contract/engine.ts';
import { Place } from './cli.ts';
import { LIMIT, startService } from './service.ts';

const KEY = 'key-of-the-admin-0123456789';
const skip = await dockerSkip();

describe('berth doctor', { timeout: 2 * LIMIT.timeout }, () => {
  const place = new Place();
  after(() => place.remove());
  const env = (): Record<string, string> => ({ BERTH_DATA_DIR: join(place.folder, 'd'), BERTH_PORT: '0' });
  interface Report {
    ok: boolean;
    findings: { check: string; status: string; message: string; fix?: string }[];
  }

  it('looks at everything on this machine, really makes a sandbox, and leaves nothing', async () => {
    // Of its own, for another file's doctor may be at work at the same time.
    const TMPDIR = mkdtempSync(join(tmpdir(), 'bt-'));
    chmodSync(TMPDIR, 0o711);
    after(() => rmSync(TMPDIR, { recursive: true }));
    const { stdout, code, stderr } = await place.run(['doctor'], { ...env(), TMPDIR });
    assert.equal(code, 0, stdout + stderr);
    for (const check of ['Node', 'Settings', 'Packages', 'Port', 'Disk', 'Memory', 'Trial']) {
      assert.match(stdout, new RegExp(`^(ok|warning) +${check} +\\S`, 'm'));
    }
    assert.match(stdout, /Trial +a sandbox was ready in [\d.]+ s; its screenshot has \d+x\d+ pixels/);
    assert.deepEqual(readdirSync(TMPDIR), []);
    assert.ok(!existsSync(join(place.folder, 'd')));
  });

  it('says what is missing and what to do about it', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => taken.once('listening', resolve));
    const port = String((taken.address() as AddressInfo).port);
    const bare = join(place.folder, 'bare');
    mkdirSync(bare);
    symlinkSync(process.execPath, join(bare, 'node'));
    try {
      const { stdout, code, stderr } = await place.run(['doctor', '--json', '--no-trial'], {
        ...env(),
        BERTH_PORT: port,
        PATH: bare,
      });
      assert.equal(code, 1);
      assert.match(stderr, /^berth: \d of \d checks failed; do what they say/);
      const report = JSON.parse(stdout) as Report;
      assert.equal(report.ok, false);
      const by = (check: string) => report.findings.find((finding) => finding.check === check);
      assert.match(by('Packages')?.message ?? '', /Xvfb, openbox, X0tigervnc, ffmpeg, ffprobe, setpriv/);
      assert.match(by('Packages')?.fix ?? '', /apt-get install .*xvfb openbox tigervnc-scraping-server ffmpeg/);
      assert.match(by('Port')?.message ?? '', /taken by another program/);
    } finally {
      taken.close();
    }
    const docker = await place.run(['doctor', '--no-trial'], {
      ...env(),
      BERTH_DRIVER: 'docker',
      BERTH_DOCKER_SOCKET: '/nowhere.sock',
    });
    assert.equal(docker.code, 1);
    assert.match(
      docker.stdout,
      /failed +Engine +No container engine answers at \/nowhere\.sock \(ENOENT\)\.\n +To do: .*BERTH_DOCKER_SOCKET/,
    );
    const setting = await place.run(['doctor'], { ...env(), BERTH_DRIVER: 'magic' });
    assert.equal(setting.code, 1);
    assert.match(setting.stdout, /failed +Settings +BERTH_DRIVER/);
    // The service starts, and no sandbox does.
    const chromium = await place.run(['doctor', '--json'], { ...env(), BERTH_CHROMIUM: '/bin/false' });
    const trial = (JSON.parse(chromium.stdout) as Report).findings.find(({ check }) => check === 'Trial');
    assert.equal(trial?.status, 'failed');
    assert.match(trial?.message ?? '', /browser|Chromium|start/i);
  });

  it('makes its sandbox in a container where the settings say so, and leaves none', { skip }, async () => {
    const docker = { BERTH_DRIVER: 'docker', BERTH_DOCKER_SOCKET: ENGINE_SOCKET, BERTH_RUNTIME_IMAGE: RUNTIME_IMAGE };
    const running = place.start(['doctor', '--json'], { ...env(), ...docker });
    const { stdout, code, stderr } = await running.ended;
    assert.equal(code, 0, stdout + stderr);
    const checks = (JSON.parse(stdout) as Report).findings.map(({ check }) => check);
    for (const check of ['Engine', 'Image', 'Trial']) assert.ok(checks.includes(check), `${check} in ${checks}`);
    const network = `berth-doctor-${running.child.pid}`;
    assert.deepEqual(
      (await engine.listNetworks()).filter(({ Name }) => Name.startsWith(network)),
      [],
    );
    const missing = await place.run(['doctor', '--no-trial'], {
      ...env(),
      ...docker,
      BERTH_RUNTIME_IMAGE: 'no-such-image',
    });
    assert.equal(missing.code, 1);
    assert.match(
      missing.stdout,
      /failed +Image +The image no-such-image is missing\.\n +To do: Build it with: npm run images/,
    );
  });

  it('looks at a service that runs, over its API', async () => {
    const service = await startService({ apiKey: KEY, env: { BERTH_API_KEYS: `ops:${KEY}:admin` } });
    try {
      const good = await place.run(['doctor', '--service', '--json'], { BERTH_URL: service.url, BERTH_API_KEY: KEY });
      const report = JSON.parse(good.stdout) as Report;
      assert.deepEqual(
        report.findings.map(({ check, status }) => `${check} ${status}`),
        ['Service ok', 'Key ok', 'Trial ok'],
      );
      assert.deepEqual((await service.client.list('READY')).length, 0);
      const bad = await place.run(['doctor', '--service'], { BERTH_URL: service.url, BERTH_API_KEY: 'wrong-key' });
      assert.equal(bad.code, 1);
      assert.match(bad.stdout, /failed +Key .*not known/);
    } finally {
      await service.end();
    }
    const gone = await place.run(['doctor', '--service'], { BERTH_URL: service.url });
    assert.match(gone.stdout, /failed +Service +Nothing answers/);
  });
});
