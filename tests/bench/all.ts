/**
 * Every part of the bench, one after the other: `npm run bench [-- --quick] [-- folder for the JSON files]`. A part that fails
 * does not keep the others from running; the exit code tells. In the end it says how long each took.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Each alone: `node dist/tests/bench/<part>.js`. */
const PARTS = [
  'roundtrip',
  'relay',
  'screenshots',
  'connections',
  'start',
  'warm',
  'vnc',
  'idle',
  'replay',
  'bulk',
  'pageload',
];
const args = process.argv.slice(2);

let child: ChildProcess | undefined;
let stopped = false;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    stopped = true;
    child?.kill(signal);
  });
}
const failed: string[] = [];
const took: string[] = [];
const begun = performance.now();
const secondsSince = (since: number): string => `${Math.round((performance.now() - since) / 1000)} s`;
for (const part of PARTS) {
  if (stopped) break;
  const file = fileURLToPath(new URL(`./${part}.js`, import.meta.url));
  const since = performance.now();
  child = spawn(process.execPath, [file, ...args], { stdio: 'inherit' });
  const running = child;
  const code = await new Promise((resolve) => {
    running.once('exit', resolve);
    running.once('error', (err) => resolve(err));
  });
  if (code !== 0) failed.push(part);
  took.push(`${part} ${secondsSince(since)}${code === 0 ? '' : ' (failed)'}`);
}
console.log(`${took.join(', ')}; all ${secondsSince(begun)}`);
if (failed.length > 0) console.error(`failed: ${failed.join(', ')}`);
process.exit(failed.length > 0 || stopped ? 1 : 0);
