import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { envWithBrowser, signalPart } from './drivers.ts';
import { assertNothingLeft, waitFor, withService } from './service.ts';

/** Far above what any case takes, so that a hang fails the case and not the whole run. */
const LIMIT = { timeout: 60_000 };

describe('a sandbox that never gets READY', () => {
  it('fails at its deadline with the last words of what hangs, and nothing of it stays', LIMIT, async () => {
    const env = { ...(await envWithBrowser('echo "still looking for my keys" >&2; exec sleep 600')) };
    await withService({ env: { ...env, BERTH_START_TIMEOUT_SECONDS: '5' } }, async (service) => {
      const since = performance.now();
      await assert.rejects(
        service.client.create({ sandboxId: 'late', recording: 'always' }),
        /Chromium did not get ready in time: still looking for my keys/,
      );
      assert.ok(performance.now() - since >= 4900, 'not before its deadline');
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

describe('a full disk', { skip }, () => {
  it(
    'refuses new sandboxes with the reason, leaves nothing of them, and is over when there is room',
    LIMIT,
    async () => {
      const disk = mkdtempSync(join(tmpdir(), 'bt-disk-'));
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=200m,mode=0755', 'tmpfs', disk]);
      try {
        await withService({ base: disk }, async (service) => {
          const running = await service.client.create();
          const filler = join(disk, 'filler');
          // Until it is full: the running browser writes, too.
          assert.throws(() => appendFileSync(filler, Buffer.alloc(200 * 1024 * 1024)), /ENOSPC/);
          await assert.rejects(service.client.create({ sandboxId: 'no-room' }), /no space left|ENOSPC/);
          assert.equal((await service.client.get('no-room')).status, 'FAILED');
          assert.equal((await service.client.get(running.sandboxId)).status, 'READY', 'the one that runs goes on');
          rmSync(filler);
          await service.client.create({ sandboxId: 'no-room' });
        });
      } finally {
        execFileSync('umount', ['--lazy', disk]);
        rmSync(disk, { recursive: true, force: true });
      }
    },
  );
});
