/** How to connect to one sandbox from where people write programs. */
export interface Snippet {
  readonly name: string;
  readonly text: string;
}

/** `cdpUrl` has its ticket in it, so they run as they stand. */
export function snippets(cdpUrl: string): readonly Snippet[] {
  const quoted = `'${cdpUrl.replaceAll("'", '%27')}'`;
  return [
    {
      name: 'Puppeteer',
      text: `import puppeteer from 'puppeteer-core';

const browser = await puppeteer.connect({
  browserWSEndpoint: ${quoted},
  defaultViewport: null,
});
const page = await browser.newPage();
await page.goto('https://example.com');
console.log(await page.title());
await browser.disconnect();`,
    },
    {
      name: 'Playwright',
      text: `import { chromium } from 'playwright-core';

const browser = await chromium.connectOverCDP(
  ${quoted},
);
const page = await browser.contexts()[0].newPage();
await page.goto('https://example.com');
console.log(await page.title());
await browser.close();`,
    },
    {
      name: 'Python',
      text: `from playwright.sync_api import sync_playwright

with sync_playwright() as p:
    browser = p.chromium.connect_over_cdp(
        ${quoted}
    )
    page = browser.contexts[0].new_page()
    page.goto('https://example.com')
    print(page.title())
    browser.close()`,
    },
    {
      name: 'browser-use',
      text: `import asyncio
from browser_use import Agent, Browser, ChatOpenAI

browser = Browser(
    cdp_url=${quoted}
)
agent = Agent(
    task='Open example.com and tell its title',
    browser=browser,
    llm=ChatOpenAI(model='gpt-4.1-mini'),
)
asyncio.run(agent.run())`,
    },
    {
      name: 'curl',
      text: `curl ${discovery(cdpUrl)}`,
    },
    {
      name: 'WebSocket',
      text: cdpUrl,
    },
  ];
}

/** DevTools discovery over HTTP with the same ticket. */
function discovery(cdpUrl: string): string {
  const url = new URL(cdpUrl.replace(/^ws/, 'http'));
  url.pathname = url.pathname.replace(/\/ws\/automation\/?$/, '/json/list');
  return `'${url.href.replaceAll("'", '%27')}'`;
}
