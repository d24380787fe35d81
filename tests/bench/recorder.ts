/**
 * What recording costs: CPU of the recorder and bytes on disk, beside a bare ffmpeg that records the same screen with the same
 * codec and preset. `node dist/tests/bench/recorder.js [seconds for each, default 15]`; the two take turns, twice each.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';
import type { Sandbox } from '../../src/client/client.ts';
import { folderOf } from '../../src/drivers/folders.ts';
import { processesOf, serveSite } from '../e2e/drivers.ts';
import { type Service, startService } from '../e2e/service.ts';
import { sendRange } from '../e2e/video.ts';

const seconds = Number(process.argv[2] ?? 15);
const SCREENS = [
  { width: 1280, height: 720, fps: 10 },
  { width: 1920, height: 1080, fps: 25 },
];
const LINES = '<p>The quick brown fox jumps over the lazy dog, and then it does so again.</p>'.repeat(400);
const PAGES = {
  static: LINES,
  scrolling: `${LINES}<script>let y = 0; setInterval(() => scrollTo(0, (y += 8) % 8000), 40)</script>`,
  video: '<body style="margin:0"><video src="/video.mp4" autoplay muted loop style="width:100%"></video>',
} as const;

interface Cost {
  /** Percent of one core. */
  readonly cpu: number;
  readonly bytesPerMinute: number;
}

/** Clock ticks of a process, of which there are 100 in a second. */
function ticks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /, '')
    .split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

async function measured(pid: number, size: () => number): Promise<Cost> {
  const [ticksBefore, bytesBefore, since] = [ticks(pid), size(), performance.now()];
  await sleep(seconds * 1000);
  const passed = (performance.now() - since) / 1000;
  return { cpu: (ticks(pid) - ticksBefore) / passed, bytesPerMinute: ((size() - bytesBefore) / passed) * 60 };
}

async function ours(service: Service, sandbox: Sandbox): Promise<{ cost: Cost; display: string }> {
  const params = { path: { id: sandbox.sandboxId } };
  await service.client.http.POST('/sandboxes/{id}/recordings/start', { params });
  await sleep(1000);
  const all = await processesOf(service, sandbox.sandboxId);
  const ffmpeg = all.find(({ command }) => command.startsWith('ffmpeg '));
  const display = / -i (:\d+) /.exec(ffmpeg?.command ?? '')?.[1];
  if (!ffmpeg || !display) throw new Error('no recorder runs');
  const folder = join(service.dataDir, 'recordings', sandbox.sandboxId);
  const session = (await service.client.get(sandbox.sandboxId)).recording.sessionId;
  const cost = await measured(ffmpeg.pid, () => statSync(join(folder, `${session}_seg000.mkv`)).size);
  await service.client.http.POST('/sandboxes/{id}/recordings/stop', { params });
  return { cost, display };
}

async function bare(
  service: Service,
  sandbox: Sandbox,
  display: string,
  screen: (typeof SCREENS)[number],
): Promise<Cost> {
  const folder = mkdtempSync(join(tmpdir(), 'bt-bare-'));
  const file = join(folder, 'bare.mkv');
  const size = `${screen.width}x${screen.height}`;
  const input = ['-f', 'x11grab', '-framerate', String(screen.fps), '-video_size', size, '-i', display];
  const output = ['-c:v', 'libx264', '-preset', 'ultrafast', '-pix_fmt', 'yuv420p', '-flush_packets', '1', file];
  const env = { PATH: process.env.PATH, XAUTHORITY: join(folderOf(service.runDir, sandbox.sandboxId), 'xauth') };
  const child = spawn('ffmpeg', ['-loglevel', 'error', '-nostdin', ...input, ...output], { env, stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  try {
    await sleep(1500);
    return await measured(child.pid as number, () => statSync(file).size);
  } finally {
    child.kill('SIGINT');
    await ended;
    rmSync(folder, { recursive: true });
  }
}

const clips = mkdtempSync(join(tmpdir(), 'bt-clip-'));
const clip = join(clips, 'video.mp4');
const source = ['-f', 'lavfi', '-i', 'testsrc2=size=1280x720:rate=25:duration=10'];
execFileSync('ffmpeg', ['-loglevel', 'error', ...source, '-pix_fmt', 'yuv420p', '-movflags', 'faststart', clip]);
const site = await serveSite((req, res) => {
  if (req.url === '/video.mp4') return sendRange(req, res, readFileSync(clip), 'video/mp4');
  res.setHeader('content-type', 'text/html').end(PAGES[(req.url ?? '').slice(1) as keyof typeof PAGES] ?? '');
});
const service = await startService({ driver: 'local' });
try {
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  console.log(
    'screen       page       recorder: % of a core, KiB/min   bare ffmpeg: % of a core, KiB/min   ratio of CPU',
  );
  for (const screen of SCREENS) {
    const { width, height, fps } = screen;
    const sandbox = await service.client.create({
      viewport: { width, height },
      recordingFps: fps,
      recordingSegmentSeconds: 3600,
    });
    const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl as string, defaultViewport: null });
    const page = (await browser.pages())[0] ?? (await browser.newPage());
    for (const name of Object.keys(PAGES)) {
      await page.goto(`${site.url}/${name}`);
      await sleep(1000);
      const [us, them]: [Cost[], Cost[]] = [[], []];
      for (let round = 0; round < 2; round++) {
        const { cost, display } = await ours(service, sandbox);
        us.push(cost);
        them.push(await bare(service, sandbox, display, screen));
      }
      const [cpu, cpuBare] = [mean(us.map((c) => c.cpu)), mean(them.map((c) => c.cpu))];
      const [bytes, bytesBare] = [us, them].map((all) => mean(all.map((c) => c.bytesPerMinute / 1024)));
      const cells = [cpu.toFixed(1), bytes?.toFixed(0), cpuBare.toFixed(1), bytesBare?.toFixed(0)];
      const [a, b, c, d] = cells.map((cell) => String(cell).padStart(12));
      const ratio = (cpu / cpuBare).toFixed(2).padStart(10);
      console.log(`${`${height}p${fps}`.padEnd(12)} ${name.padEnd(10)} ${a} ${b}          ${c} ${d}        ${ratio}`);
    }
    await browser.disconnect();
    await service.client.delete(sandbox.sandboxId);
  }
  await service.stop();
} finally {
  await service.clean();
  site.close();
  rmSync(clips, { recursive: true });
}
