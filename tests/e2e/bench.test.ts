import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** Parts that share all with the others but what they count, and a row that the first table of each always has. */
const PARTS = {
  relay: 'berth, local',
  vnc: 'berth',
  replay: 'berth, all together',
  flags: "Berth's",
  // Half a minute each with a browser of their own, so only when somebody works on the bench: BERTH_TEST_BENCH=1.
  ...(process.env.BERTH_TEST_BENCH
    ? { idle: 'runtime (ours)', warm: 'local: POST /sandboxes to READY', bulk: 'berth, ws front', pageload: 'berth' }
    : {}),
} as const;

describe('the bench, with few and short rounds', { timeout: 300_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'bt-'));
  // The users of the sandboxes have to get through to their own folders.
  chmodSync(folder, 0o711);
  after(() => rmSync(folder, { recursive: true }));

  for (const [part, name] of Object.entries(PARTS)) {
    it(`${part} measures something and leaves nothing behind`, async () => {
      const file = fileURLToPath(new URL(`../bench/${part}.js`, import.meta.url));
      const temp = join(folder, part);
      mkdirSync(temp, { mode: 0o711 });
      const env = { ...process.env, TMPDIR: temp };
      await promisify(execFile)(process.execPath, [file, '--quick', folder], { env, timeout: 120_000 });
      const { tables } = JSON.parse(readFileSync(join(folder, `${part}.json`), 'utf8'));
      const rows = tables[0].rows as Record<string, unknown>[];
      const row = rows.find((one) => Object.values(one)[0] === name);
      assert.ok(row, `a row "${name}" in ${JSON.stringify(rows)}`);
      for (const [column, value] of Object.entries(row).slice(1)) {
        const number = typeof value === 'object' ? (value as { median: number }).median : value;
        assert.ok(Number.isFinite(number), `${column} of ${name} is ${JSON.stringify(value)}`);
      }
      assert.deepEqual(readdirSync(temp), []);
    });
  }
});
