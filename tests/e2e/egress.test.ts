/** What pages and clients reach, by default and with lists: attacked from a real page. Upstream proxies: egress-proxy.test.ts. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import type { Sandbox } from '../../src/client/client.ts';
import { DRIVER, inside, processesOf } from './drivers.ts';
import { type Inner, type Listener, listenUdp, MACHINE, PUBLIC, serveBoth, serveDns } from './egress-fixtures.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';

let service: Service;
let sandbox: Sandbox;
let browser: Browser;
let page: Page;
let site: Listener;
let inner: Inner;
let udp: Awaited<ReturnType<typeof listenUdp>>;
let dns: Awaited<ReturnType<typeof serveDns>>;
/** Of names whose answer changes: how often they have been asked for. */
const times = new Map<string, number>();

/** *.public: the open site. *.inner: this machine. *.machine: its other address. *.rebind: open at first, then inner. */
function resolve(name: string): string | undefined {
  const top = name.split('.').at(-1);
  if (top === 'rebind') {
    times.set(name, (times.get(name) ?? 0) + 1);
    return times.get(name) === 1 ? PUBLIC : '127.0.0.1';
  }
  return { public: PUBLIC, inner: '127.0.0.1', machine: MACHINE, meta: '169.254.169.254' }[top ?? ''];
}

before(async () => {
  dns = await serveDns(resolve);
  udp = await listenUdp();
  ({ site, inner } = await serveBoth((req, res) => {
    const url = new URL(req.url ?? '', 'http://x');
    const to = url.searchParams.get('to');
    if (to) return res.writeHead(302, { location: to }).end();
    if (url.pathname === '/hang') return;
    res.setHeader('content-type', 'text/html').end(`<!doctype html><title>public</title>${req.headers.host}`);
  }));
  service = await startService({
    env: { BERTH_EGRESS_ALLOW: PUBLIC, BERTH_EGRESS_DNS: `127.0.0.1:${dns.port}`, BERTH_EGRESS_DENY: 'closed.public' },
  });
  sandbox = await service.client.create();
  browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl ?? '', defaultViewport: null });
}, LIMIT);
after(async () => {
  await browser?.disconnect();
  await service?.end();
  for (const one of [site, inner, udp, dns]) one?.close();
}, LIMIT);
beforeEach(async () => {
  await page?.close().catch(() => {});
  page = await browser.newPage();
  await page.goto(`http://www.public:${site.port}/`);
  assert.equal(await page.title(), 'public');
  inner.heard.length = 0;
}, LIMIT);

/** Status and text of what a page gets to see there. */
async function visit(url: string): Promise<string> {
  const answer = await page.goto(url, { timeout: 30_000 });
  return `${answer?.status()} ${await page.evaluate(() => document.body.innerText)}`;
}

/** This machine, as pages may name it. */
function hosts(): string[] {
  const loopback = ['127.0.0.1', '127.1', '127.0.0.2', '2130706433', '0x7f000001', '0177.0.0.1', '0.0.0.0', '0'];
  const six = ['[::1]', '[::]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[64:ff9b::127.0.0.1]'];
  const names = ['localhost', 'localhost.', 'a.localhost', 'a.inner', 'a.inner.', 'user@a.inner', 'a.machine'];
  return [...loopback, ...six, ...names, ...(MACHINE ? [MACHINE] : [])];
}

describe('a page', () => {
  it('reaches no service of the host, whatever it is called, and reads why', LIMIT, async () => {
    for (const host of hosts()) {
      assert.match(
        await visit(`http://${host}:${site.port}/`),
        /^(403 [\s\S]*closed to this sandbox: it is a private|502)/,
        host,
      );
    }
    assert.deepEqual(inner.heard, []);
    assert.ok(!(await visit(`http://a.inner:${site.port}/`)).includes('127.0.0.1'), 'not where the name leads');
  });

  it("does not reach Berth's API", LIMIT, async () => {
    const { port } = new URL(service.url);
    for (const host of hosts()) {
      assert.match(await visit(`http://${host}:${port}/health`), /^(403 [\s\S]*closed to this sandbox|502)/, host);
    }
    assert.match(await visit(`http://127.0.0.1:${port}/health`), /Berth's own address/);
  });

  it('does not reach the metadata of a cloud, or what the operator closes', LIMIT, async () => {
    for (const host of ['169.254.169.254', '[fd00:ec2::254]', 'a.meta', '[::ffff:169.254.169.254]', '168.63.129.16']) {
      assert.match(await visit(`http://${host}/latest/meta-data/`), /^403 /, host);
    }
    assert.match(await visit(`http://closed.public:${site.port}/`), /^403 [\s\S]*BERTH_EGRESS_DENY/);
  });

  it('is not led there by a redirect', LIMIT, async () => {
    for (const host of ['127.0.0.1', 'a.inner', '[::1]']) {
      const to = encodeURIComponent(`http://${host}:${site.port}/`);
      assert.match(await visit(`http://www.public:${site.port}/?to=${to}`), /^403 /);
    }
    assert.deepEqual(inner.heard, []);
  });

  it('is not led there by a name that changes its mind', LIMIT, async () => {
    // Looked up twice, the second answer would be connected to.
    for (let i = 0; i < 10; i++) {
      assert.match(await visit(`http://n${i}.rebind:${site.port}/`), /^200 /);
    }
    await waitFor(async () => {
      await page.goto(`http://www.public:${site.port}/`);
      await sleep(500);
      return (await visit(`http://n0.rebind:${site.port}/`)).startsWith('403');
    }, 'the name to be asked for again');
    assert.ok((times.get('n0.rebind') ?? 0) > 1);
    assert.deepEqual(inner.heard, []);
  });

  it('gets nothing there by fetch, WebSocket, events, beacons, images, frames, forms or workers', LIMIT, async () => {
    for (const host of ['127.0.0.1', 'localhost', 'a.inner', '[::1]', ...(MACHINE ? [MACHINE] : [])]) {
      const got = await page.evaluate(async (target) => {
        const settled = (promise: Promise<unknown>): Promise<unknown> =>
          Promise.race([promise, new Promise((done) => setTimeout(() => done('late'), 5000))]).catch(String);
        const element = (name: string): Promise<unknown> =>
          new Promise((done) => {
            const one = document.createElement(name) as HTMLImageElement;
            one.onload = one.onerror = (event) => done((event as Event).type);
            one.src = `http://${target}/${name}`;
            document.body.append(one);
          });
        const socket = new Promise((done) => {
          const one = new WebSocket(`ws://${target}/socket`);
          one.onopen = () => done('open');
          one.onerror = () => done('error');
        });
        const events = new Promise((done) => {
          const one = new EventSource(`http://${target}/events`);
          one.onopen = () => done('open');
          one.onerror = () => done(one.close());
        });
        navigator.sendBeacon(`http://${target}/beacon`, 'x');
        const code = `fetch('http://${target}/worker',{mode:'no-cors'}).then(() => postMessage('done'), () => postMessage('failed'))`;
        const worker = new Promise((done) => {
          new Worker(URL.createObjectURL(new Blob([code]))).onmessage = ({ data }) => done(data);
        });
        const form = document.createElement('form');
        document.body.insertAdjacentHTML('beforeend', '<iframe name="f"></iframe>');
        Object.assign(form, { action: `http://${target}/form`, method: 'post', target: 'f' });
        document.body.append(form);
        form.submit();
        const cors = settled(fetch(`http://${target}/cors`).then((answer) => answer.text()));
        const others = ['img', 'script', 'iframe', 'video'].map((name) => settled(element(name)));
        const opaque = settled(fetch(`http://${target}/opaque`, { mode: 'no-cors', method: 'POST', body: 'x' }));
        await Promise.all([opaque, settled(worker), settled(events), ...others]);
        return { socket: await settled(socket), cors: await cors };
      }, `${host}:${site.port}`);
      assert.equal(got.socket, 'error');
      assert.notEqual(got.cors, 'INNER');
    }
    assert.deepEqual(inner.heard, []);
  });

  it('sends no datagram: no STUN of WebRTC, no WebTransport', LIMIT, async () => {
    const found = await page.evaluate(
      async (ports) => {
        const peer = new RTCPeerConnection({
          iceServers: ports.hosts.map((host) => ({ urls: `stun:${host}:${ports.udp}` })),
        });
        const candidates: string[] = [];
        peer.onicecandidate = ({ candidate }) => candidate && candidates.push(candidate.candidate);
        peer.createDataChannel('x');
        await peer.setLocalDescription(await peer.createOffer());
        const transports = ports.hosts.map((host) => {
          try {
            return new WebTransport(`https://${host}:${ports.udp}/`).ready.catch(() => {});
          } catch {
            return undefined;
          }
        });
        await Promise.race([Promise.all(transports), new Promise((done) => setTimeout(done, 3000))]);
        await new Promise((done) => setTimeout(done, 3000));
        return candidates;
      },
      { udp: udp.port, hosts: ['127.0.0.1', ...(MACHINE ? [MACHINE] : [])] },
    );
    assert.deepEqual(udp.heard, []);
    assert.deepEqual(found, [], 'nor does it learn an address');
  });

  it('does not download from there', LIMIT, async () => {
    await page.evaluate((port) => {
      document.body.innerHTML = `<a download="stolen" href="http://127.0.0.1:${port}/x">x</a><a download="stolen2" href="http://www.public:${port}/?to=${encodeURIComponent(`http://a.inner:${port}/`)}">x</a>`;
      for (const link of document.querySelectorAll('a')) link.click();
    }, site.port);
    await sleep(1500);
    assert.deepEqual(inner.heard, []);
  });

  it('opens no file, and with containers a client opens none either', LIMIT, async () => {
    assert.match(await page.evaluate(() => fetch('file:///etc/passwd').then((a) => a.text(), String)), /TypeError/);
    await page.evaluate(() => {
      const frame = document.createElement('iframe');
      frame.src = 'file:///etc/passwd';
      document.body.append(frame);
      location.href = 'file:///etc/passwd';
    });
    await sleep(500);
    for (const frame of page.frames()) assert.doesNotMatch(frame.url(), /^file:/);
    if (DRIVER === 'local') return;
    for (const url of [
      'file:///etc/passwd',
      'view-source:file:///etc/passwd',
      'FILE:/etc/passwd',
      'file:///proc/1/environ',
    ]) {
      await assert.rejects(page.goto(url), /ERR_BLOCKED_BY_ADMINISTRATOR/, url);
      await sleep(200); // the error's own page is on its way
    }
  });

  it('is online, and may have a hundred connections at once', LIMIT, async () => {
    const reached = await page.evaluate(async (port) => {
      const abort = new AbortController();
      for (let i = 0; i < 110; i++) {
        void fetch(`http://h${i}.public:${port}/hang`, { mode: 'no-cors', signal: abort.signal }).catch(() => {});
      }
      await new Promise((done) => setTimeout(done, 500));
      const answer = await Promise.race([
        fetch(`http://last.public:${port}/`, { mode: 'no-cors' }).then(() => 'reached'),
        new Promise((done) => setTimeout(() => done('late'), 10_000)),
      ]);
      abort.abort();
      return answer;
    }, site.port);
    assert.equal(reached, 'reached');
    assert.equal(await page.evaluate(() => navigator.onLine), true);
  });
});

describe('a client', () => {
  it('gets no further with a context that has another proxy, or none', LIMIT, async () => {
    const proxies = [`http://127.0.0.1:${site.port}`, 'direct://', `socks5://127.0.0.1:${site.port}`];
    for (const proxyServer of proxies) {
      for (const proxyBypassList of [[], ['127.0.0.1', 'localhost', 'a.inner', '[::1]']]) {
        const context = await browser.createBrowserContext({ proxyServer, proxyBypassList });
        const other = await context.newPage();
        for (const host of ['127.0.0.1', 'localhost', 'a.inner', '[::1]']) {
          await assert.rejects(other.goto(`http://${host}:${site.port}/`), /net::ERR/, `${host} by ${proxyServer}`);
        }
        await context.close();
      }
    }
    assert.deepEqual(inner.heard, []);
  });

  it('finds its own pages in a context of its own', LIMIT, async () => {
    const context = await browser.createBrowserContext();
    const other = await context.newPage();
    await other.goto(`http://www.public:${site.port}/`);
    assert.equal(await other.title(), 'public');
    await context.close();
  });
});

/** What has broken out of Chromium on the local driver has the machine's network: SECURITY.md. */
const containers = DRIVER === 'docker' ? describe : () => {};
containers('programs in a container', () => {
  it('have the way out alone, by the same rules', LIMIT, async () => {
    const ask = async (line: string): Promise<string> => {
      const script = `const s=require('net').connect('/run/egress/s',()=>s.write(process.argv[1].replace(/~/g,'\\r\\n')));s.setTimeout(5000,()=>s.destroy());s.pipe(process.stdout)`;
      return (await inside(sandbox.sandboxId, `node -e "${script}" '${line}'`)).text;
    };
    const { port } = new URL(service.url);
    assert.match(
      await ask(`GET http://www.public:${site.port}/ HTTP/1.1~host: x~connection: close~~`),
      /^HTTP\/1.1 200/,
    );
    for (const target of [`127.0.0.1:${port}`, `[::1]:${site.port}`, `0x7f.1:${site.port}`, `a.inner:${site.port}`]) {
      assert.match(await ask(`CONNECT ${target} HTTP/1.1~host: x~~`), /^HTTP\/1.1 (403|502)/, target);
    }
    const { text } = await inside(
      sandbox.sandboxId,
      'touch /run/egress/x; rm -f /run/egress/s; test -S /run/egress/s && echo is there',
    );
    assert.match(text, /is there/);
    assert.equal(text.match(/Read-only file system/g)?.length, 2, text);
    assert.deepEqual(inner.heard, []);
  });
});

describe("a sandbox's lists", () => {
  it('narrow its reach, are answered as they were given, and refused when they are none', LIMIT, async () => {
    const egress = { allow: ['*.public', '127.0.0.1'], deny: ['no.public'] };
    const mine = await service.client.create({ egress });
    assert.deepEqual(mine.egress, egress);
    const client = await puppeteer.connect({ browserWSEndpoint: mine.cdpUrl ?? '' });
    const tab = await client.newPage();
    const status = async (host: string): Promise<string> => {
      const answer = await tab.goto(`http://${host}:${site.port}/`);
      return `${answer?.status()} ${await tab.evaluate(() => document.body.innerText)}`;
    };
    assert.match(await status('yes.public'), /^200/);
    assert.match(await status('no.public'), /^403 [\s\S]*egress\.deny/);
    assert.match(await status(PUBLIC), /^403 [\s\S]*egress\.allow/);
    assert.match(await status('127.0.0.1'), /^403 [\s\S]*private/, 'what the operator closes stays closed');
    await client.disconnect();
    await service.client.delete(mine.sandboxId);
    await assert.rejects(service.client.create({ egress: { allow: ['http://x'] } }), /egress\.allow\.0: /);
    assert.deepEqual(inner.heard, []);
    await sleep(1500);
    const metrics = await (await fetch(`${service.url}/metrics`)).text();
    for (const rule of ['berth', 'private', 'operator', 'deny', 'allow']) {
      assert.match(metrics, new RegExp(`berth_egress_denied_total\\{rule="${rule}"\\} [1-9]`));
    }
    assert.match(metrics, /berth_egress_bytes_total\{direction="in"\} [1-9]/);
  });
});

/** The egress process of a service. */
function egressOf({ process: { pid } }: Service): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);
  const found = children.filter((child) => readFileSync(`/proc/${child}/cmdline`, 'latin1').includes('cmd/egress.js'));
  assert.equal(found.length, 1, 'one egress process');
  return found[0] as number;
}

describe('the egress process', () => {
  it('is another one when it is killed, and pages load again', LIMIT, async () => {
    const before = egressOf(service);
    process.kill(before, 'SIGKILL');
    await waitFor(() => !isAlive(before), 'it to end');
    // What comes while the next one starts, waits.
    assert.match(await visit(`http://after.public:${site.port}/`), /^200 /);
    assert.notEqual(egressOf(service), before);
    assert.match(await visit(`http://a.inner:${site.port}/`), /^403 /, 'by the same rules');
    assert.deepEqual(inner.heard, []);
  });

  it(
    'ends with its service, however that ends, and the next one opens the ways of adopted sandboxes',
    LIMIT,
    async () => {
      const egress = { deny: ['no.public'] };
      const env = { BERTH_EGRESS_ALLOW: PUBLIC, BERTH_EGRESS_DNS: `127.0.0.1:${dns.port}`, BERTH_POOL_SIZE: '1' };
      const first = await startService({ env });
      let second: Service | undefined;
      try {
        const mine = await first.client.create({ egress });
        const old = egressOf(first);
        await first.kill();
        await waitFor(() => !isAlive(old), 'the egress process to end');
        second = await startService({ on: first, env });
        const found = await second.client.get(mine.sandboxId);
        assert.deepEqual(found.egress, egress);
        const client = await puppeteer.connect({ browserWSEndpoint: found.cdpUrl ?? '' });
        const tab = await client.newPage();
        assert.equal((await tab.goto(`http://yes.public:${site.port}/`))?.status(), 200);
        assert.equal((await tab.goto(`http://no.public:${site.port}/`))?.status(), 403);
        await client.disconnect();
        await second.stop();
      } finally {
        await second?.clean();
        await first.clean();
      }
    },
  );

  it('has the rules of whoever claims a pooled sandbox', LIMIT, async () => {
    const env = { BERTH_EGRESS_ALLOW: PUBLIC, BERTH_EGRESS_DNS: `127.0.0.1:${dns.port}`, BERTH_POOL_SIZE: '1' };
    const pooled = await startService({ env });
    try {
      const ready = async (): Promise<boolean> =>
        (await (await fetch(`${pooled.url}/metrics`)).text()).includes('berth_pool_ready{template="default"} 1');
      await waitFor(ready, 'the pool');
      const mine = await pooled.client.create({ egress: { allow: ['yes.public'] } });
      assert.deepEqual(mine.startStages, {}, 'it is one of the pool');
      const client = await puppeteer.connect({ browserWSEndpoint: mine.cdpUrl ?? '' });
      const tab = await client.newPage();
      assert.equal((await tab.goto(`http://yes.public:${site.port}/`))?.status(), 200);
      assert.equal((await tab.goto(`http://other.public:${site.port}/`))?.status(), 403);
      await client.disconnect();
      await pooled.stop();
    } finally {
      await pooled.clean();
    }
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

it('the sandbox knows nothing of its rules', LIMIT, async () => {
  const lines = (await processesOf(service, sandbox.sandboxId)).map(({ command }) => command).join('\n');
  assert.match(lines, /--proxy-server=http:\/\/egress\.invalid:1/);
  assert.ok(!lines.includes('closed.public'));
});
