import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { takeFolder } from '../../src/app/alone.ts';

it('of those who want a folder in the same instant one has it, until it lets go', async () => {
  const base = mkdtempSync(join(tmpdir(), 'bt-'));
  try {
    const link = join(base, 'link');
    symlinkSync(base, link);
    const all = await Promise.allSettled([base, link, base, `${link}/.`].map((path) => takeFolder(path, 'BERTH_X')));
    const taken = all.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    assert.equal(taken.length, 1);
    for (const one of all) {
      if (one.status === 'rejected')
        assert.match(one.reason.message, /^Another Berth already serves .*its own BERTH_X\.$/);
    }
    await new Promise((resolve) => taken[0]?.close(resolve));
    (await takeFolder(base, 'BERTH_X')).close();
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
});
