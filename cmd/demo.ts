/** `npm run demo`: the main job on real parts, step by step. With `--once` it ends after the tour, else it serves until Ctrl-C. */
import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, relative, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as WebStream } from 'node:stream/web';
import { fileURLToPath } from 'node:url';
import { type App, startApp } from '../src/app.ts';
import { BerthClient } from '../src/client/client.ts';
import { loadConfig } from '../src/config.ts';

/** A page to look at that needs no network. */
const TOUR_PAGE = `<!doctype html><meta charset="utf-8"><title>Berth demo</title>
<style>body{font:32px sans-serif;margin:0;height:100vh;display:grid;place-items:center;color:#fff;background:linear-gradient(120deg,#0b486b,#3b8686)}
i{display:inline-block;width:1em;height:1em;background:#f2c14e;animation:t 2s linear infinite}@keyframes t{to{transform:rotate(1turn)}}</style>
<div><h1>Hello from Berth</h1><p><i></i> a real Chromium on a real desktop</p></div>`;

const output = resolve('demo-output');
const once = process.argv.includes('--once');
const started = performance.now();

let app: App | undefined;
let page: Server | undefined;
let ending = false;
/** Ends the sandbox with the service: a demo leaves nothing but its output. */
async function end(code: number): Promise<never> {
  if (ending) process.exit(130);
  ending = true;
  page?.close();
  page?.closeAllConnections();
  await app?.close(true);
  process.exit(code);
}
process.on('SIGINT', () => void end(0));
process.on('SIGTERM', () => void end(0));

try {
  await tour();
  if (once) await end(0);
  console.log('Serving until Ctrl-C.');
} catch (err) {
  console.error(`berth demo: ${err instanceof Error ? err.message : String(err)}`);
  await end(1);
}

async function tour(): Promise<void> {
  mkdirSync(output, { recursive: true });
  // The tour's page is on this machine.
  const env = {
    BERTH_EGRESS_ALLOW: '127.0.0.1',
    BERTH_DATA_DIR: join(output, 'data'),
    BERTH_LOG_LEVEL: 'error',
    ...process.env,
  };
  const { PATH = '/usr/local/bin:/usr/bin:/bin', TZ } = process.env;
  app = await step('service started', () => startApp(loadConfig(env), TZ === undefined ? { PATH } : { PATH, TZ }));
  say(`listening at ${app.url}`);
  const berth = new BerthClient(app.url, process.env.BERTH_API_KEY ?? process.env.BERTH_API_KEYS?.split(':')[1]);
  const sandbox = await step('sandbox created: Chromium, desktop, VNC and recorder are up', () =>
    berth.create({ recording: 'always' }),
  );
  const { sandboxId, cdpUrl = '', liveViewUrl } = sandbox;
  const address = await serveTourPage();

  for (const name of ['puppeteer', 'playwright']) {
    await step(`${name} example ran`, () => runExample(name, { BERTH_CDP_URL: cdpUrl }, address));
    say(`screenshot: ${shown(join(output, `${name}.png`))}`);
  }
  await step('recording finished', () =>
    berth.http.POST('/sandboxes/{id}/recordings/stop', { params: { path: { id: sandboxId } } }),
  );
  for (const { filename } of await berth.recordings(sandboxId)) {
    const file = join(output, filename);
    await pipeline(Readable.fromWeb((await berth.download(filename)) as WebStream), createWriteStream(file));
    say(`recording: ${shown(file)}`);
  }
  say(`live view: ${liveViewUrl}`);
  say(`console: ${app.url}/console/`);
  say(`CDP: ${cdpUrl}`);
}

/** Runs an example as a user would; its output is shown only when it fails. */
function runExample(name: string, env: Record<string, string>, address: string): Promise<void> {
  const program = fileURLToPath(new URL(`../../examples/${name}.mjs`, import.meta.url));
  return new Promise((done, reject) => {
    const child = spawn(process.execPath, [program, address], {
      cwd: output,
      env: { ...process.env, ...env },
      timeout: 60_000,
    });
    let text = '';
    child.stdout.on('data', (chunk) => (text += chunk));
    child.stderr.on('data', (chunk) => (text += chunk));
    child.once('error', reject);
    child.once('exit', (code) => (code === 0 ? done() : reject(new Error(`the ${name} example failed:\n${text}`))));
  });
}

async function serveTourPage(): Promise<string> {
  const server = createServer((_req, res) => res.writeHead(200, { 'content-type': 'text/html' }).end(TOUR_PAGE));
  page = server;
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const at = performance.now();
  const result = await work();
  say(`${what} (${((performance.now() - at) / 1000).toFixed(2)} s)`);
  return result;
}

function say(text: string): void {
  console.log(`[${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s] ${text}`);
}

function shown(path: string): string {
  return relative(process.cwd(), path);
}
