// examples/playwright.mjs [address]: Playwright drives a sandbox
import { chromium } from 'playwright-core';

const { BERTH_URL = 'http://127.0.0.1:3000', BERTH_API_KEY = '', BERTH_CDP_URL } = process.env;
const create = () => fetch(`${BERTH_URL}/sandboxes`, { method: 'POST', headers: { 'X-API-Key': BERTH_API_KEY } });
const endpoint = BERTH_CDP_URL ?? (await (await create()).json()).data.cdpUrl;

const browser = await chromium.connectOverCDP(endpoint);
const page = await browser.contexts()[0].newPage();
await page.goto(process.argv[2] ?? 'https://example.com');
await page.screenshot({ path: 'playwright.png' });
console.log(await page.title());
await browser.close();
