import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type BrowserContext, chromium, type Page as ViewerPage } from 'playwright-core';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import type { Sandbox } from '../../src/client/client.ts';
import { type Site, serveSite } from './drivers.ts';
import { Rfb } from './rfb.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { startViewer, undisturbed } from './viewer.ts';

/** The repository: this file runs as dist/tests/e2e/vnc.test.js. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const NOVNC = join(dirname(fileURLToPath(import.meta.resolve('@novnc/novnc'))), '..');
const SCREEN = { width: 1280, height: 720 };
/** TigerVNC may send JPEG, and a screen's colours are never compared closer than this per channel. */
const TOLERANCE = 16;

type Rgb = readonly [number, number, number];

/** What the page in the sandbox shows in the corners of its viewport, and where a point of each is. */
const BLOCKS: Readonly<Record<string, { colour: Rgb; at: (size: Size) => Point }>> = {
  'top left': { colour: [220, 20, 60], at: () => ({ x: 50, y: 40 }) },
  'top right': { colour: [0, 160, 80], at: ({ width }) => ({ x: width - 50, y: 40 }) },
  'bottom left': { colour: [30, 60, 200], at: ({ height }) => ({ x: 50, y: height - 40 }) },
  'bottom right': { colour: [250, 200, 10], at: ({ width, height }) => ({ x: width - 50, y: height - 40 }) },
};

interface Point {
  readonly x: number;
  readonly y: number;
}

interface Size {
  readonly width: number;
  readonly height: number;
}

let service: Service;
let site: Site;
let box: Sandbox;
/** Drives the browser in the sandbox. */
let driver: Browser;
/** The page in the sandbox. */
let page: Page;
/** A browser of this machine that looks at the sandbox. */
let viewer: BrowserContext;
let viewerProfile: string;

before(async () => {
  viewerProfile = mkdtempSync(join(tmpdir(), 'bt-viewer-'));
  site = await startSite();
  [service, viewer] = await Promise.all([startService(), startViewer(viewerProfile, SCREEN)]);
  box = await service.client.create({ viewport: SCREEN });
  driver = await puppeteer.connect({ browserWSEndpoint: box.cdpUrl as string, defaultViewport: null });
  page = (await driver.pages())[0] ?? (await driver.newPage());
  await page.goto(`${site.url}/blocks`);
}, LIMIT);

after(async () => {
  await viewer?.close();
  rmSync(viewerProfile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  await driver?.disconnect();
  site?.close();
  await service.end();
}, LIMIT);

describe('Raw RFB', () => {
  for (const path of ['livestream', 'liveview']) {
    for (const suffix of ['', '/', '?tenantId=123', '/?tenantId=123']) {
      it(`ws/${path}${suffix} greets with RFB 003.008 in a binary frame.`, LIMIT, async () => {
        const rfb = await Rfb.open(`${wsUrl()}/sandboxes/${box.sandboxId}/ws/${path}${suffix}`);
        assert.equal((await rfb.read(12)).toString('latin1'), 'RFB 003.008\n');
        assert.equal(rfb.textFrames, 0);
        rfb.close();
      });
    }
  }

  it('The subprotocol "binary" is accepted.', LIMIT, async () => {
    const rfb = await Rfb.open(box.vncUrl as string, ['binary']);
    assert.equal(rfb.protocol, 'binary');
    assert.equal((await rfb.read(12)).toString('latin1'), 'RFB 003.008\n');
    rfb.close();
  });

  it('The handshake goes through: no password, the screen has the size that was asked for.', LIMIT, async () => {
    const rfb = await Rfb.open(box.vncUrl as string);
    await rfb.read(12);
    rfb.write('RFB 003.008\n');
    const [count] = await rfb.read(1);
    assert.deepEqual([...(await rfb.read(count as number))], [1], 'the one security type is None');
    rfb.write(Buffer.of(1));
    assert.equal((await rfb.read(4)).readUInt32BE(0), 0, 'SecurityResult is OK');
    rfb.write(Buffer.of(1));
    const init = await rfb.read(24);
    assert.deepEqual({ width: init.readUInt16BE(0), height: init.readUInt16BE(2) }, SCREEN);
    assert.match((await rfb.read(init.readUInt32BE(20))).toString(), new RegExp(box.sandboxId));
    assert.equal(rfb.textFrames, 0);
    rfb.close();
  });

  it('Connections that leave before the handshake is done do not lock anybody out.', LIMIT, async () => {
    for (let i = 0; i < 12; i += 1) {
      const rfb = await Rfb.open(box.vncUrl as string);
      await rfb.read(12);
      rfb.close();
    }
    const rfb = await Rfb.open(box.vncUrl as string);
    await rfb.read(12);
    rfb.write('RFB 003.008\n');
    const [count] = await rfb.read(1);
    assert.ok((count as number) > 0, 'the server offers a security type instead of a refusal');
    rfb.close();
  });
});

describe('The stock noVNC page', () => {
  let screen: ViewerPage;

  before(async () => {
    screen = await viewer.newPage();
    await undisturbed(viewer, async () => {
      await screen.goto(`${site.url}/novnc.html?url=${encodeURIComponent(box.vncUrl as string)}`);
      await waitFor(async () => (await screen.title()) === 'connected', 'noVNC to connect');
    });
  }, LIMIT);

  after(async () => {
    await screen?.close();
  }, LIMIT);

  it('The canvas has the size of the screen and shows what Puppeteer opened, colour by colour.', LIMIT, async () => {
    assert.deepEqual(await canvasSize(screen), SCREEN);
    await assertShowsBlocks(screen);
    const folder = process.env.BERTH_TEST_SCREENSHOTS;
    if (folder) await screen.screenshot({ path: join(folder, 'novnc.png') });
  });

  it('The canvas follows when the page changes.', LIMIT, async () => {
    const colour: Rgb = [128, 0, 128];
    // Away from the mouse pointer, which is part of what one sees.
    const place = { x: 900, y: 500 };
    assert.ok(!isNear(await pixel(screen, place), colour), 'it was another colour before');
    await page.evaluate((rgb) => {
      document.body.style.background = rgb;
    }, css(colour));
    await waitForColour(screen, place, colour, 'the background');
    await page.evaluate(() => {
      document.body.style.background = '';
    });
  });

  it('A click through VNC is a trusted click in the page, at the same place.', LIMIT, async () => {
    for (const target of [
      { x: 640, y: 300 },
      { x: 333, y: 444 },
    ]) {
      await page.evaluate('window.clicked = undefined');
      await clickAt(screen, await onScreen(target));
      await waitFor(
        async () => (await page.evaluate('window.clicked')) !== undefined,
        'the click to arrive in the page',
      );
      const clicked = (await page.evaluate('window.clicked')) as Point & { trusted: boolean };
      assert.ok(clicked.trusted);
      assert.ok(
        Math.abs(clicked.x - target.x) <= 2 && Math.abs(clicked.y - target.y) <= 2,
        `clicked at ${JSON.stringify(clicked)}`,
      );
    }
  });

  it('What is typed into the viewer lands in the input that was clicked.', LIMIT, async () => {
    const at = (await page.evaluate(`(() => {
      const { left, top, width, height } = document.querySelector('input').getBoundingClientRect();
      return { x: left + width / 2, y: top + height / 2 };
    })()`)) as Point;
    await clickAt(screen, await onScreen(at));
    await waitFor(
      async () => (await page.evaluate('document.activeElement.tagName')) === 'INPUT',
      'the input to have the focus',
    );
    // Shift is held as a person holds it: VNC sends keys, not letters.
    for (const key of ['Shift+A', 'h', 'o', 'y', 'Space', '4', '2', 'x', 'Backspace']) await screen.keyboard.press(key);
    const value = (): Promise<unknown> => page.evaluate('document.querySelector("input").value');
    await waitFor(
      async () => (await value()) === 'Ahoy 42',
      () => 'the text to arrive',
    ).catch(async (err: Error) => {
      throw new Error(`${err.message}; the input holds ${JSON.stringify(await value())}`);
    });
  });

  it('The viewer is counted while it looks.', LIMIT, async () => {
    await waitFor(async () => (await service.client.get(box.sandboxId)).viewers === 1, 'one viewer to be counted');
  });
});

describe('The built-in live page', () => {
  it('liveViewUrl connects by itself and shows the screen.', LIMIT, async () => {
    const screen = await viewer.newPage();
    await screen.goto(box.liveViewUrl as string);
    assert.equal(await screen.title(), 'Berth live view');
    await waitFor(() => isLive(screen), 'the live page to say that it is connected');
    await assertShowsBlocks(screen);
    await screen.close();
  });

  it('It says so when the sandbox ends.', LIMIT, async () => {
    const mine = await service.client.create();
    const screen = await viewer.newPage();
    await screen.goto(mine.liveViewUrl as string);
    await waitFor(() => isLive(screen), 'the live page to say that it is connected');
    await service.client.delete(mine.sandboxId);
    await screen.getByRole('heading', { name: 'This sandbox has ended' }).waitFor(LIMIT);
    await screen.getByText('Somebody stopped it.').waitFor();
    await screen.close();
  });
});

describe('Windows on the virtual screen', () => {
  it('Chromium fills it.', LIMIT, async () => {
    const session = await page.createCDPSession();
    const { bounds } = await session.send('Browser.getWindowForTarget');
    await session.detach();
    assert.deepEqual([bounds.left, bounds.top, bounds.width, bounds.height], [0, 0, SCREEN.width, SCREEN.height]);
  });

  it('A window that a page opens lies within it.', LIMIT, async () => {
    const opening = new Promise<Page | null>((resolve) => page.once('popup', resolve));
    await page.evaluate(`void open('about:blank', '_blank', 'popup,left=1000,top=600,width=900,height=700')`);
    const popup = await opening;
    assert.ok(popup);
    const session = await popup.createCDPSession();
    await assertWithinScreen(async () => (await session.send('Browser.getWindowForTarget')).bounds);
    await popup.close();
  });

  it('The window of a new context of Playwright lies within it.', LIMIT, async () => {
    const browser = await chromium.connectOverCDP(box.cdpUrl as string);
    try {
      const context = await browser.newContext();
      const session = await context.newCDPSession(await context.newPage());
      await assertWithinScreen(async () => (await session.send('Browser.getWindowForTarget')).bounds);
    } finally {
      await browser.close();
    }
  });
});

const BLOCKS_PAGE = `<!doctype html><title>blocks</title>
<style>
  body { margin: 0; background: #fff } i { position: fixed; width: 200px; height: 150px }
  input { position: fixed; left: 400px; top: 200px; width: 300px; font: 20px monospace }
</style>
${Object.entries(BLOCKS)
  .map(([place, { colour }]) => {
    const [vertical, horizontal] = place.split(' ');
    return `<i style="${vertical}:0;${horizontal}:0;background:${css(colour)}"></i>`;
  })
  .join('\n')}
<input>
<script>addEventListener('click', (e) => { window.clicked = { x: e.clientX, y: e.clientY, trusted: e.isTrusted } })</script>`;

/** The page for the sandbox, and the noVNC example with its library as a user would serve them. */
function startSite(): Promise<Site> {
  return serveSite((req, res) => {
    const path = new URL(req.url ?? '/', 'http://site').pathname;
    const library = '/node_modules/@novnc/novnc/';
    try {
      if (path.startsWith(library)) {
        res.setHeader('content-type', 'text/javascript').end(readFileSync(join(NOVNC, path.slice(library.length))));
      } else {
        const html = path === '/novnc.html' ? readFileSync(join(ROOT, 'examples/novnc.html'), 'utf8') : BLOCKS_PAGE;
        res.setHeader('content-type', 'text/html; charset=utf-8').end(html);
      }
    } catch {
      res.writeHead(404).end();
    }
  });
}

function wsUrl(): string {
  return service.url.replace(/^http/, 'ws');
}

function css([r, g, b]: Rgb): string {
  return `rgb(${r} ${g} ${b})`;
}

/** Where a point of the sandbox's page lies on its screen. */
async function onScreen({ x, y }: Point): Promise<Point> {
  const [left, top] = (await page.evaluate('[screenX, screenY + outerHeight - innerHeight]')) as [number, number];
  return { x: left + x, y: top + y };
}

async function isLive(screen: ViewerPage): Promise<boolean> {
  return (await screen.locator('.screen-state').textContent()) === 'Live';
}

async function assertShowsBlocks(screen: ViewerPage): Promise<void> {
  const [width, height] = (await page.evaluate('[innerWidth, innerHeight]')) as [number, number];
  for (const [place, { colour, at }] of Object.entries(BLOCKS)) {
    await waitForColour(screen, await onScreen(at({ width, height })), colour, `the block at the ${place}`);
  }
}

async function waitForColour(screen: ViewerPage, at: Point, colour: Rgb, what: string): Promise<void> {
  let seen: Rgb | undefined;
  await waitFor(
    async () => {
      seen = await pixel(screen, at);
      return isNear(seen, colour);
    },
    () => `${what} to be ${css(colour)} at ${JSON.stringify(at)}; it is ${seen ? css(seen) : 'nothing'}`,
  );
}

function isNear(a: Rgb, b: Rgb): boolean {
  return a.every((channel, i) => Math.abs(channel - (b[i] as number)) <= TOLERANCE);
}

/** A pixel of the canvas, in the coordinates of the sandbox's screen. */
function pixel(screen: ViewerPage, { x, y }: Point): Promise<Rgb> {
  return screen.evaluate(
    ([px, py]) => {
      const canvas = document.querySelector<HTMLCanvasElement>('#screen canvas');
      const [r = 0, g = 0, b = 0] = canvas?.getContext('2d')?.getImageData(px, py, 1, 1).data ?? [];
      return [r, g, b] as const;
    },
    [x, y] as const,
  );
}

function canvasSize(screen: ViewerPage): Promise<Size> {
  return screen.evaluate(() => {
    const canvas = document.querySelector<HTMLCanvasElement>('#screen canvas');
    return { width: canvas?.width ?? 0, height: canvas?.height ?? 0 };
  });
}

/** A click of the person at the viewer; the canvas may be shown smaller than the screen is. */
async function clickAt(screen: ViewerPage, { x, y }: Point): Promise<void> {
  const box = await screen.locator('#screen canvas').boundingBox();
  assert.ok(box, 'the canvas is shown');
  await screen.mouse.click(box.x + (x * box.width) / SCREEN.width, box.y + (y * box.height) / SCREEN.height);
}

interface Bounds {
  readonly left?: number;
  readonly top?: number;
  readonly width?: number;
  readonly height?: number;
}

/** The window manager arranges a window a moment after it was opened. */
async function assertWithinScreen(bounds: () => Promise<Bounds>): Promise<void> {
  let last: Bounds = {};
  await waitFor(
    async () => {
      last = await bounds();
      const { left = -1, top = -1, width = 0, height = 0 } = last;
      const inside = left >= 0 && top >= 0 && left + width <= SCREEN.width && top + height <= SCREEN.height;
      return inside && width > 0 && height > 0;
    },
    () => `the window to lie on the screen; its bounds are ${JSON.stringify(last)}`,
  );
}
