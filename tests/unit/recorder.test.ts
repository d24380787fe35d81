import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RuntimeConfig } from '../../src/core/contracts.ts';
import { DEFAULTS } from '../../src/core/sandbox.ts';
import { Recorder } from '../../src/runtime/recorder.ts';

const dir = mkdtempSync(join(tmpdir(), 'berth-recorder-'));
after(() => rmSync(dir, { recursive: true }));
const LIMIT = { timeout: 30_000 };

/** Of a screen that is not there, so that each ffmpeg ends at once. */
function recorderIn(recordingsDir: string): Recorder {
  const spec = { id: 'x', owner: '', templateName: 'default', createdAt: 1, ...DEFAULTS, metadata: {} };
  return new Recorder({ spec, dir, recordingsDir } as unknown as RuntimeConfig, 64_999, () => {});
}

describe('Recorder', () => {
  it('starts no ffmpeg any more when it is stopped while one is being started again', LIMIT, async () => {
    let started = 0;
    const count = (): void => {
      started += 1;
    };
    subscribe('child_process', count);
    try {
      const recorder = recorderIn(join(dir, 'stopped'));
      await recorder.start();
      await recorder.stop();
      await sleep(200);
      assert.equal(started, 1);
    } finally {
      unsubscribe('child_process', count);
    }
  });

  it('says of a second start, too, that it failed', LIMIT, async () => {
    writeFileSync(join(dir, 'file'), '');
    const recorder = recorderIn(join(dir, 'file', 'folder'));
    await assert.rejects(recorder.start(), /ENOTDIR/);
    assert.equal(recorder.status.state, 'off');
    await assert.rejects(recorder.start(), /ENOTDIR/);
    await recorder.stop();
  });

  it('says that it records no more when it cannot go on after a cut', LIMIT, async () => {
    const folder = join(dir, 'cut');
    const recorder = recorderIn(folder);
    await recorder.start();
    rmSync(folder, { recursive: true });
    writeFileSync(folder, '');
    await assert.rejects(recorder.cut(), /EEXIST|ENOTDIR/);
    assert.equal(recorder.status.state, 'failed');
    await recorder.stop();
  });
});
