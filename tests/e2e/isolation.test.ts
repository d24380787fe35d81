import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import WebSocket from 'ws';
import type { Sandbox } from '../../src/client/client.ts';
import { pidsBelow } from './drivers.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';

const IS_ROOT = process.getuid?.() === 0;
/** Only root can give each sandbox a user of its own; else these cases have no subject. */
const AS_ROOT = { ...LIMIT, skip: IS_ROOT ? false : 'needs root' };

const DOWNLOAD = 'what was downloaded';

/** One sandbox with the client that drives it and what can be seen of it from outside. */
interface Inhabitant {
  readonly sandbox: Sandbox;
  readonly browser: Browser;
  readonly page: Page;
  /** Its folder below the run folder. */
  readonly folder: string;
  /** The user of its browser. */
  readonly uid: number;
  /** Such as `:2`. */
  readonly display: string;
}

let service: Service;
let site: { readonly url: string; readonly server: Server };
let a: Inhabitant;
let b: Inhabitant;

before(async () => {
  site = await startSite();
  service = await startService();
  [a, b] = await Promise.all([moveIn('a'), moveIn('b')]);
}, LIMIT);

after(async () => {
  await Promise.all([a?.browser.disconnect(), b?.browser.disconnect()]);
  site?.server.close();
  site?.server.closeAllConnections();
  await service.end();
}, LIMIT);

describe('Pages', () => {
  it('json/list of one sandbox has its own pages and not those of the other.', LIMIT, async () => {
    for (const [own, other] of [
      [a, b],
      [b, a],
    ] as const) {
      const answer = await fetch(`${service.url}/sandboxes/${own.sandbox.sandboxId}/json/list`);
      const urls = ((await answer.json()) as { url: string }[]).map((target) => target.url);
      assert.ok(urls.includes(own.page.url()), urls.join());
      assert.ok(!urls.includes(other.page.url()), urls.join());
    }
  });

  it('Targets of one sandbox are not among those of the other.', LIMIT, async () => {
    const [ofA, ofB] = await Promise.all([targetsOf(a), targetsOf(b)]);
    assert.ok(ofA.length > 0 && ofB.length > 0);
    assert.deepEqual(
      ofA.filter((id) => ofB.includes(id)),
      [],
    );
  });

  it("A page's endpoint works in its own sandbox and is refused with 404 in the other.", LIMIT, async () => {
    const session = await a.page.createCDPSession();
    const { targetInfo } = await session.send('Target.getTargetInfo');
    await session.detach();
    const path = `devtools/page/${targetInfo.targetId}`;
    const base = service.url.replace(/^http/, 'ws');
    assert.equal(await handshakeStatus(`${base}/sandboxes/${a.sandbox.sandboxId}/${path}`), 101);
    assert.equal(await handshakeStatus(`${base}/sandboxes/${b.sandbox.sandboxId}/${path}`), 404);
  });

  it("A page of one sandbox gets nothing from the other's DevTools port.", LIMIT, async () => {
    const [address = ''] = listeningAddresses(mainChromiumOf(b));
    const port = Number.parseInt(address.split(':')[1] ?? '', 16);
    // From outside a browser the port does answer, so it is the right one.
    const targets = (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()) as Record<string, string>[];
    const { webSocketDebuggerUrl } = targets.find((target) => target.type === 'page') ?? {};
    assert.ok(webSocketDebuggerUrl);
    const got = await a.page.evaluate(
      async (list, socket) => [
        await fetch(list).then(
          () => 'an answer',
          () => 'nothing',
        ),
        await new Promise((resolve) => {
          const ws = new WebSocket(socket);
          ws.onopen = () => resolve('a connection');
          ws.onerror = () => resolve('nothing');
        }),
      ],
      `http://127.0.0.1:${port}/json/list`,
      webSocketDebuggerUrl,
    );
    assert.deepEqual(got, ['nothing', 'nothing']);
  });

  it('Cookies and localStorage of the same origin are not shared.', LIMIT, async () => {
    const read = (page: Page): Promise<unknown> => page.evaluate('[document.cookie, localStorage.getItem("key")]');
    await a.page.evaluate('document.cookie = "name=of-a; max-age=600"; localStorage.setItem("key", "of-a")');
    assert.deepEqual(await read(a.page), ['name=of-a', 'of-a']);
    assert.equal(new URL(a.page.url()).origin, new URL(b.page.url()).origin);
    assert.deepEqual(await read(b.page), ['', null]);
    await b.page.reload();
    assert.deepEqual(await read(b.page), ['', null]);
    await b.page.evaluate('document.cookie = "name=of-b; max-age=600"; localStorage.setItem("key", "of-b")');
    await a.page.reload();
    assert.deepEqual(await read(a.page), ['name=of-a', 'of-a']);
  });
});

describe('Files', () => {
  it("Each browser's user is its own, and no user of this machine.", AS_ROOT, () => {
    assert.notEqual(a.uid, b.uid);
    const known = readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .map((line) => Number(line.split(':')[2]));
    for (const { uid } of [a, b]) assert.ok(uid > 0 && !known.includes(uid), `uid ${uid}`);
  });

  it("The user of one browser reads its own folder and nothing of the other's.", AS_ROOT, async () => {
    for (const [own, other] of [
      [a, b],
      [b, a],
    ] as const) {
      // The same command succeeds on its own folder, so it is not the command that fails.
      assert.match((await as(own.uid, ['ls', join(own.folder, 'h')])).stdout, /profile/);
      for (const path of ['h', 'h/profile', 'h/t', 'h/Downloads', 'runtime.json', 'xauth']) {
        const theirs = join(other.folder, path);
        assert.ok(existsSync(theirs), theirs);
        const read = statSync(theirs).isDirectory() ? ['ls', theirs] : ['cat', theirs];
        const { code, stderr } = await as(own.uid, read);
        assert.ok(code !== 0 && /Permission denied/.test(stderr), `${read.join(' ')}: ${code} ${stderr}`);
      }
      const { code, stderr } = await as(own.uid, ['ls', service.runDir]);
      assert.ok(code !== 0 && /Permission denied/.test(stderr), 'nor may it list who else is there');
    }
  });

  it("The user of a browser reads neither the service's secrets nor the recordings.", AS_ROOT, async () => {
    // Through the data folder the way leads to its own downloads, so it may know that a name is there, and nothing more.
    for (const path of ['recordings', 'downloads', '']) {
      const { code, stderr } = await as(a.uid, ['ls', '-l', join(service.dataDir, path)]);
      assert.ok(code !== 0 && /Permission denied|No such file/.test(stderr), `${path}: ${code} ${stderr}`);
    }
    for (const path of ['master.key', 'history.jsonl', `downloads/${b.sandbox.sandboxId}`]) {
      const { code } = await as(a.uid, ['cp', '-r', join(service.dataDir, path), '/dev/null']);
      assert.equal(code, 1, path);
    }
    assert.equal((await as(a.uid, ['cat', join(a.folder, 'runtime.json')])).code, 1, "nor its own sandbox's secret");
  });

  it('A page of one sandbox cannot read a file of the other through file://.', AS_ROOT, async () => {
    const secret = join(b.folder, 'h', 'Downloads', 'secret.txt');
    writeFileSync(secret, 'the secret of b', { mode: 0o644 });
    const textAt = async (browser: Browser): Promise<string> => {
      const page = await browser.newPage();
      try {
        await page.goto(`file://${secret}`).catch(() => {});
        return await page.evaluate(() => document.body?.innerText ?? '');
      } finally {
        await page.close();
      }
    };
    assert.match(await textAt(b.browser), /the secret of b/, 'b itself may');
    assert.doesNotMatch(await textAt(a.browser), /the secret/);
  });

  it(
    "Nobody but a sandbox's own user reaches its VNC socket, and no browser's user the runtime's.",
    AS_ROOT,
    async () => {
      const connect = (uid: number, path: string): Promise<string> =>
        as(uid, [
          process.execPath,
          '-e',
          'require("net").connect(process.argv[1], () => done("connected")).on("error", (err) => done(err.code)); function done(text) { console.log(text); process.exit() }',
          path,
        ]).then(({ stdout, stderr }) => stdout.trim() || stderr);
      assert.equal(await connect(a.uid, join(a.folder, 'h', 'v')), 'connected');
      assert.equal(await connect(b.uid, join(a.folder, 'h', 'v')), 'EACCES');
      for (const uid of [a.uid, b.uid]) assert.equal(await connect(uid, join(a.folder, 's')), 'EACCES');
      assert.equal(await connect(a.uid, join(service.runDir, 'api')), 'EACCES', "nor the API's");
    },
  );

  it('What a page downloads lands in the folder of its own sandbox.', AS_ROOT, async () => {
    await a.page.evaluate(() => {
      const link = document.createElement('a');
      link.href = '/download';
      link.click();
    });
    const file = join(a.folder, 'h', 'Downloads', 'download.txt');
    await waitFor(() => existsSync(file), `the download at ${file}`);
    assert.equal((await as(a.uid, ['cat', file])).stdout, DOWNLOAD);
    assert.equal((await as(b.uid, ['cat', file])).code, 1);
    assert.ok(!existsSync(join(b.folder, 'h', 'Downloads', 'download.txt')));
  });

  it('Home, profile, temporary files and downloads are for their owner only.', LIMIT, () => {
    for (const { folder, uid } of [a, b]) {
      for (const path of ['h', 'h/profile', 'h/t', 'h/Downloads']) {
        const stat = statSync(join(folder, path));
        assert.deepEqual({ mode: (stat.mode & 0o777).toString(8), uid: stat.uid }, { mode: '700', uid }, path);
      }
      assert.equal((statSync(join(folder, 'runtime.json')).mode & 0o777).toString(8), '600');
    }
  });
});

describe('Screens', () => {
  it('Each sandbox has a display of its own.', LIMIT, () => {
    assert.notEqual(a.display, b.display);
  });

  it('With its own cookie a sandbox can look at its screen.', AS_ROOT, async () => {
    for (const { uid, folder, display } of [a, b]) {
      const { code, stderr } = await as(uid, grab(display), join(folder, 'xauth'));
      assert.equal(code, 0, stderr);
    }
  });

  it('Without a cookie no user can, not even the same one.', AS_ROOT, async () => {
    for (const uid of [a.uid, b.uid, 65_534]) {
      const { code, stderr } = await as(uid, grab(a.display));
      assert.ok(
        code !== 0 && /Cannot open display|Authorization required|error 1/i.test(stderr),
        `as ${uid}: ${code} ${stderr}`,
      );
    }
  });

  it("With the other sandbox's cookie neither.", AS_ROOT, async () => {
    const { code, stderr } = await as(b.uid, grab(a.display), join(b.folder, 'xauth'));
    assert.ok(code !== 0 && /Cannot open display|Invalid MIT-MAGIC-COOKIE|error 1/i.test(stderr), `${code} ${stderr}`);
  });
});

describe('Processes', () => {
  it('Neither the X server nor the VNC server listens on TCP; Chromium does on loopback only.', LIMIT, () => {
    for (const inhabitant of [a, b]) {
      for (const name of ['Xvfb', 'X0tigervnc']) {
        const pids = pidsOf(inhabitant, name);
        assert.equal(pids.length, 1, `one ${name}`);
        assert.deepEqual(listeningAddresses(pids[0] as number), [], name);
      }
      // The same look does find a listening socket where there is one.
      const chromium = listeningAddresses(mainChromiumOf(inhabitant));
      assert.ok(chromium.length > 0, 'the DevTools port');
      assert.deepEqual(
        chromium.filter((address) => !isLoopback(address)),
        [],
      );
      const all = pidsOf(inhabitant).flatMap(listeningAddresses);
      assert.deepEqual(
        all.filter((address) => !isLoopback(address)),
        [],
        'nothing else of it is open to the network either',
      );
    }
  });

  it("Chromium, X server, window manager and VNC server run as the sandbox's own user, never as root.", AS_ROOT, () => {
    for (const inhabitant of [a, b]) {
      const pids = pidsOf(inhabitant).filter((pid) => !commandOf(pid).some((arg) => /runtime\.m?js$/.test(arg)));
      assert.ok(pids.length > 5, `${pids.length} processes`);
      for (const pid of pids) {
        const status = statusOf(pid);
        const ids = [status.Uid, status.Gid].map((text) => (text ?? '').split('\t'));
        for (const id of ids.flat()) assert.equal(Number(id), inhabitant.uid, `${commandOf(pid)[0]}: ${status.Uid}`);
        assert.equal((status.Groups ?? '').trim(), '', 'no groups of the service come along');
      }
    }
  });

  it("Chromium's own sandbox is on.", AS_ROOT, async (t) => {
    if ((await as(a.uid, ['unshare', '--user', 'true'])).code !== 0) {
      assert.match(service.log(), /without its own sandbox/, 'the service says so');
      t.skip('this machine allows no user namespaces');
      return;
    }
    for (const inhabitant of [a, b]) {
      const chromium = pidsOf(inhabitant).filter((pid) => commandOf(pid)[0]?.includes('chromium'));
      const noSandbox = chromium.filter((pid) => commandOf(pid).includes('--no-sandbox'));
      assert.deepEqual(noSandbox, [], 'no process was told to go without');
      const renderers = chromium.filter((pid) => commandOf(pid).includes('--type=renderer'));
      assert.ok(renderers.length > 0);
      for (const pid of renderers) {
        assert.equal(Number(statusOf(pid).Seccomp), 2, 'a filter for system calls');
        assert.notEqual(readlinkSync(`/proc/${pid}/ns/user`), readlinkSync('/proc/self/ns/user'), 'a user namespace');
        assert.notEqual(
          readlinkSync(`/proc/${pid}/ns/net`),
          readlinkSync('/proc/self/ns/net'),
          'no network of its own',
        );
      }
    }
  });

  it('No process of one sandbox knows a path or a secret of the other, nor one of the service.', AS_ROOT, () => {
    for (const [own, other] of [
      [a, b],
      [b, a],
    ] as const) {
      const secret = JSON.parse(readFileSync(join(other.folder, 'runtime.json'), 'utf8')).secret as string;
      assert.ok(secret.length >= 32);
      for (const pid of pidsOf(own)) {
        const known = readFileSync(`/proc/${pid}/environ`, 'latin1') + commandOf(pid).join(' ');
        assert.ok(!known.includes(other.folder) && !known.includes(secret), `process ${pid}`);
        assert.ok(!/BERTH_/.test(known), `process ${pid} has settings of the service`);
      }
    }
  });
});

/** A page for every path but one. */
async function startSite(): Promise<{ url: string; server: Server }> {
  const server = createServer((req, res) => {
    if (req.url === '/download') {
      res.setHeader('content-disposition', 'attachment; filename="download.txt"');
      res.setHeader('content-type', 'application/octet-stream').end(DOWNLOAD);
      return;
    }
    res.setHeader('content-type', 'text/html; charset=utf-8');
    res.end('<!doctype html><title>page</title>');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

async function moveIn(name: string): Promise<Inhabitant> {
  const sandbox = await service.client.create();
  const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl as string, defaultViewport: null });
  const page = (await browser.pages())[0] ?? (await browser.newPage());
  await page.goto(`${site.url}/of-${name}`);
  const folder = folderOf(sandbox.sandboxId);
  const [vnc] = pidsBelow(folder).filter((pid) => commandOf(pid)[0] === 'X0tigervnc');
  assert.ok(vnc, 'a VNC server');
  const command = commandOf(vnc);
  const display = command[command.indexOf('-display') + 1] as string;
  return { sandbox, browser, page, folder, uid: statSync(join(folder, 'h')).uid, display };
}

function folderOf(sandboxId: string): string {
  const name = readdirSync(service.runDir).find((entry) => {
    const file = join(service.runDir, entry, 'runtime.json');
    return /^[0-9a-f]+$/.test(entry) && JSON.parse(readFileSync(file, 'utf8')).spec.id === sandboxId;
  });
  assert.ok(name, `a folder of ${sandboxId}`);
  return join(service.runDir, name);
}

/** Processes of one sandbox, with this program name when one is given. */
function pidsOf({ folder }: Inhabitant, program?: string): number[] {
  return pidsBelow(folder).filter((pid) => program === undefined || commandOf(pid)[0] === program);
}

/** Chromium writes its own command line anew, with spaces. */
function commandOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').split(/[\0 ]/);
  } catch {
    return []; // gone meanwhile
  }
}

function mainChromiumOf(inhabitant: Inhabitant): number {
  const profile = `--user-data-dir=${join(inhabitant.folder, 'h', 'profile')}`;
  const pids = pidsOf(inhabitant).filter((pid) => {
    const command = commandOf(pid);
    return command.includes(profile) && !command.some((arg) => arg.startsWith('--type='));
  });
  assert.equal(pids.length, 1, 'one main process of Chromium');
  return pids[0] as number;
}

function statusOf(pid: number): Record<string, string | undefined> {
  const lines = readFileSync(`/proc/${pid}/status`, 'utf8').split('\n');
  return Object.fromEntries(lines.map((line) => line.split(':\t') as [string, string]));
}

/** Local addresses of the TCP sockets on which a process listens, as `hex address:hex port` (proc(5), /proc/net/tcp). */
function listeningAddresses(pid: number): string[] {
  const inodes = new Set<string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
      if (inode) inodes.add(inode);
    } catch {} // closed meanwhile
  }
  const LISTEN = '0A';
  // As the process sees it: a renderer has a network namespace of its own.
  return ['tcp', 'tcp6'].flatMap((family) =>
    readFileSync(`/proc/${pid}/net/${family}`, 'utf8')
      .trim()
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => fields[3] === LISTEN && inodes.has(fields[9] as string))
      .map((fields) => fields[1] as string),
  );
}

function isLoopback(address: string): boolean {
  // Each group of four bytes is written in the machine's byte order, which is little-endian on all that we run on.
  const [host = ''] = address.split(':');
  return host.endsWith('7F') && host.length === 8 ? true : host === '00000000000000000000000001000000';
}

async function targetsOf({ browser }: Inhabitant): Promise<string[]> {
  const session = await browser.target().createCDPSession();
  const { targetInfos } = await session.send('Target.getTargets');
  await session.detach();
  return targetInfos.map((target) => target.targetId);
}

/** 101, or the status of the refusal. */
function handshakeStatus(url: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { handshakeTimeout: 30_000 });
    socket.once('open', () => {
      socket.terminate();
      resolve(101);
    });
    socket.once('unexpected-response', (req, res) => {
      req.destroy();
      resolve(res.statusCode);
    });
    socket.once('error', reject);
  });
}

/** A picture of a display, thrown away. */
function grab(display: string): string[] {
  const input = ['-f', 'x11grab', '-video_size', '100x100', '-i', display];
  return ['ffmpeg', '-hide_banner', '-loglevel', 'error', ...input, '-frames:v', '1', '-f', 'null', '-'];
}

/** Runs a command as another user, as the browser's own processes run: no groups, no capabilities, nothing of our environment. */
function as(
  uid: number,
  command: string[],
  xauthority?: string,
): Promise<{ code: number; stdout: string; stderr: string }> {
  const args = ['--reuid', String(uid), '--regid', String(uid), '--clear-groups', '--', ...command];
  const env = {
    PATH: '/usr/bin:/bin',
    HOME: '/nonexistent',
    LANG: 'C',
    ...(xauthority ? { XAUTHORITY: xauthority } : {}),
  };
  return new Promise((resolve) => {
    execFile('setpriv', args, { env, cwd: '/', timeout: 20_000 }, (err, stdout, stderr) => {
      resolve({ code: err ? Number(err.code ?? -1) : 0, stdout, stderr });
    });
  });
}
