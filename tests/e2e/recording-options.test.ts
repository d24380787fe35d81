import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { CreateSandbox } from '../../src/client/client.ts';
import { LIMIT, type Service, startService } from './service.ts';
import { onTape, type Probe, pixels, probe } from './video.ts';

const VIEWPORT = { width: 801, height: 601 };

let folder: string;
let service: Service;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bt-options-'));
  chmodSync(folder, 0o711);
  const templates = join(folder, 'templates.json');
  const small = { recording: 'always', recordingScale: 0.5, recordingQuality: 'low', recordingFps: 5 };
  const metadata = { team: 'a', job: 'none' };
  writeFileSync(templates, JSON.stringify({ small: { ...small, viewport: VIEWPORT, metadata } }));
  service = await startService({ env: { BERTH_TEMPLATES: templates } });
});

after(async () => {
  rmSync(folder, { recursive: true });
  await service.end();
});

/** Some frames of a screen on which nothing happens. */
async function recorded(options: CreateSandbox): Promise<Probe & { path: string }> {
  const { sandboxId } = await service.client.create(options);
  await onTape(service, sandboxId);
  await service.client.delete(sandboxId);
  const [file] = await service.client.recordings(sandboxId);
  assert.ok(file);
  const path = join(service.dataDir, 'recordings', sandboxId, file.filename);
  const seen = await probe(path);
  assert.equal(seen.errors, '');
  return { ...seen, path };
}

/** The constant rate factor, less for more quality: x264 writes its settings into what it makes. The sizes are chance. */
function factorOf({ path }: { path: string }): number {
  return Number(/crf=([\d.]+)/.exec(readFileSync(path, 'latin1'))?.[1]);
}

describe('what a recording looks like', () => {
  it('is what the template says, in sides that are even', LIMIT, async () => {
    const { width, height, frames, duration } = await recorded({ templateName: 'small' });
    assert.deepEqual([width, height], [400, 300]);
    // Half of the default's ten a second, whatever the machine has time for.
    assert.ok(frames <= Math.ceil(duration * 5) + 1, `${frames} frames in ${duration} s`);
  });

  it('is what the request says where it says something', LIMIT, async () => {
    const low = await recorded({ templateName: 'small', recordingScale: 1 });
    const high = await recorded({ templateName: 'small', recordingScale: 1, recordingQuality: 'high' });
    assert.deepEqual([low.width, low.height], [800, 600]);
    assert.ok(factorOf(high) < factorOf(low), `${factorOf(high)} and ${factorOf(low)}`);
  });

  it('has metadata of both', LIMIT, async () => {
    const { sandboxId, metadata } = await service.client.create({ templateName: 'small', metadata: { job: '7' } });
    assert.deepEqual(metadata, { team: 'a', job: '7' });
    await service.client.delete(sandboxId);
  });

  it('is refused out of bounds, with the field', async () => {
    for (const [wrong, reason] of [
      [{ recordingScale: 0 }, /^recordingScale: must be >= 0\.1$/],
      [{ recordingScale: 1.5 }, /^recordingScale: must be <= 1$/],
      [{ recordingQuality: 'best' as 'high' }, /^recordingQuality: must be one of low, medium, high$/],
      [{ recordingCursor: 'no' as unknown as boolean }, /^recordingCursor: must be boolean$/],
      [{ templateName: 'none' }, /no template is called "none"/],
    ] as const) {
      await assert.rejects(service.client.create(wrong), (err: Error) => reason.test(err.message));
    }
  });

  it('has the mouse pointer only when it is wanted', LIMIT, async () => {
    // An X server's pointer begins in the middle of the screen, here on the blank page.
    const size = { width: 16, height: 24 };
    const at = { x: VIEWPORT.width >> 1, y: VIEWPORT.height >> 1 };
    const darkInTheMiddle = async (recordingCursor: boolean): Promise<number> => {
      const { path } = await recorded({ recording: 'always', viewport: VIEWPORT, recordingCursor });
      const last = (await pixels(path, { ...at, ...size })).slice(-size.width * size.height);
      return last.filter((pixel) => pixel.every((channel) => channel < 70)).length;
    };
    assert.equal(await darkInTheMiddle(false), 0);
    assert.ok((await darkInTheMiddle(true)) > 10);
  });
});
