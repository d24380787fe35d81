/** What a service needs of this machine, looked at one by one. */
import { execFile } from 'node:child_process';
import { readFile, stat, statfs } from 'node:fs/promises';
import { createServer } from 'node:net';
import { freemem } from 'node:os';
import { dirname } from 'node:path';
import type { Io, Machine } from '../io.ts';
import { findOnPath } from '../open.ts';
import { size } from '../output.ts';
import { askEngine } from './engine.ts';
import { type Finding, failed, ok, warning } from './finding.ts';

/** Of Node.js, as package.json has it. */
const OLDEST_NODE = [20, 10] as const;
/** What brings each program on Debian and Ubuntu; cmd/setup.mjs installs the same. */
const PROGRAMS = {
  Xvfb: 'xvfb',
  openbox: 'openbox',
  X0tigervnc: 'tigervnc-scraping-server',
  ffmpeg: 'ffmpeg',
  ffprobe: 'ffmpeg',
  setpriv: 'util-linux',
} as const;
/** A day of recording takes some gigabytes; below this a sandbox can hardly start. */
const DISK_LOW = 2e9;
const DISK_NEEDED = 200e6;
/** What one sandbox takes at rest, in MiB. */
const SANDBOX_MB = 300;

/** Each check answers a finding, or several, or none where it does not matter; none of them throws. */
export const CHECKS: readonly ((io: Io, machine: Machine) => Promise<Finding | Finding[]>)[] = [
  programs,
  engine,
  namespaces,
  port,
  disk,
  memory,
];

export function node(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const [oldMajor, oldMinor] = OLDEST_NODE;
  if (major > oldMajor || (major === oldMajor && minor >= oldMinor)) return ok('Node', process.version);
  return failed('Node', `${process.version} is too old.`, `Install Node ${OLDEST_NODE.join('.')} or newer.`);
}

/** Containers bring their own. */
async function programs({ env }: Io, { driver, chromium }: Machine): Promise<Finding | Finding[]> {
  if (driver !== 'local') return [];
  const missing = Object.keys(PROGRAMS).filter((name) => !findOnPath(name, env.PATH)) as (keyof typeof PROGRAMS)[];
  const names: string[] = [...missing, ...(chromium === undefined ? ['chromium'] : [])];
  if (names.length === 0) return ok('Packages', `${Object.keys(PROGRAMS).join(', ')} and ${chromium}`);
  const packages = new Set([...missing.map((name) => PROGRAMS[name]), ...(chromium === undefined ? ['chromium'] : [])]);
  return failed(
    'Packages',
    `Missing on PATH: ${names.join(', ')}.`,
    `On Debian or Ubuntu: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${[...packages].join(' ')} fonts-liberation`,
  );
}

async function engine(_: Io, { driver, dockerSocket, runtimeImage }: Machine): Promise<Finding | Finding[]> {
  if (driver !== 'docker') return [];
  const version = await askEngine(dockerSocket, 'GET', '/version').catch((err: NodeJS.ErrnoException) => err);
  if (version instanceof Error) {
    const { code } = version as NodeJS.ErrnoException;
    const fix =
      code === 'EACCES'
        ? 'Run this as root or as a member of the group that owns the socket; whoever may use it is root.'
        : 'Start the engine (systemctl start docker), or name its socket in BERTH_DOCKER_SOCKET.';
    return failed('Engine', `No container engine answers at ${dockerSocket} (${code ?? version.message}).`, fix);
  }
  const { Version, Os, Arch } = version.body as { Version?: string; Os?: string; Arch?: string };
  const found = ok('Engine', `${Version} for ${Os}/${Arch} at ${dockerSocket}`);
  const image = await askEngine(dockerSocket, 'GET', `/images/${runtimeImage}/json`).catch(() => undefined);
  const labels = (image?.body as { Config?: { Labels?: Record<string, string> } } | undefined)?.Config?.Labels;
  if (image?.status === 200 && labels?.['berth.runtime'] === '1') return [found, ok('Image', runtimeImage)];
  const what = image?.status === 200 ? 'has no Berth runtime in it' : 'is missing';
  return [found, failed('Image', `The image ${runtimeImage} ${what}.`, 'Build it with: npm run images')];
}

/** Chromium's own sandbox is made of them. */
async function namespaces({ env }: Io, { driver }: Machine): Promise<Finding | Finding[]> {
  const limit = Number((await readFile('/proc/sys/user/max_user_namespaces', 'utf8').catch(() => '1')).trim());
  if (limit === 0) {
    const fix = 'sudo sysctl user.max_user_namespaces=15000 (and into /etc/sysctl.d/ to keep it)';
    return warning('Namespaces', 'User namespaces are switched off, so Chromium runs without its own sandbox.', fix);
  }
  if (driver !== 'local') return ok('Namespaces', 'user namespaces are there');
  // As the users of sandboxes are: root may always.
  const unshare = ['unshare', '--user', '--map-root-user', 'true'];
  const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
  const [command = '', ...args] = process.getuid?.() === 0 ? [...nobody, ...unshare] : unshare;
  if (!findOnPath(command, env.PATH) || !findOnPath('unshare', env.PATH)) return [];
  const works = await new Promise((resolve) =>
    execFile(command, args, { timeout: 10_000 }, (err) => resolve(err === null)),
  );
  if (works) return ok('Namespaces', 'ordinary users may make user namespaces');
  return warning(
    'Namespaces',
    'Ordinary users may make no user namespaces, so Chromium runs without its own sandbox.',
    'sudo sysctl kernel.unprivileged_userns_clone=1 on Debian; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0',
  );
}

async function port(_: Io, { host, port: wanted }: Machine): Promise<Finding> {
  const shown = host.includes(':') ? `[${host}]` : host;
  const fault = await new Promise<string | undefined>((resolve) => {
    const server = createServer();
    server.once('error', (err: NodeJS.ErrnoException) => resolve(err.code ?? err.message));
    server.listen(wanted, host, () => server.close(() => resolve(undefined)));
  });
  if (fault === undefined) return ok('Port', `${shown}:${wanted} is free`);
  if (fault !== 'EADDRINUSE')
    return failed(
      'Port',
      `${shown}:${wanted} cannot be listened on (${fault}).`,
      'Set BERTH_HOST and BERTH_PORT to another.',
    );
  const health = await fetch(`http://${shown}:${wanted}/health`, { signal: AbortSignal.timeout(3000) })
    .then((answer) => answer.json() as Promise<{ status?: string }>)
    .catch(() => undefined);
  if (health?.status === 'ok') return ok('Port', `a service serves at ${shown}:${wanted} already`);
  return failed(
    'Port',
    `${shown}:${wanted} is taken by another program.`,
    'End that, or set BERTH_PORT to another port.',
  );
}

async function disk(_: Io, { dataDir }: Machine): Promise<Finding> {
  let folder = dataDir;
  while (folder !== dirname(folder) && !(await stat(folder).catch(() => undefined))) folder = dirname(folder);
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  const message = `${size(free)} free for ${dataDir}`;
  const fix = 'Make room, set BERTH_RECORDINGS_GB, or put BERTH_DATA_DIR on a larger disk.';
  if (free < DISK_NEEDED) return failed('Disk', `Only ${message}.`, fix);
  return free < DISK_LOW ? warning('Disk', `Only ${message}.`, fix) : ok('Disk', message);
}

async function memory(_: Io, { minFreeMemoryMb }: Machine): Promise<Finding> {
  const kilobytes = /^MemAvailable:\s+(\d+)/m.exec(await readFile('/proc/meminfo', 'utf8').catch(() => ''))?.[1];
  const megabytes = Math.floor((kilobytes === undefined ? freemem() / 1024 : Number(kilobytes)) / 1024);
  const fit = Math.max(0, Math.floor((megabytes - minFreeMemoryMb) / SANDBOX_MB));
  const message = `${size(megabytes * 1024 * 1024)} free, enough for about ${fit} sandboxes at rest`;
  const fix = 'End what else runs, add memory, or lower BERTH_MIN_FREE_MEMORY_MB.';
  if (fit === 0) return failed('Memory', `${message}.`, fix);
  return fit < 3 ? warning('Memory', `${message}.`, fix) : ok('Memory', message);
}
