import type { Sandbox } from './client.ts';

/** What a snippet can be made for, in the order in which they are shown. */
export const SNIPPETS = ['puppeteer', 'playwright', 'python', 'browser-use', 'curl', 'ws'] as const;
export type SnippetKind = (typeof SNIPPETS)[number];

/** What a snippet needs of a sandbox; absent addresses mean that it has ended, or that the key may only look. */
type Addressed = Pick<Sandbox, 'cdpUrl'>;

const JS = { quote: (text: string): string => JSON.stringify(text).replaceAll('\u2028', '\\u2028') };
/** JSON's strings are strings of Python, too. */
const PYTHON = { quote: (text: string): string => JSON.stringify(text) };
const SHELL = { quote: (text: string): string => `'${text.replaceAll("'", "'\\''")}'` };

/** A few lines that drive this sandbox as they stand: its address is in them, with its ticket. Undefined without an address. */
export function snippet(kind: SnippetKind, { cdpUrl }: Addressed): string | undefined {
  return cdpUrl === undefined ? undefined : WRITERS[kind](cdpUrl);
}

const WRITERS: Readonly<Record<SnippetKind, (cdpUrl: string) => string>> = {
  puppeteer: (url) => `import puppeteer from 'puppeteer-core';

const browser = await puppeteer.connect({
  browserWSEndpoint: ${JS.quote(url)},
  defaultViewport: null,
});
const page = await browser.newPage();
await page.goto('https://example.com');
console.log(await page.title());
await browser.disconnect();
`,
  playwright: (url) => `import { chromium } from 'playwright-core';

const browser = await chromium.connectOverCDP(${JS.quote(url)});
const page = await browser.contexts()[0].newPage();
await page.goto('https://example.com');
console.log(await page.title());
await browser.close();
`,
  python: (url) => `from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    browser = playwright.chromium.connect_over_cdp(${PYTHON.quote(url)})
    page = browser.contexts[0].new_page()
    page.goto("https://example.com")
    print(page.title())
    browser.close()
`,
  'browser-use': (url) => `import asyncio

from browser_use import Agent, Browser, ChatOpenAI

async def main():
    browser = Browser(cdp_url=${PYTHON.quote(url)})
    agent = Agent(task="Say what example.com is about", llm=ChatOpenAI(model="gpt-4.1-mini"), browser=browser)
    print((await agent.run()).final_result())

asyncio.run(main())
`,
  curl: (url) => `curl -sS ${SHELL.quote(discovery(url))}
`,
  ws: (url) => `import WebSocket from 'ws';

const socket = new WebSocket(${JS.quote(url)}, { perMessageDeflate: false });
socket.on('open', () => socket.send('{"id":1,"method":"Browser.getVersion"}'));
socket.on('message', (message) => {
  console.log(JSON.parse(message).result.product);
  socket.close();
});
`,
};

/** DevTools' discovery of the same sandbox, which the same ticket opens. */
function discovery(cdpUrl: string): string {
  const url = new URL(cdpUrl);
  url.protocol = url.protocol === 'wss:' ? 'https:' : 'http:';
  url.pathname = url.pathname.replace(/\/ws\/automation\/?$/, '/json/version');
  return url.href;
}
