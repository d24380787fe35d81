/** People in front of the pages of the console: browsers of this machine that note whatever they should not see. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { LIMIT, type Service, waitFor } from './service.ts';

/** Where pictures of the pages go, for whoever wants to look at them: BERTH_TEST_SCREENSHOTS. */
const PICTURES = process.env.BERTH_TEST_SCREENSHOTS;

export function startBrowser(): Promise<Browser> {
  const args = ['--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'];
  if (process.getuid?.() === 0) args.push('--no-sandbox');
  return chromium.launch({ executablePath: '/usr/bin/chromium', headless: true, ...LIMIT, args });
}

export interface VisitorOptions {
  readonly width?: number;
  readonly height?: number;
  readonly scheme?: 'light' | 'dark';
  /** Messages of the browser's console that belong to the case, such as those of an expected refusal. */
  readonly expected?: RegExp;
}

/** One person with a browser of her own: no session of anybody else. */
export class Visitor {
  readonly page: Page;
  readonly context: BrowserContext;
  /** What should not have happened: errors in the console, uncaught exceptions, requests that left the origin. */
  readonly wrong: string[] = [];
  readonly #service: Service;

  private constructor(context: BrowserContext, page: Page, service: Service, expected: RegExp | undefined) {
    this.context = context;
    this.page = page;
    this.#service = service;
    const origin = new URL(service.url).host;
    context.on('request', (request) => {
      const url = new URL(request.url());
      if (/^(https?|wss?):$/.test(url.protocol) && url.host !== origin) this.wrong.push(`asked ${url.href}`);
    });
    context.on('console', (message) => {
      // A page that asks whether it is signed in gets a 401 when it is not, and the browser writes that down.
      const text = `${message.text()} ${message.location().url}`;
      if (message.type() !== 'error' || /401 .*\/session$/.test(text) || expected?.test(text)) return;
      // With every container of this machine a network interface comes or goes, and Chromium breaks off what it loads.
      if (!text.includes('ERR_NETWORK_CHANGED')) this.wrong.push(`console: ${text}`);
    });
    context.on('weberror', (error) => this.wrong.push(`uncaught: ${error.error().stack}`));
  }

  static async come(browser: Browser, service: Service, options: VisitorOptions = {}): Promise<Visitor> {
    const { width = 1280, height = 800, scheme = 'light', expected } = options;
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
    context.setDefaultTimeout(60_000);
    return new Visitor(context, await context.newPage(), service, expected);
  }

  /** Goes to a page of the console, such as `#/recordings`. */
  async open(hash = ''): Promise<void> {
    await this.page.goto(`${this.#service.url}/console/${hash}`);
  }

  async signIn(key: string): Promise<void> {
    await this.page.getByLabel('API key').fill(key);
    await this.page.getByRole('button', { name: 'Sign in' }).click();
  }

  /** Waits for a live view to show the screen. */
  async sees(page = this.page): Promise<void> {
    await waitFor(
      async () => (await page.locator('.screen-state').textContent()) === 'Live',
      () => 'the screen to be live',
    );
  }

  /** Puts the pointer on a place of the sandbox's screen, in its own pixels, and clicks. */
  async clickOnScreen(x: number, y: number, page = this.page): Promise<void> {
    const canvas = page.locator('.screen canvas');
    const [box, width] = [await canvas.boundingBox(), await canvas.evaluate((c) => (c as HTMLCanvasElement).width)];
    assert.ok(box, 'there is a screen');
    const scale = box.width / width;
    await page.mouse.click(box.x + x * scale, box.y + y * scale);
  }

  /** A picture for those who look, named after what it shows. */
  async picture(name: string, page = this.page): Promise<void> {
    if (!PICTURES) return;
    mkdirSync(PICTURES, { recursive: true });
    await page.screenshot({ path: join(PICTURES, `${name}.png`) });
  }

  /** Leaves, having seen nothing wrong. */
  async leave(): Promise<void> {
    await this.context.close();
    assert.deepEqual(this.wrong, []);
  }
}
