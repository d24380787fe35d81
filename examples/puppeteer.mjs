// examples/puppeteer.mjs [address]: Puppeteer drives a sandbox
import puppeteer from 'puppeteer-core';

const { BERTH_URL = 'http://127.0.0.1:3000', BERTH_API_KEY = '', BERTH_CDP_URL } = process.env;
const create = () => fetch(`${BERTH_URL}/sandboxes`, { method: 'POST', headers: { 'X-API-Key': BERTH_API_KEY } });
const browserWSEndpoint = BERTH_CDP_URL ?? (await (await create()).json()).data.cdpUrl;

const browser = await puppeteer.connect({ browserWSEndpoint, defaultViewport: null });
const page = await browser.newPage();
await page.goto(process.argv[2] ?? 'https://example.com');
await page.screenshot({ path: 'puppeteer.png' });
console.log(await page.title());
await browser.disconnect();
