/**
 * `npm run pictures`: makes the README's pictures of a real run, docs/console.png and docs/live.webp. Three sandboxes with
 * pages of this machine, the console in this machine's Chromium, and a program that fills in a form while it is watched.
 */
import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Browser, chromium, type Page } from 'playwright-core';
import { startApp } from '../src/app.ts';
import { BerthClient } from '../src/client/client.ts';
import { loadConfig } from '../src/config.ts';

const STYLE = `*{box-sizing:border-box}body{margin:0;font:17px/1.5 sans-serif;color:#1d2730;background:#f3f0ea}header{display:flex;gap:28px;
align-items:center;padding:18px 48px;background:#fff;border-bottom:1px solid #e3ddd2}header b{font-size:22px;margin-right:auto}main{max-width:980px;
margin:36px auto;display:grid;grid-template-columns:1fr 1fr;gap:28px}section{background:#fff;border:1px solid #e3ddd2;border-radius:12px;padding:26px}
label{display:block;margin:12px 0 4px;font-size:14px;color:#5c6670}input{width:100%;font-size:18px;padding:9px 12px;border:1px solid #b9b2a5;border-radius:8px}
button{margin-top:20px;width:100%;padding:12px;font-size:18px;border:0;border-radius:8px;background:#9a4d1f;color:#fff}
.art{border-radius:12px;background:radial-gradient(circle at 50% 60%,#3b2417 0 24%,#f5e6cf 25% 33%,transparent 34%),linear-gradient(160deg,#e9d3b4,#c98d56);min-height:300px}`;
const SHOP = `<title>Harbour Coffee</title><style>${STYLE}</style><header><b>Harbour Coffee</b><span>Beans</span><span>Brewing</span><span>Basket</span></header>
<main><div class="art"></div><section><h2>Checkout</h2><label>Name</label><input id="name"><label>Street</label><input id="street"><label>City</label><input id="city">
<button id="order" onclick="this.textContent='Thank you!';this.style.background='#2f6d46'">Order now</button></section></main>`;
const CHART = `<title>Prices</title><style>${STYLE}svg{width:100%}</style><header><b>Market watch</b><span>Today</span><span>Week</span></header><main style="grid-template-columns:1fr">
<section><h2>Copper, per tonne</h2><svg viewBox="0 0 900 300"><path fill="none" stroke="#0b6e86" stroke-width="4" d="M0 230 60 210 120 222 180 170 240 190 300 140 360 152 420 110 480 128 540 84 600 100 660 62 720 80 780 44 840 60 900 30"/></svg></section></main>`;
const DOCS = `<title>Release notes</title><style>${STYLE}</style><header><b>Release notes</b><span>All</span><span>Stable</span></header><main style="grid-template-columns:1fr"><section>
<h2>2.4</h2><p>Faster starts, smaller files, and a quieter log.</p><h2>2.3</h2><p>Search finds what it should.</p><h2>2.2</h2><p>First release with import of old archives.</p></section></main>`;

const FRAMES_A_SECOND = 8;
const LARGEST = 1_500_000;

const folder = mkdtempSync(join(tmpdir(), 'berth-pictures-'));
// The users of the sandboxes have to get through to their own folders.
chmodSync(folder, 0o711);
const { PATH = '/usr/local/bin:/usr/bin:/bin' } = process.env;
const env = {
  BERTH_PORT: '0',
  BERTH_DATA_DIR: join(folder, 'data'),
  BERTH_RUN_DIR: join(folder, 'run'),
  BERTH_LOG_LEVEL: 'error',
};
const app = await startApp(loadConfig(env), { PATH });
const site = await serve({ '/shop': SHOP, '/prices': CHART, '/notes': DOCS });
let viewer: Browser | undefined;
try {
  const berth = new BerthClient(app.url);
  const shop = await start(berth, 'shop-checkout', `${site.url}/shop`, { team: 'growth' });
  await start(berth, 'price-watch', `${site.url}/prices`, { team: 'data' });
  await start(berth, 'release-notes', `${site.url}/notes`, { job: 'nightly' });
  viewer = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
  });
  const page = await viewer.newPage({ viewport: { width: 1280, height: 720 } });
  await page.goto(`${app.url}/console/`);
  await page.locator('.thumb img').nth(2).waitFor();
  await sleep(500);
  await page.screenshot({ path: 'docs/console.png' });
  await film(page, `${app.url}/console/#/sandboxes/shop-checkout`, shop);
  say('docs/console.png');
  say('docs/live.webp');
} finally {
  await viewer?.close();
  site.server.close();
  site.server.closeAllConnections();
  await app.close(true);
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);

/** A sandbox with this page open; answers where its CDP is. */
async function start(
  berth: BerthClient,
  sandboxId: string,
  url: string,
  metadata: Record<string, string>,
): Promise<string> {
  const { cdpUrl = '' } = await berth.create({ sandboxId, metadata, recording: 'always' });
  const browser = await chromium.connectOverCDP(cdpUrl, { noDefaults: true });
  await browser.contexts()[0]?.pages()[0]?.goto(url);
  await browser.close();
  return cdpUrl;
}

/** What the console shows while a program fills in the form. */
async function film(page: Page, address: string, cdpUrl: string): Promise<void> {
  await page.goto(address);
  await page.locator('.dot.connected').waitFor();
  await sleep(1500);
  let frame = 0;
  let over = false;
  const shots = (async () => {
    while (!over) {
      const next = sleep(1000 / FRAMES_A_SECOND);
      await page.screenshot({ path: join(folder, `frame${String(frame++).padStart(4, '0')}.png`) });
      await next;
    }
  })();
  const browser = await chromium.connectOverCDP(cdpUrl, { noDefaults: true });
  const form = browser.contexts()[0]?.pages()[0] as Page;
  for (const [field, text] of Object.entries({ name: 'Ada Lovelace', street: '12 Quay Street', city: 'Bristol' })) {
    await form.click(`#${field}`);
    await form.keyboard.type(text, { delay: 60 });
  }
  await form.click('#order');
  await sleep(1500);
  await browser.close();
  over = true;
  await shots;
  for (const quality of [70, 50, 30]) {
    await ffmpeg(quality);
    if (statSync('docs/live.webp').size < LARGEST) return;
  }
  throw new Error('docs/live.webp does not get small enough.');
}

function ffmpeg(quality: number): Promise<void> {
  const input = ['-framerate', String(FRAMES_A_SECOND), '-i', join(folder, 'frame%04d.png')];
  const output = [
    '-vf',
    'scale=960:-1:flags=lanczos',
    '-c:v',
    'libwebp_anim',
    '-quality',
    String(quality),
    '-loop',
    '0',
  ];
  const child = spawn('ffmpeg', ['-loglevel', 'error', '-y', ...input, ...output, 'docs/live.webp'], {
    stdio: 'inherit',
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`ffmpeg ended with ${code}`))));
  });
}

async function serve(pages: Record<string, string>): Promise<{ url: string; server: Server }> {
  const server = createServer((req, res) => {
    const html = pages[req.url ?? ''];
    res
      .writeHead(html ? 200 : 404, { 'content-type': 'text/html; charset=utf-8' })
      .end(html ? `<!doctype html>${html}` : '');
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

function say(file: string): void {
  console.log(`${file} (${Math.round(statSync(file).size / 1000)} kB)`);
}
