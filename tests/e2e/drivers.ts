/** What the end-to-end tests have to know about the driver below the service, and nothing of what they test depends on. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type Docker from 'dockerode';
import { folderOf } from '../../src/drivers/folders.ts';
import { docker, ENGINE_SOCKET, RUNTIME_IMAGE } from '../contract/engine.ts';

export type DriverName = 'local' | 'docker';

/** The files below tests/e2e/docker run those next to this one once more, on the other driver. */
export const DRIVER = (process.env.BERTH_TEST_DRIVER ?? 'local') as DriverName;
/** The files below tests/e2e/front run them once more on the other front, see BERTH_FRONT. */
export const FRONT = process.env.BERTH_TEST_FRONT ?? 'auto';
/** Of the images that this test file makes: files run at once. */
const IMAGES = `bt-${process.pid}`;

export function driverEnv(driver: DriverName): Record<string, string> {
  // The tests' own web sites are on this machine's loopback.
  const sites = { BERTH_EGRESS_ALLOW: '127.0.0.0/8,::1' };
  if (driver === 'local') return sites;
  return {
    ...sites,
    BERTH_DRIVER: 'docker',
    BERTH_DOCKER_SOCKET: ENGINE_SOCKET,
    BERTH_RUNTIME_IMAGE: RUNTIME_IMAGE,
    BERTH_ON_EXIT: 'stop',
  };
}

/** A web site of a test. */
export interface Site {
  /** Without a slash at its end. */
  readonly url: string;
  close(): void;
}

/** Serves pages on this machine's loopback, which {@link driverEnv} opens to sandboxes. */
export async function serveSite(handler: RequestListener): Promise<Site> {
  const server = createServer(handler);
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

export interface Process {
  readonly pid: number;
  readonly command: string;
}

/** Where a sandbox's processes are looked for: the service that made it. */
interface Home {
  readonly runDir: string;
  readonly driver: DriverName;
}

/** A sandbox's processes; their numbers are the container's own where it has one. */
export async function processesOf(home: Home, sandboxId: string): Promise<Process[]> {
  if (home.driver === 'local') {
    return pidsBelow(folderOf(home.runDir, sandboxId)).map((pid) => ({ pid, command: commandOf(pid) }));
  }
  const line = 'for p in /proc/[0-9]*; do echo "$(basename $p) $(tr "\\0" " " <$p/cmdline)"; done 2>/dev/null';
  const { text } = await inside(sandboxId, line);
  return text.split('\n').flatMap((row) => {
    const [, pid, command] = /^(\d+) (.+)$/.exec(row) ?? [];
    return pid && command && !command.startsWith('sh -c') ? [{ pid: Number(pid), command: command.trim() }] : [];
  });
}

/** The environment of one of them, as its sandbox's own user may read it; empty when it has gone meanwhile. */
export async function environmentOf(home: Home, sandboxId: string, pid: number): Promise<string> {
  if (home.driver === 'docker') return (await inside(sandboxId, `cat /proc/${pid}/environ`)).text;
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1');
  } catch (err) {
    if (['ENOENT', 'ESRCH'].includes((err as NodeJS.ErrnoException).code ?? '')) return '';
    throw err;
  }
}

/** What tells each part of a sandbox from its other processes. */
const PARTS = {
  runtime: (command: string) => /^\S*node .*runtime\.json/.test(command),
  // Chromium writes its own command line anew; its children have a type, its crash handler another program.
  chromium: (command: string) => /chromium\/chromium .*--user-data-dir=/.test(command) && !command.includes('--type='),
  renderer: (command: string) => command.includes('--type=renderer'),
  xvfb: (command: string) => command.startsWith('Xvfb '),
  openbox: (command: string) => command.startsWith('openbox '),
  vnc: (command: string) => command.startsWith('X0tigervnc '),
  ffmpeg: (command: string) => command.startsWith('ffmpeg '),
} as const;
export type Part = keyof typeof PARTS;

/** Sends a signal to one part of a sandbox; to all its renderers, of which Chromium keeps a spare one. */
export async function signalPart(
  home: Home,
  sandboxId: string,
  part: Part,
  signal: NodeJS.Signals = 'SIGKILL',
): Promise<void> {
  const all = await processesOf(home, sandboxId);
  const found = all.filter((process) => PARTS[part](process.command));
  assert.ok(found.length === 1 || (part === 'renderer' && found.length > 0), `one ${part} in ${JSON.stringify(all)}`);
  const pids = found.map(({ pid }) => pid);
  if (home.driver === 'local') for (const pid of pids) process.kill(pid, signal);
  else {
    const { ok, text } = await inside(sandboxId, `kill -${signal.slice(3)} ${pids.join(' ')}`);
    // Without its runtime the container ends, perhaps before the shell in it could say that it has done it.
    assert.ok(ok || (part === 'runtime' && signal === 'SIGKILL'), text);
  }
}

/** Lets a sandbox's processes, and what they start from now on, have the processor before all others; as root, and locally. */
export async function goesFirst(home: Home, sandboxId: string): Promise<void> {
  if (home.driver !== 'local') return;
  for (const { pid } of await processesOf(home, sandboxId)) {
    try {
      for (const thread of readdirSync(`/proc/${pid}/task`)) setPriority(Number(thread), -15);
    } catch {
      // We may not, or it has gone meanwhile.
    }
  }
}

let made = 0;

/** Settings for a service in whose sandboxes this shell script is the browser. What it takes is removed in the end. */
export async function envWithBrowser(script: string, driver = DRIVER): Promise<Record<string, string>> {
  if (driver === 'docker') return envWithFile('/usr/lib/chromium/chromium', `#!/bin/sh\n${script}\n`);
  const file = join(tmpdir(), `bt-browser-${process.pid}-${++made}`);
  writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  process.once('exit', () => rmSync(file));
  return { BERTH_CHROMIUM: file };
}

/** Settings for the sandbox image with one file replaced; the image is removed by {@link clearEngine}. */
export async function envWithFile(path: string, content: string): Promise<Record<string, string>> {
  // Removed first: what is there may be a link to something that the image needs.
  const Cmd = ['-c', `rm ${path} && printf %s "$0" >${path} && chmod 755 ${path}`, content];
  const container = await docker.createContainer({
    Image: RUNTIME_IMAGE,
    User: '0:0',
    Entrypoint: ['sh'],
    Cmd,
    HostConfig: { NetworkMode: 'none' },
  });
  const tag = String(++made);
  try {
    await container.start();
    assert.equal((await container.wait()).StatusCode, 0);
    const { User, Entrypoint } = (await docker.getImage(RUNTIME_IMAGE).inspect()).Config;
    await container.commit({ repo: IMAGES, tag, User, Entrypoint, Cmd: [] });
  } finally {
    await container.remove({ force: true });
  }
  return { BERTH_RUNTIME_IMAGE: `${IMAGES}:${tag}` };
}

/** The engine's id of a sandbox's container; empty when there is none. */
export async function containerOf(sandboxId: string): Promise<string> {
  const found = await docker.listContainers({ all: true, filters: { label: [`berth.id=${sandboxId}`] } });
  return found[0]?.Id ?? '';
}

/** Runs a shell line in the sandbox as its own user; what it prints, and how it ended. */
export async function inside(sandboxId: string, line: string): Promise<{ ok: boolean; text: string }> {
  const args = ['-H', `unix://${ENGINE_SOCKET}`, 'exec', await containerOf(sandboxId), 'sh', '-c', line];
  return promisify(execFile)('docker', args, { timeout: 30_000, maxBuffer: 16 * 1024 * 1024 }).then(
    ({ stdout, stderr }) => ({ ok: true, text: stdout + stderr }),
    (err: { stdout?: string; stderr?: string }) => ({ ok: false, text: `${err.stdout}${err.stderr}` }),
  );
}

/** What still runs of the sandboxes of a service, as sentences. */
export async function runningIn(home: Home): Promise<string[]> {
  if (home.driver === 'local') return pidsBelow(home.runDir).map((pid) => `process ${pid} ${commandOf(pid)}`);
  return (await containersOf(home)).filter((c) => c.State === 'running').map((c) => `container ${c.Names[0]}`);
}

/** The containers that the sandboxes of a service have or had, as sentences. */
export async function containersLeft(home: Home): Promise<string[]> {
  return (await containersOf(home)).map((c) => `container ${c.Names[0]} ${c.State}`);
}

/** Removes what the sandboxes of a service, and this test file, may have left in the engine. */
export async function clearEngine(home: Home): Promise<void> {
  for (const { Id } of await containersOf(home)) await docker.getContainer(Id).remove({ force: true, v: true });
  const images = await docker.listImages({ filters: { reference: [IMAGES] } });
  for (const { Id } of images) await docker.getImage(Id).remove({ force: true });
}

async function containersOf({ runDir }: Home): Promise<Docker.ContainerInfo[]> {
  const all = await docker.listContainers({ all: true });
  return all.filter(({ Mounts }) => Mounts.some(({ Source = '' }) => Source.startsWith(`${runDir}/`)));
}

/** Processes that belong to sandboxes below this folder, by command line or environment; zombies do not count. */
export function pidsBelow(folder: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 1 && pid !== process.pid && mentions(pid, `${folder}/`));
}

function mentions(pid: number, text: string): boolean {
  try {
    const cmdline = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
    return cmdline !== '' && (cmdline.includes(text) || readFileSync(`/proc/${pid}/environ`, 'latin1').includes(text));
  } catch {
    return false; // gone meanwhile
  }
}

function commandOf(pid: number): string {
  try {
    const command = readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
    return command || readFileSync(`/proc/${pid}/stat`, 'latin1').slice(0, 60);
  } catch {
    return '(gone meanwhile)';
  }
}

/** Sockets of X servers that are dead and were those of a sandbox's own user. */
export function deadXSockets(): string[] {
  const listening = readFileSync('/proc/net/unix', 'utf8');
  return readdirSync('/tmp/.X11-unix')
    .map((name) => `/tmp/.X11-unix/${name}`)
    .filter(
      (path) =>
        (statSync(path, { throwIfNoEntry: false })?.uid ?? 0) > 1_879_048_191 && !listening.includes(` ${path}\n`),
    );
}
