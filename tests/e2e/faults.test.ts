import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { appendFileSync, chmodSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { envWithBrowser, signalPart } from './drivers.ts';
import { assertNothingLeft, LIMIT, SERVER, type Service, waitFor, withService } from './service.ts';
import { Raw } from './sockets.ts';
import { onTape, probe } from './video.ts';

describe('a sandbox that never gets READY', () => {
  it('fails at its deadline with the last words of what hangs, and nothing of it stays', LIMIT, async () => {
    const env = { ...(await envWithBrowser('echo "still looking for my keys" >&2; exec sleep 600')) };
    await withService({ env: { ...env, BERTH_START_TIMEOUT_SECONDS: '15' } }, async (service) => {
      const since = performance.now();
      await assert.rejects(
        service.client.create({ sandboxId: 'late', recording: 'always' }),
        /Chromium did not get ready in time: still looking for my keys/,
      );
      assert.ok(performance.now() - since >= 14_900, 'not before its deadline');
      await assertNothingLeft(service);
      const { status, endedReason } = await service.client.get('late');
      assert.equal(status, 'FAILED');
      assert.match(endedReason ?? '', /^failed: Chromium did not get ready in time/);
    });
  });
});

describe('a sandbox that is stopped from outside', () => {
  it('says so, and its recording is whole', LIMIT, async () => {
    await withService({}, async (service) => {
      const { sandboxId } = await service.client.create({ recording: 'always' });
      await signalPart(service, sandboxId, 'runtime', 'SIGTERM');
      await waitFor(async () => (await service.client.get(sandboxId)).endedAt !== undefined, 'it to end');
      const { status, endedReason } = await service.client.get(sandboxId);
      assert.deepEqual([status, endedReason], ['FAILED', 'failed: it was stopped from outside (SIGTERM)']);
      const recordings = await service.client.recordings(sandboxId);
      assert.deepEqual(
        recordings.map((recording) => recording.status),
        ['completed'],
      );
    });
  });
});

const skip = process.getuid?.() === 0 ? false : 'only root may mount the small disk that is to be full';

/** A service whose folders lie on a small disk, and the file that fills it. */
async function onSmallDisk(use: (service: Service, filler: string) => Promise<void>): Promise<void> {
  const disk = mountDisk('300m');
  try {
    await withService({ base: disk }, (service) => use(service, join(disk, 'filler')));
  } finally {
    unmountDisk(disk);
  }
}

const disks = new Set<string>();
// A case that ran into its limit does not come to its own end.
after(() => {
  for (const disk of disks) unmountDisk(disk);
});

function mountDisk(size: string): string {
  const disk = mkdtempSync(join(tmpdir(), 'bt-disk-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=0755`, 'tmpfs', disk]);
  disks.add(disk);
  return disk;
}

function unmountDisk(disk: string): void {
  disks.delete(disk);
  execFileSync('umount', ['--lazy', disk]);
  rmSync(disk, { recursive: true, force: true });
}

/** Until there is no room for another byte: the running browser writes, too. */
function fill(filler: string): void {
  assert.throws(() => appendFileSync(filler, Buffer.alloc(300 * 1024 * 1024)), /ENOSPC/);
}

describe('a full disk', { skip }, () => {
  it(
    'refuses new sandboxes with the reason, leaves nothing of them, and is over when there is room',
    LIMIT,
    async () => {
      await onSmallDisk(async (service, filler) => {
        const running = await service.client.create();
        fill(filler);
        await assert.rejects(service.client.create({ sandboxId: 'no-room' }), /no space left|ENOSPC/);
        assert.equal((await service.client.get('no-room')).status, 'FAILED');
        assert.equal((await service.client.get(running.sandboxId)).status, 'READY', 'the one that runs goes on');
        rmSync(filler);
        await service.client.create({ sandboxId: 'no-room' });
      });
    },
  );

  it(
    'pauses a recording and nothing else, and what was recorded plays; it goes on when there is room',
    LIMIT,
    async () => {
      await onSmallDisk(async (service, filler) => {
        const { sandboxId, cdpUrl } = await service.client.create({ recording: 'always' });
        const recorder = async () => (await service.client.get(sandboxId)).recording;
        await onTape(service, sandboxId);
        const { sessionId } = await recorder();
        fill(filler);
        await waitFor(async () => (await recorder()).state === 'paused', 'the recorder to pause');
        assert.match((await recorder()).error ?? '', /^the disk is full: less than 64 MiB are left/);
        // Asking for what is so already changes nothing.
        const params = { path: { id: sandboxId } };
        await service.client.http.POST('/sandboxes/{id}/recordings/start', { params });
        const raw = await Raw.open(cdpUrl ?? '');
        assert.match((await raw.send('Browser.getVersion')).product, /^Chrome/);
        raw.socket.close();
        rmSync(filler);
        await waitFor(async () => (await recorder()).state === 'recording', 'the recorder to go on');
        assert.equal((await recorder()).sessionId, sessionId, 'as the same recording');
        await onTape(service, sandboxId);
        await service.client.delete(sandboxId);
        const recordings = await service.client.recordings(sandboxId);
        for (const { filename, size } of recordings) {
          if (size > 0) assert.ok((await probe(join(service.dataDir, 'recordings', sandboxId, filename))).frames > 0);
        }
        const whole = recordings.filter(({ size }) => size > 0);
        assert.ok(whole.length >= 2, JSON.stringify(recordings));
      });
    },
  );

  it('under the log of the service costs lines of the log, and no answer', LIMIT, async () => {
    const disk = mountDisk('1m');
    const log = join(disk, 'log');
    const base = mkdtempSync(join(tmpdir(), 'bt-'));
    chmodSync(base, 0o711);
    const output = openSync(log, 'a');
    const env = { BERTH_PORT: '0', BERTH_DATA_DIR: join(base, 'd'), BERTH_RUN_DIR: join(base, 'r') };
    const child = spawn(process.execPath, [SERVER], {
      env: { PATH: process.env.PATH, ...env },
      stdio: ['ignore', output, output],
    });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    try {
      const url = () => /"url":"([^"]+)"/.exec(readFileSync(log, 'utf8'))?.[1] ?? '';
      await waitFor(
        () => url() !== '',
        () => `the service to serve: ${readFileSync(log, 'utf8')}`,
      );
      const service = url();
      assert.throws(() => appendFileSync(join(disk, 'filler'), Buffer.alloc(1024 * 1024)), /ENOSPC/);
      // More than what was left of the log's last block.
      for (let i = 0; i < 50; i++) {
        const answer = await fetch(`${service}/sandboxes`, { signal: AbortSignal.timeout(LIMIT.timeout) });
        assert.equal(answer.status, 200);
        await answer.body?.cancel();
      }
      rmSync(join(disk, 'filler'));
      const before = readFileSync(log).length;
      await fetch(`${service}/sandboxes`, { signal: AbortSignal.timeout(LIMIT.timeout) });
      await waitFor(() => readFileSync(log).length > before, 'the log to go on');
    } finally {
      child.kill('SIGTERM');
      await ended;
      closeSync(output);
      unmountDisk(disk);
      rmSync(base, { recursive: true, force: true });
    }
  });
});
