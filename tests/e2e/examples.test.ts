import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Site, serveSite } from './drivers.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';

/** From dist/tests/e2e/examples.test.js. */
const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const EXAMPLES = join(ROOT, 'examples');
const COMPILED = fileURLToPath(new URL('../../examples', import.meta.url));
const PNG = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');

const PAGE = '<!doctype html><title>An example page</title><body style="background:#123456">seen</body>';

describe('the examples, run as they are printed', { timeout: 3 * LIMIT.timeout }, () => {
  let service: Service;
  let site: Site;
  let folder: string;
  let visits = 0;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'berth-examples-'));
    site = await serveSite((req, res) => {
      if (req.url === '/') visits++;
      res.setHeader('Content-Type', 'text/html');
      res.end(PAGE);
    });
    service = await startService();
  });
  after(async () => {
    site?.close();
    rmSync(folder, { recursive: true, force: true });
    await service.end();
  });

  /** Runs it in the temporary folder with nothing in its environment but PATH and these; answers what it printed. */
  async function run(command: string, args: readonly string[], env: Readonly<Record<string, string>>): Promise<string> {
    const child = spawn(command, args, {
      cwd: folder,
      env: { PATH: process.env.PATH, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: LIMIT.timeout,
      killSignal: 'SIGKILL',
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => (stdout += chunk));
    child.stderr.on('data', (chunk) => (stderr += chunk));
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    assert.equal(code, 0, `${command} ${args.join(' ')}: ${stdout}\n${stderr}`);
    assert.equal(stderr, '');
    return stdout;
  }

  const address = (): string => `${site.url}/`;

  /** Ends the sandboxes that are there, and says how many there were. */
  async function endAll(): Promise<number> {
    const live = await service.client.list('READY');
    await Promise.all(live.map((sandbox) => service.client.delete(sandbox.sandboxId)));
    return live.length;
  }

  /** A PNG that the example has just written; it is removed. */
  function assertScreenshot(file: string): void {
    const bytes = readFileSync(join(folder, file));
    assert.ok(bytes.subarray(0, PNG.length).equals(PNG), `${file} is a PNG`);
    // Width and height stand at 16 and 20 (PNG, IHDR): the page without the browser's own bars.
    const [width, height] = [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
    assert.ok(width > 1000 && width <= 1280 && height > 400 && height < 720, `${width}x${height}`);
    rmSync(join(folder, file));
  }

  for (const [name, screenshot] of [
    ['puppeteer.mjs', 'puppeteer.png'],
    ['playwright.mjs', 'playwright.png'],
  ] as const) {
    it(`${name} makes a sandbox of its own, opens the page and takes a picture`, async () => {
      const before = visits;
      const printed = await run(process.execPath, [join(EXAMPLES, name), address()], { BERTH_URL: service.url });
      assert.equal(printed, 'An example page\n');
      assert.equal(visits, before + 1);
      assertScreenshot(screenshot);
      assert.equal(await endAll(), 1);
    });

    it(`${name} takes a sandbox that is there`, async () => {
      const { cdpUrl, sandboxId } = await service.client.create();
      const before = visits;
      const env = { BERTH_CDP_URL: cdpUrl ?? '' };
      const printed = await run(process.execPath, [join(EXAMPLES, name), address()], env);
      assert.equal(printed, 'An example page\n');
      assert.equal(visits, before + 1);
      assertScreenshot(screenshot);
      await waitFor(async () => (await service.client.get(sandboxId)).clients === 0, 'the example to be gone');
      assert.equal(await endAll(), 1);
    });
  }

  it('raw-cdp.mjs asks a browser for its version', async () => {
    const printed = await run(process.execPath, [join(EXAMPLES, 'raw-cdp.mjs')], { BERTH_URL: service.url });
    assert.match(printed, /^Chrome\/\d+\.[\d.]+\n$/);
    assert.equal(await endAll(), 1);
  });

  it('recordings.sh says so when there is nothing to show', async () => {
    const printed = await run('sh', [join(EXAMPLES, 'recordings.sh')], { BERTH_URL: service.url });
    assert.match(printed, /"total":0/);
    assert.match(printed, /there are no recordings yet\n$/);
  });

  let recorded = '';
  it('client.ts makes a sandbox that is recorded, ends it and lists its recordings', async () => {
    const printed = await run(process.execPath, [join(COMPILED, 'client.js')], { BERTH_URL: service.url });
    const lines = printed.trimEnd().split('\n');
    assert.match(
      lines[0] ?? '',
      /^[0-9a-f-]{36} is READY; watch it at http:\/\/127\.0\.0\.1:\d+\/sandboxes\/[0-9a-f-]{36}\/live$/,
    );
    assert.equal(lines[1], 'TERMINATED: deleted');
    assert.match(lines[2] ?? '', /^vnc_[0-9a-f-]{36}_\d{8}_\d{6}_seg000\.mkv completed$/);
    assert.equal(lines.length, 3);
    recorded = lines[2]?.split(' ')[0] ?? '';
    assert.equal(await endAll(), 0);
  });

  it('recordings.sh lists, downloads and deletes what client.ts left', async () => {
    const printed = await run('sh', [join(EXAMPLES, 'recordings.sh')], { BERTH_URL: service.url });
    assert.match(printed, /"total":1/);
    assert.match(printed, /"message":"Recording file deleted successfully"/);
    assert.deepEqual(readdirSync(folder), [recorded]);
    const bytes = readFileSync(join(folder, recorded));
    assert.ok(bytes.subarray(0, 4).equals(Buffer.from([0x1a, 0x45, 0xdf, 0xa3])), 'it is Matroska');
    const answer = await fetch(`${service.url}/recordings/${recorded}`);
    await answer.arrayBuffer();
    assert.equal(answer.status, 404);
    rmSync(join(folder, recorded));
  });

  it('leave nothing behind but what they are for', () => {
    assert.deepEqual(readdirSync(folder), []);
  });

  it('are all here', () => {
    const tested = ['client.ts', 'playwright.mjs', 'puppeteer.mjs', 'raw-cdp.mjs', 'recordings.sh'];
    // novnc.html is run in a browser by vnc.test.ts.
    assert.deepEqual(readdirSync(realpathSync(EXAMPLES)).sort(), [...tested, 'novnc.html'].sort());
  });
});

describe('README.md', () => {
  /** The examples that it prints: each code block that begins with the name of one. */
  function printed(markdown: string): Map<string, string> {
    const blocks = [...markdown.matchAll(/^```js\n(.*?)^```$/gms)].map((match) => match[1] as string);
    const named = blocks.map((block) => [/^\/\/ examples\/([\w-]+\.mjs)\b/.exec(block)?.[1], block] as const);
    return new Map(named.filter((entry): entry is readonly [string, string] => entry[0] !== undefined));
  }

  it('prints the Puppeteer and the Playwright example as they are run', () => {
    const blocks = printed(readFileSync(join(ROOT, 'README.md'), 'utf8'));
    for (const name of ['puppeteer.mjs', 'playwright.mjs']) assert.ok(blocks.has(name), `README.md prints ${name}`);
    for (const [name, block] of blocks) assert.equal(block, readFileSync(join(EXAMPLES, name), 'utf8'), name);
  });

  it('would be caught printing something else', () => {
    const blocks = printed(
      '```js\n// examples/a.mjs [x]: y\n1;\n```\n\n```js\n2;\n```\n```sh\n// examples/b.mjs\n```\n',
    );
    assert.deepEqual([...blocks], [['a.mjs', '// examples/a.mjs [x]: y\n1;\n']]);
  });
});
