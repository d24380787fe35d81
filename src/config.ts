/**
 * The settings of the service. Each row of the table says name, default, meaning and danger, and parses its own text;
 * the README's table is printed from the same rows. Nothing here reads the environment: `cmd/` passes it in.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { type AccessConfig, accessSettings } from './config/access.ts';
import { type ArchiveConfig, archiveContradiction, archiveSettings } from './config/archive.ts';
import { type DoorConfig, doorContradiction, doorExposure, doorSettings } from './config/door.ts';
import { type EgressConfig, egressSettings } from './config/egress.ts';
import { type LimitsConfig, limitsSettings } from './config/limits.ts';
import { parsePool } from './config/pool.ts';
import { parseAddress, parseInteger, parseWord, type Setting } from './config/setting.ts';
import type { PoolSize } from './core/demand.ts';

/** A setting that stops the start: one sentence that names it and says what is wrong. Never holds a key. */
export class ConfigError extends Error {
  constructor(sentence: string) {
    super(sentence);
    this.name = 'ConfigError';
  }
}

/** Words that pino knows, and silence. */
export type LogLevel = (typeof LOG_LEVELS)[number];
const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

/** The settings, parsed, checked and frozen. */
export interface Config extends AccessConfig, ArchiveConfig, DoorConfig, LimitsConfig, EgressConfig {
  /** Address to listen on; loopback unless there are keys. */
  readonly host: string;
  /** TCP port; 0 takes any free one. */
  readonly port: number;
  /** What the public door is made of; see src/gateway/front.ts. */
  readonly front: 'auto' | 'ws';
  /** Absolute path. */
  readonly dataDir: string;
  /** Absolute path, at most 38 bytes. */
  readonly runDir: string;
  /** What starts sandboxes. */
  readonly driver: 'local' | 'docker';
  /** For the Docker driver: path of the engine's unix socket. */
  readonly dockerSocket: string;
  readonly runtimeImage: string;
  /** Per sandbox, for drivers that can limit: MiB, whole processors, processes and threads. */
  readonly sandboxMemoryMb: number;
  readonly sandboxCpus: number;
  readonly sandboxPids: number;
  /** What the downloads of one sandbox may take, in MiB. */
  readonly downloadsMb: number;
  /** How long recordings are kept, in days, and how many GiB of them: of all, and of each tenant. 0: no limit. */
  readonly recordingsDays: number;
  readonly recordingsGb: number;
  readonly recordingsTenantGb: number;
  /** Absolute path of the file with templates. */
  readonly templates: string | undefined;
  /** Without a trailing slash; undefined: the address each request came to. */
  readonly publicUrl: string | undefined;
  readonly maxSandboxes: number;
  /** Sandboxes that start at once. */
  readonly maxStarts: number;
  /** Creates that wait for their turn. */
  readonly maxQueue: number;
  /** Their longest wait. */
  readonly queueSeconds: number;
  /** Memory that starts must leave free; 0: not looked at. */
  readonly minFreeMemoryMb: number;
  /** Sandboxes started ahead of demand, by template. */
  readonly poolSizes: ReadonlyMap<string, PoolSize>;
  /** Absolute path of the browser; undefined: looked for on PATH. */
  readonly chromium: string | undefined;
  readonly logLevel: LogLevel;
  readonly startTimeoutSeconds: number;
  /** What happens to running sandboxes when the service is asked to end. */
  readonly onExit: 'stop' | 'keep' | undefined;
}

/**
 * A unix socket's path takes at most 107 bytes (unix(7)), and the longest one is Chromium's own:
 * `<runDir>/<12 letters>/h/t/org.chromium.Chromium.XXXXXX/SingletonSocket` has 63 bytes behind the run folder.
 */
const MAX_RUN_DIR_BYTES = 38;

const settings: { readonly [K in keyof Config]: Setting<Config[K]> } = {
  host: {
    name: 'BERTH_HOST',
    default: '127.0.0.1',
    meaning: 'Address to listen on.',
    danger: 'Other than loopback opens the service to the network; refused without `BERTH_API_KEYS`.',
    parse: parseHost,
  },
  port: {
    name: 'BERTH_PORT',
    default: '3000',
    meaning: 'TCP port; 0 takes any free one.',
    danger: 'A Kubernetes service named `berth` injects a variable of this name; set `enableServiceLinks: false`.',
    parse: (text) => parseInteger(text, 0, 65_535),
  },
  front: {
    name: 'BERTH_FRONT',
    default: 'auto',
    meaning:
      'What the public door is made of: `auto`, uWebSockets.js where it loads, else the `ws` package; `ws`, that one.',
    danger: 'For tests and diagnosis; `ws` takes more processor time for every message.',
    parse: (text) => parseWord(text, ['auto', 'ws'] as const),
  },
  dataDir: {
    name: 'BERTH_DATA_DIR',
    default: './data',
    meaning: 'Folder of recordings, downloads and the memory of ended sandboxes.',
    danger: 'Holds what was on screen and what pages sent; keep it private and watch its size.',
    parse: (text) => path.resolve(text),
  },
  runDir: {
    name: 'BERTH_RUN_DIR',
    default: '',
    defaultShown: '`berth-<uid>-<hash of the data folder>` in the temporary folder',
    meaning: `Folder of sockets and profiles of running sandboxes; at most ${MAX_RUN_DIR_BYTES} bytes long.`,
    danger: 'Whoever may write here owns the running sandboxes; two services must not share it.',
    parse: parseRunDir,
  },
  driver: {
    name: 'BERTH_DRIVER',
    default: 'local',
    meaning: 'What starts sandboxes: `local`, processes of this machine; `docker`, one hardened container each.',
    danger: '`local` shares kernel and network with the browsers: for pages you trust and for development.',
    parse: parseDriver,
  },
  dockerSocket: {
    name: 'BERTH_DOCKER_SOCKET',
    default: '/var/run/docker.sock',
    meaning: "Path of the engine's unix socket, Podman's included.",
    danger: 'Whoever may use it is root on this machine.',
    parse: (text) => path.resolve(text),
  },
  runtimeImage: {
    name: 'BERTH_RUNTIME_IMAGE',
    default: 'berth-runtime',
    meaning: 'Image of a sandbox; `npm run images` builds it.',
    danger: 'Its programs see what users do.',
    parse: parseImage,
  },
  sandboxMemoryMb: {
    name: 'BERTH_SANDBOX_MEMORY_MB',
    default: '2048',
    meaning: 'Memory of one container, 256 to 262144, its profile included.',
    danger: 'A page that needs more ends its tab or the sandbox.',
    parse: (text) => parseInteger(text, 256, 262_144),
  },
  sandboxCpus: {
    name: 'BERTH_SANDBOX_CPUS',
    default: '2',
    meaning: 'Processors of one container, 1 to 64.',
    danger: 'One makes pages and recorder wait for each other.',
    parse: (text) => parseInteger(text, 1, 64),
  },
  sandboxPids: {
    name: 'BERTH_SANDBOX_PIDS',
    default: '1024',
    meaning: 'Processes and threads of one container, 128 to 32768.',
    danger: 'Chromium takes some 200 at rest.',
    parse: (text) => parseInteger(text, 128, 32_768),
  },
  downloadsMb: {
    name: 'BERTH_DOWNLOADS_MB',
    default: '2048',
    meaning:
      'What the downloads of one sandbox may take on disk, 1 to 1048576; over it its browser is ended and the newest go.',
    danger:
      'Looked at once a second, so one second of writing comes on top; times sandboxes remembered, keep it below the disk.',
    parse: (text) => parseInteger(text, 1, 1_048_576),
  },
  recordingsDays: {
    name: 'BERTH_RECORDINGS_DAYS',
    default: '0',
    meaning: 'Days after its end that a recording is removed, 0 to 36500; 0 keeps it until it is deleted.',
    danger: 'What is removed is gone, from the archive too.',
    parse: (text) => parseInteger(text, 0, 36_500),
  },
  recordingsGb: {
    name: 'BERTH_RECORDINGS_GB',
    default: '0',
    meaning: 'GiB that all recordings together may take, 0 to 1048576; over it the oldest go. 0 sets no limit.',
    danger: 'Looked at once a minute, so a minute of writing comes on top.',
    parse: (text) => parseInteger(text, 0, 1_048_576),
  },
  recordingsTenantGb: {
    name: 'BERTH_RECORDINGS_TENANT_GB',
    default: '0',
    meaning: 'GiB that the recordings of one tenant may take, 0 to 1048576; over it its oldest go. 0 sets no limit.',
    danger: 'As `BERTH_RECORDINGS_GB`; recordings of which nobody remembers the tenant are not counted.',
    parse: (text) => parseInteger(text, 0, 1_048_576),
  },
  ...accessSettings,
  publicUrl: {
    name: 'BERTH_PUBLIC_URL',
    default: '',
    defaultShown: 'the address of the request',
    meaning: 'The http or https address that clients use, put into the URLs of answers.',
    danger: 'A wrong one hands out URLs, with credentials in them, that lead elsewhere.',
    parse: (text) => parseAddress(text, 'https://berth.example.com'),
  },
  maxSandboxes: {
    name: 'BERTH_MAX_SANDBOXES',
    default: '20',
    meaning: 'Sandboxes at the same time, 1 to 1000; one more is refused with 429.',
    danger: 'Each takes up to about a gigabyte of memory under load.',
    parse: (text) => parseInteger(text, 1, 1000),
  },
  maxStarts: {
    name: 'BERTH_MAX_STARTS',
    default: String(Math.max(2, os.availableParallelism())),
    defaultShown: 'number of processors, at least 2',
    meaning: 'Sandboxes that start at once, 1 to 1000; further creates wait in the queue.',
    danger: 'More than there are processors makes every start slower, up to its time limit.',
    parse: (text) => parseInteger(text, 1, 1000),
  },
  maxQueue: {
    name: 'BERTH_MAX_QUEUE',
    default: '50',
    meaning: 'Creates that wait for a start or for memory, 0 to 1000; one more is refused with 429.',
    danger: 'Each that waits holds a connection and counts as a sandbox.',
    parse: (text) => parseInteger(text, 0, 1000),
  },
  queueSeconds: {
    name: 'BERTH_QUEUE_SECONDS',
    default: '30',
    meaning: 'Longest wait in the queue in seconds, 1 to 600; then 429.',
    danger: 'Longer than callers have patience, and they hang up.',
    parse: (text) => parseInteger(text, 1, 600),
  },
  minFreeMemoryMb: {
    name: 'BERTH_MIN_FREE_MEMORY_MB',
    default: '512',
    meaning: 'Memory that starting sandboxes must leave free, 0 to 1048576; creates wait for it. 0 does not look.',
    danger: 'What runs already may still grow: too little, and the machine swaps or kills.',
    parse: (text) => parseInteger(text, 0, 1_048_576),
  },
  templates: {
    name: 'BERTH_TEMPLATES',
    default: '',
    defaultShown: 'none',
    meaning:
      'Path of a JSON file with defaults for creates by `templateName`: `{"name": {fields of POST /sandboxes}}`.',
    danger: 'The template `default` is also for those who name none.',
    parse: (text) => (text === '' ? undefined : path.resolve(text)),
  },
  poolSizes: {
    name: 'BERTH_POOL_SIZE',
    default: '0',
    meaning:
      'Sandboxes started ahead of demand and kept ready for creates, 0 to 100; 0 keeps none. By template: `default=2,wide=1`. ' +
      '`2..8` keeps as many as creates came in the last minute, but no fewer than 2 and no more than 8.',
    danger:
      'Each takes 200 to 420 MB at rest (the more there are, the less), and is given up when a create needs its room.',
    parse: parsePool,
  },
  chromium: {
    name: 'BERTH_CHROMIUM',
    default: '',
    defaultShown: 'found on `PATH`',
    meaning: 'Path of the browser.',
    danger: 'Started as it is, with the rights of the service.',
    parse: parseChromium,
  },
  logLevel: {
    name: 'BERTH_LOG_LEVEL',
    default: 'info',
    meaning: `One of ${LOG_LEVELS.map((level) => `\`${level}\``).join(', ')}.`,
    danger: '`silent` hides failures; `trace` and `debug` are slow.',
    parse: (text) => parseWord(text, LOG_LEVELS),
  },
  startTimeoutSeconds: {
    name: 'BERTH_START_TIMEOUT_SECONDS',
    default: '60',
    meaning: 'Seconds that a sandbox may take to become READY, 1 to 600.',
    danger: 'Too short fails sandboxes on a busy machine.',
    parse: (text) => parseInteger(text, 1, 600),
  },
  onExit: {
    name: 'BERTH_ON_EXIT',
    default: '',
    defaultShown: '`keep` with containers, else `stop`',
    meaning:
      'On SIGTERM or Ctrl-C: `stop` ends all sandboxes; `keep` leaves them to their own clocks, and the next start takes them over.',
    danger: '`keep` leaves browsers running with nobody to reach them until then.',
    parse: (text) => (text === '' ? undefined : parseWord(text, ['stop', 'keep'] as const)),
  },
  ...doorSettings,
  ...limitsSettings,
  ...egressSettings,
  ...archiveSettings,
};

/** Every setting, in the order of the README's table. */
export const SETTINGS: readonly Setting[] = Object.values(settings);

/** Variables with our prefix that belong to programs which talk to a service; a server may have them around. */
const CLIENT_VARIABLES = [
  ...['BERTH_URL', 'BERTH_API_KEY', 'BERTH_PROFILE', 'BERTH_DEBUG'],
  // What `berth run` gives to a script.
  ...['BERTH_CDP_URL', 'BERTH_SANDBOX_ID', 'BERTH_LIVE_URL'],
];

/** Parses the settings out of `env`; an empty variable counts as unset. Throws {@link ConfigError}. */
export function loadConfig(env: Readonly<Record<string, string | undefined>>): Config {
  refuseUnknown(Object.keys(env));
  const read = <K extends keyof Config>(key: K, fallback = settings[key].default): Config[K] => {
    const { name, parse } = settings[key];
    try {
      return parse(env[name] || fallback);
    } catch (err) {
      throw new ConfigError(`${name} ${(err as Error).message}.`);
    }
  };
  const runDir = read('runDir', defaultRunDir(read('dataDir')));
  const rows = Object.keys(settings) as (keyof Config)[];
  // The type of the table sees to it that it has a row for each field.
  const all = Object.fromEntries(rows.map((key) => [key, key === 'runDir' ? runDir : read(key)]));
  const config = all as unknown as Config;
  const contradiction = archiveContradiction(config) ?? doorContradiction(config);
  if (contradiction) throw new ConfigError(contradiction);
  return Object.freeze(config);
}

/** Why a service of these settings would be open to strangers; undefined when it is not. `keys`: how many there are, those of the keys file included. */
export function exposure(config: Config, keys: number): string | undefined {
  const { host } = config;
  const exposed = doorExposure(config, keys > 0, isLoopback(host));
  if (exposed !== undefined || keys > 0 || isLoopback(host)) return exposed;
  return `BERTH_HOST is ${host}, which others can reach, but there are no keys (BERTH_API_KEYS, or berth keys add), so anybody could use your browsers; set keys or listen on 127.0.0.1.`;
}

/** The README's table of settings, in Markdown. */
export function settingsTable(): string {
  const rows = SETTINGS.map(({ name, default: text, defaultShown, meaning, danger }) => {
    return `| \`${name}\` | ${defaultShown ?? `\`${text}\``} | ${meaning} | ${danger} |`;
  });
  return ['| Setting | Default | Meaning | Danger |', '|---|---|---|---|', ...rows].join('\n');
}

/** One folder per user and data folder, so that services side by side do not meet, and a restart finds its own again. */
function defaultRunDir(dataDir: string): string {
  const hash = createHash('sha256').update(dataDir).digest('hex').slice(0, 8);
  return path.join(os.tmpdir(), `berth-${process.getuid?.() ?? 0}-${hash}`);
}

function refuseUnknown(names: readonly string[]): void {
  const known = [...SETTINGS.map((setting) => setting.name), ...CLIENT_VARIABLES];
  for (const name of names) {
    if (!name.startsWith('BERTH_') || known.includes(name)) continue;
    const byDistance = known.map((candidate) => ({ candidate, distance: editDistance(name, candidate) }));
    const [nearest] = byDistance.sort((a, b) => a.distance - b.distance);
    throw new ConfigError(`${name} is not a setting; the nearest is ${nearest?.candidate}.`);
  }
}

/** Levenshtein's, a row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (net.isIPv4(host) && host.startsWith('127.'));
}

function parseHost(text: string): string {
  if (net.isIP(text) !== 0 || /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(text)) return text;
  throw new Error('must be an IP address or a host name, without scheme and port');
}

function parseRunDir(text: string): string {
  const folder = path.resolve(text);
  const bytes = Buffer.byteLength(folder);
  if (bytes <= MAX_RUN_DIR_BYTES) return folder;
  throw new Error(
    `must be at most ${MAX_RUN_DIR_BYTES} bytes long for the sockets in it to have valid names, but ${folder} has ${bytes}`,
  );
}

function parseDriver(text: string): 'local' | 'docker' {
  if (text === 'kubernetes') throw new Error(`is ${text}, but this version has no such driver, only local and docker`);
  return parseWord(text, ['local', 'docker']);
}

function parseImage(text: string): string {
  if (/^[a-z0-9][A-Za-z0-9_.:/@-]{0,254}$/.test(text)) return text;
  throw new Error('must be the name of an image, such as berth-runtime or registry.example.com/berth-runtime:1');
}

/** Looked at right here because with the local driver the browser is on this machine. */
function parseChromium(text: string): string | undefined {
  if (text === '') return undefined;
  const file = path.resolve(text);
  try {
    fs.accessSync(file, fs.constants.X_OK);
    if (fs.statSync(file).isFile()) return file;
  } catch {
    // Told below.
  }
  throw new Error(`must be the path of a program, and ${file} is none`);
}
