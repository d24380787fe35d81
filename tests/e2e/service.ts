import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { BerthClient } from '../../src/client/client.ts';
import {
  clearEngine,
  containersLeft,
  DRIVER,
  type DriverName,
  deadXSockets,
  driverEnv,
  FRONT,
  pidsBelow,
  runningIn,
} from './drivers.ts';

/** For a case: far above what any takes, so that a hang fails the case and not the whole run. */
export const LIMIT = { timeout: 180_000 };
/** For a step of one: long enough for a machine that is busy with other tests. */
const STEP_MS = 60_000;

/** For tests that ask more, or show more wrong keys, than one address or tenant may. */
export const UNLIMITED = {
  BERTH_ADDRESS_CONNECTIONS: '0',
  BERTH_ADDRESS_FAILURES_PER_MINUTE: '0',
  BERTH_ADDRESS_REQUESTS_PER_MINUTE: '0',
  BERTH_ADDRESS_UPGRADES_PER_MINUTE: '0',
  BERTH_TENANT_CREATES_PER_MINUTE: '0',
  BERTH_TENANT_TICKETS_PER_MINUTE: '0',
};

/** Characters of its log above which answers that were no fault of the service are left out. */
const MAX_LOG = 64 * 1024 * 1024;

/** The program itself. */
export const SERVER = fileURLToPath(new URL('../../cmd/server.js', import.meta.url));

/** The real program in a process of its own, on a free port, in a temporary folder. */
export interface Service {
  readonly url: string;
  readonly driver: DriverName;
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
  /** Ends whatever a test left, however it failed, then removes the folders. */
  clean(): Promise<void>;
  /** The one, and then the other, however the one went. For `after` hooks. */
  end(): Promise<void>;
}

export interface ServiceOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly apiKey?: string;
  /** Default: the driver that this test file is run on. */
  readonly driver?: DriverName;
  /** The compiled program. Default: {@link SERVER}. */
  readonly program?: string;
  /** Its folders lie in this one, which stays. Default: a folder of its own, which goes. */
  readonly base?: string;
  /** Continue on the folders of an earlier service (after {@link Service.kill}). */
  readonly on?: Service;
}

/** Dead X sockets that were here before this file's first service; not ours to count. */
let deadBefore: ReadonlySet<string> | undefined;

/** Starts a service and waits until it serves. */
export async function startService(options: ServiceOptions = {}): Promise<Service> {
  const base = options.on ? undefined : mkdtempSync(join(options.base ?? tmpdir(), 'bt-'));
  // The users of the sandboxes have to get through to their own folders.
  if (base) chmodSync(base, 0o711);
  const dataDir = options.on?.dataDir ?? join(base as string, 'd');
  const runDir = options.on?.runDir ?? join(base as string, 'r');
  const driver = options.driver ?? options.on?.driver ?? DRIVER;
  deadBefore ??= new Set(deadXSockets());
  const child = spawn(process.execPath, [options.program ?? SERVER], {
    env: {
      PATH: process.env.PATH,
      BERTH_PORT: '0',
      BERTH_DATA_DIR: dataDir,
      BERTH_RUN_DIR: runDir,
      BERTH_FRONT: FRONT,
      ...driverEnv(driver),
      ...options.env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  const keep = (chunk: Buffer): void => {
    log += chunk;
    // A fuzz of an hour says more than one string can hold.
    if (log.length > MAX_LOG) log = log.replaceAll(/^.*"status":[234]\d\d.*"msg":"request".*\n/gm, '');
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const deadline = Date.now() + STEP_MS;
  let url: string | undefined;
  while (!url) {
    url = /"url":"([^"]+)"/.exec(log)?.[1];
    if (child.exitCode !== null || Date.now() > deadline) {
      child.kill('SIGKILL');
      if (base) rmSync(base, { recursive: true, force: true });
      throw new Error(`the service did not start: ${log}`);
    }
    await sleep(20);
  }
  const signalAndWait = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    await Promise.race([exited, sleep(STEP_MS, undefined, { ref: false })]);
  };
  const service: Service = {
    url,
    driver,
    client: new BerthClient(url, options.apiKey),
    dataDir,
    runDir,
    process: child,
    log: () => log,
    async stop() {
      await signalAndWait('SIGTERM');
      assert.equal(
        child.exitCode,
        0,
        `the service ended with ${child.exitCode ?? child.signalCode}: ${log.slice(-2000)}`,
      );
      await assertNothingLeft(service);
      rmSync(join(dataDir, '..'), { recursive: true, force: true });
    },
    kill: () => signalAndWait('SIGKILL'),
    async clean() {
      await signalAndWait('SIGKILL');
      if (driver === 'docker') await clearEngine(service);
      const left = pidsBelow(runDir);
      for (const pid of left) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // Gone with another that we have just killed.
        }
      }
      await waitFor(() => pidsBelow(runDir).length === 0, 'processes to go');
      // What we have just killed could not tidy up, and would be counted against other tests.
      if (left.length > 0) for (const path of deadXSockets()) rmSync(path, { force: true });
      rmSync(join(dataDir, '..'), { recursive: true, force: true });
    },
    end: () => service.stop().finally(() => service.clean()),
  };
  return service;
}

/** Starts a service for one case, and has it end without a trace. */
export async function withService(options: ServiceOptions, use: (service: Service) => Promise<void>): Promise<void> {
  const service = await startService(options);
  try {
    await use(service);
    await service.stop();
  } finally {
    await service.clean();
  }
}

/** No process or container, no folder, no X socket of this service's sandboxes. */
export async function assertNothingLeft(service: Service): Promise<void> {
  const { runDir, driver } = service;
  const leftovers = async (): Promise<string[]> => [
    ...(driver === 'docker' ? await containersLeft(service) : await runningIn(service)),
    ...(existsSync(runDir) ? readdirSync(runDir).filter((name) => name !== 'api') : []).map((name) => `folder ${name}`),
    ...deadXSockets().filter((path) => !deadBefore?.has(path)),
  ];
  let left: string[] = [];
  await waitFor(
    async () => {
      left = await leftovers();
      return left.length === 0;
    },
    () => `nothing to be left, but there is: ${left.join('; ')}`,
  );
}

/** Waits for a condition with a bound in milliseconds; the error says what for. */
export async function waitFor(
  condition: () => boolean | Promise<boolean>,
  what: string | (() => string),
  limitMs = STEP_MS,
): Promise<void> {
  const deadline = Date.now() + limitMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${limitMs} ms for ${typeof what === 'string' ? what : what()}`);
    await sleep(25);
  }
}
