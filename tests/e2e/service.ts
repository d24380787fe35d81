import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { BerthClient } from '../../src/client/client.ts';

const SERVER = fileURLToPath(new URL('../../cmd/server.js', import.meta.url));

/** The real program in a process of its own, on a free port, in a temporary folder. */
export interface Service {
  readonly url: string;
  readonly client: BerthClient;
  readonly dataDir: string;
  readonly runDir: string;
  readonly process: ChildProcess;
  /** Everything it has logged so far. */
  log(): string;
  /** SIGTERM, wait, and check that nothing is left behind; removes the folders. */
  stop(): Promise<void>;
  /** `kill -9`; folders and sandboxes stay. */
  kill(): Promise<void>;
  /** Ends whatever a test left, however it failed, then removes the folders. For `after` hooks. */
  clean(): Promise<void>;
}

export interface ServiceOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly apiKey?: string;
  /** Continue on the folders of an earlier service (after {@link Service.kill}). */
  readonly on?: Service;
}

/** Dead X sockets that were here before this file's first service; not ours to count. */
let deadBefore: ReadonlySet<string> | undefined;

/** Starts a service and waits, at most 30 s, until it serves. */
export async function startService(options: ServiceOptions = {}): Promise<Service> {
  const base = options.on ? undefined : mkdtempSync(join(tmpdir(), 'bt-'));
  // The users of the sandboxes have to get through to their own folders.
  if (base) chmodSync(base, 0o711);
  const dataDir = options.on?.dataDir ?? join(base as string, 'd');
  const runDir = options.on?.runDir ?? join(base as string, 'r');
  deadBefore ??= new Set(deadXSockets());
  const child = spawn(process.execPath, [SERVER], {
    env: { PATH: process.env.PATH, BERTH_PORT: '0', BERTH_DATA_DIR: dataDir, BERTH_RUN_DIR: runDir, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  child.stdout.on('data', (chunk) => (log += chunk));
  child.stderr.on('data', (chunk) => (log += chunk));
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const deadline = Date.now() + 30_000;
  let url: string | undefined;
  while (!url) {
    url = /"url":"([^"]+)"/.exec(log)?.[1];
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`the service did not start: ${log}`);
    await sleep(20);
  }
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    await Promise.race([exited, sleep(40_000, undefined, { ref: false })]);
  };
  return {
    url,
    client: new BerthClient(url, options.apiKey),
    dataDir,
    runDir,
    process: child,
    log: () => log,
    async stop() {
      await end('SIGTERM');
      assert.equal(
        child.exitCode,
        0,
        `the service ended with ${child.exitCode ?? child.signalCode}: ${log.slice(-2000)}`,
      );
      await assertNothingLeft(runDir);
      rmSync(join(dataDir, '..'), { recursive: true, force: true });
    },
    kill: () => end('SIGKILL'),
    async clean() {
      await end('SIGKILL');
      const left = processesOf(runDir);
      for (const pid of left) process.kill(pid, 'SIGKILL');
      await waitFor(() => processesOf(runDir).length === 0, 'processes to go');
      // What we have just killed could not tidy up, and would be counted against other tests.
      if (left.length > 0) for (const path of deadXSockets()) rmSync(path, { force: true });
      rmSync(join(dataDir, '..'), { recursive: true, force: true });
    },
  };
}

/** Processes that belong to sandboxes below this run folder, by command line or environment; zombies do not count. */
export function processesOf(runDir: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 1 && pid !== process.pid && mentions(pid, `${runDir}/`));
}

function mentions(pid: number, text: string): boolean {
  try {
    const cmdline = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
    return cmdline !== '' && (cmdline.includes(text) || readFileSync(`/proc/${pid}/environ`, 'latin1').includes(text));
  } catch {
    return false; // gone meanwhile
  }
}

/** No process, no folder, no X socket of a sandbox below this run folder. */
export async function assertNothingLeft(runDir: string): Promise<void> {
  const leftovers = (): string[] => [
    ...processesOf(runDir).map((pid) => `process ${pid} ${commandOf(pid)}`),
    ...(existsSync(runDir) ? readdirSync(runDir).filter((name) => name !== 'api') : []).map((name) => `folder ${name}`),
    ...deadXSockets().filter((path) => !deadBefore?.has(path)),
  ];
  await waitFor(
    () => leftovers().length === 0,
    () => `nothing to be left, but there is: ${leftovers().join('; ')}`,
    5000,
  );
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').slice(0, 120);
  } catch {
    return '(gone meanwhile)';
  }
}

/** Sockets of X servers that are dead and were those of a sandbox's own user. */
function deadXSockets(): string[] {
  const listening = readFileSync('/proc/net/unix', 'utf8');
  return readdirSync('/tmp/.X11-unix')
    .map((name) => `/tmp/.X11-unix/${name}`)
    .filter(
      (path) =>
        (statSync(path, { throwIfNoEntry: false })?.uid ?? 0) > 1_879_048_191 && !listening.includes(` ${path}\n`),
    );
}

/** Waits for a condition with a bound in milliseconds; the error says what for. */
export async function waitFor(
  condition: () => boolean | Promise<boolean>,
  what: string | (() => string),
  limitMs = 20_000,
): Promise<void> {
  const deadline = Date.now() + limitMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${limitMs} ms for ${typeof what === 'string' ? what : what()}`);
    await sleep(25);
  }
}
