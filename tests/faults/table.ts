/**
 * `npm run test:faults`: runs the fault tests on both drivers and writes docs/faults.md from what they saw. BERTH_SOAK says how
 * many sandboxes the soak takes.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Row } from './row.ts';

const folder = mkdtempSync(join(tmpdir(), 'bt-faults-'));
const runner = fileURLToPath(new URL('../run.js', import.meta.url));
const { status } = spawnSync(process.execPath, [runner, 'faults/'], {
  stdio: 'inherit',
  env: { ...process.env, BERTH_FAULTS_DIR: folder },
});
const text = [
  '# What a fault costs',
  '',
  'Written by `npm run test:faults` from what its clients saw. Each row is a test (tests/faults/matrix.test.ts) that fails when the',
  'outcome is another one, when a recording does not play to its end, or when anything stays behind. Seconds are those of one run.',
];
for (const driver of ['local', 'docker']) {
  const file = join(folder, `${driver}.json`);
  if (!existsSync(file)) continue;
  const rows = (JSON.parse(readFileSync(file, 'utf8')) as Row[]).sort((a, b) => (a.fault < b.fault ? -1 : 1));
  // What Chromium says last has process numbers in it.
  const short = (said: string): string => said.replace(/(in time): .*/, '$1: …');
  text.push(
    '',
    `## ${driver}`,
    '',
    '| Fault | Automation client | Viewer | After | State | Recording |',
    '|---|---|---|---|---|---|',
  );
  for (const { fault, client, viewer, seconds, state, recording } of rows) {
    const after = seconds < 1 ? 'under 1 s' : `${Math.round(seconds)} s`;
    text.push(`| ${fault} | ${short(client)} | ${short(viewer)} | ${after} | ${short(state)} | ${recording} |`);
  }
}
rmSync(folder, { recursive: true });
if (status === 0)
  writeFileSync(fileURLToPath(new URL('../../../docs/faults.md', import.meta.url)), `${text.join('\n')}\n`);
process.exit(status ?? 1);
