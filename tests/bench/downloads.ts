/**
 * What downloads of recordings cost automation: CDP round trips alone and while 50 clients download at once.
 * `node dist/tests/bench/downloads.js [round trips, default 3000]`; quiet and busy take turns, three times each.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startService } from '../e2e/service.ts';
import { Raw } from '../e2e/sockets.ts';

const trips = Number(process.argv[2] ?? 3000);
const DOWNLOADS = 50;
/** Of each of them: 50 together are a gigabit. */
const RATE = '2500k';

async function roundTrips(raw: Raw): Promise<{ p50: number; p99: number }> {
  const times: number[] = [];
  for (let i = 0; i < trips; i++) {
    const since = performance.now();
    await raw.send('Browser.getVersion');
    times.push((performance.now() - since) * 1000);
  }
  times.sort((a, b) => a - b);
  const at = (part: number): number => Math.round(times[Math.floor(times.length * part)] as number);
  return { p50: at(0.5), p99: at(0.99) };
}

const service = await startService({ driver: 'local' });
try {
  const { cdpUrl } = await service.client.create();
  const folder = join(service.dataDir, 'recordings', 'big');
  const name = 'vnc_big_20260101_000000_seg000.mkv';
  mkdirSync(folder, { recursive: true });
  const source = ['-f', 'lavfi', '-i', 'testsrc2=size=1280x720:rate=25:duration=200'];
  const codec = ['-c:v', 'libx264', '-preset', 'ultrafast', '-crf', '10', join(folder, name)];
  execFileSync('ffmpeg', ['-loglevel', 'error', ...source, ...codec]);
  const raw = await Raw.open(cdpUrl as string);
  await roundTrips(raw);
  console.log('CDP round trip, us        p50      p99');
  const show = (what: string, { p50, p99 }: { p50: number; p99: number }): void =>
    console.log(`${what.padEnd(20)} ${String(p50).padStart(8)} ${String(p99).padStart(8)}`);
  for (let round = 0; round < 3; round++) {
    show('alone', await roundTrips(raw));
    for (const [what, limit] of [
      [`${DOWNLOADS} at ${RATE}`, ['--limit-rate', RATE]],
      [`${DOWNLOADS} at full speed`, []],
    ] as const) {
      const curl = ['-s', '-o', '/dev/null', ...limit, `${service.url}/recordings/${name}`];
      const all = Array.from({ length: DOWNLOADS }, () => spawn('curl', curl, { stdio: 'ignore' }));
      const ended = Promise.all(all.map((child) => new Promise((resolve) => child.once('exit', resolve))));
      await sleep(1000);
      show(what, await roundTrips(raw));
      const done = all.filter((child) => child.exitCode !== null).length;
      if (done > 0) console.log(`  (${done} of them had ended before)`);
      for (const child of all) child.kill();
      await ended;
    }
  }
  raw.socket.terminate();
  await service.stop();
} finally {
  await service.clean();
}
