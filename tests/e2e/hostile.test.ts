/** Pages that do their worst, beside a neighbour who must not notice. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import { DRIVER } from './drivers.ts';
import { LIMIT, type Service, startService } from './service.ts';

/** How long each page has its way, in milliseconds. */
const RAGE_MS = 1000;

/** What a page does on a click, which allows it more than a script alone. */
const ATTACKS: Readonly<Record<string, string>> = {
  'endless alerts': 'setInterval(() => { alert(1); confirm(2); prompt(3); }, 0)',
  popups: 'setInterval(() => { for (let i = 0; i < 20; i++) open("about:blank", "", "width=100,height=100"); }, 10)',
  'windows that open windows':
    'const bomb = () => { const w = open(); if (w) { w.setTimeout(bomb, 50); setTimeout(bomb, 50); } }; bomb()',
  fullscreen:
    'setInterval(() => { document.documentElement.requestFullscreen().catch(() => {}); document.body.requestPointerLock(); }, 10)',
  'print dialogs': 'setInterval(() => print(), 10)',
  'downloads without an end':
    'const b = URL.createObjectURL(new Blob([new Uint8Array(8e6)])); setInterval(() => { const a = document.createElement("a"); a.href = b; a.download = "x" + Math.random(); a.click(); }, 20)',
  'workers that start workers':
    'const code = "onmessage = (e) => setInterval(() => { try { new Worker(e.data).postMessage(e.data) } catch {} }, 1)"; const u = URL.createObjectURL(new Blob([code])); for (let i = 0; i < 50; i++) new Worker(u).postMessage(u)',
  'history spam': 'for (let i = 0; ; i++) history.pushState({ i }, "", "#" + i)',
  'a busy loop': 'for (;;);',
  'frames in frames':
    'const add = (d) => { for (let i = 0; i < 5; i++) { const f = d.createElement("iframe"); d.body.append(f); setTimeout(() => add(f.contentDocument), 10); } }; add(document)',
  'titles and addresses without an end': 'setInterval(() => { document.title = "x".repeat(1e6) + Math.random(); }, 1)',
};
/** Those that are after the machine, which a container has another one of. */
const IN_CONTAINERS_TOO = ['downloads without an end', 'workers that start workers', 'frames in frames'];
/** What the limits of a container are for. */
const IN_CONTAINERS: Readonly<Record<string, string>> = {
  'all the memory':
    'const hold = []; setInterval(() => { for (let i = 0; i < 20; i++) hold.push(new Uint8Array(1e7).fill(1)); }, 10)',
};

describe('A page that does its worst', { timeout: 3 * LIMIT.timeout }, () => {
  let service: Service;
  let neighbour: Browser;
  let page: Page;

  before(async () => {
    service = await startService({ env: { BERTH_DOWNLOADS_MB: '64', BERTH_SANDBOX_MEMORY_MB: '1024' } });
    const { cdpUrl = '' } = await service.client.create({ sandboxId: 'neighbour' });
    neighbour = await puppeteer.connect({ browserWSEndpoint: cdpUrl, defaultViewport: null });
    page = (await neighbour.pages())[0] ?? assert.fail('the neighbour has no page');
    await page.setContent('<title>calm</title><p>calm</p>');
  });
  after(async () => {
    await neighbour?.disconnect();
    await service.end();
  });

  async function neighbourIsWell(): Promise<void> {
    for (let i = 0; i < 50; i++) assert.equal(await page.evaluate((n: number) => n + 1, i), i + 1);
    assert.ok((await page.screenshot()).length > 1000);
    assert.equal(await page.title(), 'calm');
    const { browserRestarts, status } = await service.client.get('neighbour');
    assert.deepEqual([browserRestarts, status], [0, 'READY']);
  }

  const everywhere = Object.entries(ATTACKS).filter(([name]) => DRIVER === 'local' || IN_CONTAINERS_TOO.includes(name));
  const attacks = [...everywhere, ...(DRIVER === 'docker' ? Object.entries(IN_CONTAINERS) : [])];
  for (const [name, script] of attacks) {
    it(`${name}: the neighbour works on, and the sandbox can be ended`, LIMIT, async () => {
      const { sandboxId, cdpUrl = '' } = await service.client.create();
      const hostile = await puppeteer.connect({ browserWSEndpoint: cdpUrl, defaultViewport: null });
      try {
        const [tab] = await hostile.pages();
        assert.ok(tab);
        const began = new Promise<void>((resolve) => tab.on('console', (line) => line.text() === 'began' && resolve()));
        const onclick = `console.log("began"); setTimeout(() => { ${script} })`;
        await tab.setContent(`<button onclick='${onclick}'>go</button>`);
        // What a stuck page leaves unanswered is not what is tested.
        tab.click('button').catch(() => {});
        await began;
        await Promise.all([sleep(RAGE_MS), neighbourIsWell()]);
        await neighbourIsWell();
        const { status, endedReason } = await service.client.get(sandboxId);
        if (status !== 'READY') assert.match(endedReason ?? '', /^failed: .*(memory|crash|died|restart|ended)/);
      } finally {
        await hostile.disconnect();
      }
      await service.client.delete(sandboxId);
      await neighbourIsWell();
    });
  }
});
