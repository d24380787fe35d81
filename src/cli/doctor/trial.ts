/** A sandbox, really: created, its page's picture taken over CDP, ended. */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BerthClient } from '../../client/client.ts';
import { failureOf } from '../failure.ts';
import type { Io } from '../io.ts';
import { size } from '../output.ts';
import { capture } from '../screenshot.ts';
import { type Finding, failed, ok } from './finding.ts';

/** For a service to serve or to end, in milliseconds. */
const SERVICE_LIMIT_MS = 60_000;
/** For a sandbox: the most that a service waits for one, and a queue before it. */
const TRIAL_LIMIT_MS = 120_000;

/** Settings that say how sandboxes are made. The others (keys, buckets, pools, folders) are none of the trial's. */
const TAKEN =
  /^(PATH|TZ|LANG|BERTH_(DRIVER|DOCKER_SOCKET|RUNTIME_IMAGE|SANDBOX_\w+|CHROMIUM|FRONT|START_TIMEOUT_SECONDS|MIN_FREE_MEMORY_MB))$/;

/** With a service of its own, which lives in a temporary folder for as long as that takes. */
export async function trial(io: Io): Promise<Finding> {
  const base = await mkdtemp(join(tmpdir(), 'bdoc-'));
  let service: ChildProcess | undefined;
  try {
    // The users of sandboxes have to get through to their own folders.
    await chmod(base, 0o711);
    const taken = Object.entries(io.env).filter(([name]) => TAKEN.test(name));
    const own = {
      BERTH_PORT: '0',
      BERTH_DATA_DIR: join(base, 'd'),
      BERTH_RUN_DIR: join(base, 'r'),
      BERTH_ON_EXIT: 'stop',
    };
    const env = { ...(Object.fromEntries(taken) as NodeJS.ProcessEnv), ...own };
    service = spawn(process.execPath, [io.server], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const url = await served(service, io.signal);
    return await trySandbox(io, new BerthClient(url), url);
  } catch (err) {
    io.signal.throwIfAborted();
    return failed(
      'Trial',
      `The service did not start: ${(err as Error).message.trim()}`,
      'Mend what is said there; berth serve says the same.',
    );
  } finally {
    if (service) await endService(service);
    await rm(base, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

/** On a service that runs. */
export async function trySandbox(io: Io, client: BerthClient, url: string): Promise<Finding> {
  const limit = AbortSignal.any([io.signal, AbortSignal.timeout(TRIAL_LIMIT_MS)]);
  const since = performance.now();
  let id: string | undefined;
  try {
    const sandbox = await client.create({ recording: 'off', metadata: { made: 'by-berth-doctor' } }, { signal: limit });
    id = sandbox.sandboxId;
    const ready = performance.now() - since;
    if (sandbox.cdpUrl === undefined)
      return failed('Trial', 'The key may look but not drive.', 'Use one of the role user or admin.');
    const picture = await capture(sandbox.cdpUrl, 'png', {}, limit);
    // Width and height stand at 16 and 20 (PNG, IHDR).
    if (picture.subarray(1, 4).toString() !== 'PNG') throw new Error('what came back is no picture');
    const dimensions = `${picture.readUInt32BE(16)}x${picture.readUInt32BE(20)}`;
    return ok(
      'Trial',
      `a sandbox was ready in ${(ready / 1000).toFixed(2)} s; its screenshot has ${dimensions} pixels (${size(picture.length)})`,
    );
  } catch (err) {
    io.signal.throwIfAborted();
    const { message } = failureOf(err, url);
    return failed(
      'Trial',
      message,
      'Mend what is said there; the service logs more (BERTH_LOG_LEVEL=debug berth serve).',
    );
  } finally {
    if (id !== undefined) await client.delete(id).catch(() => undefined);
  }
}

/** Its address, once it serves; an error with what it said when it does not. */
function served(service: ChildProcess, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    let log = '';
    const late = setTimeout(() => reject(new Error('it did not serve in time')), SERVICE_LIMIT_MS);
    const settle = (finish: () => void): void => {
      clearTimeout(late);
      finish();
    };
    signal.addEventListener('abort', () => settle(() => reject(signal.reason as Error)), { once: true });
    service.stdout?.on('data', (chunk) => {
      if (log.length < 100_000) log += chunk;
      const url = /"url":"([^"]+)"/.exec(log)?.[1];
      if (url !== undefined) settle(() => resolve(url));
    });
    let said = '';
    service.stderr?.on('data', (chunk) => (said = (said + chunk).slice(-2000)));
    service.once('error', (err) => settle(() => reject(err)));
    service.once('exit', (code) =>
      settle(() => reject(new Error(said.replace(/^berth: /, '') || `it ended with ${code}`))),
    );
  });
}

async function endService(service: ChildProcess): Promise<void> {
  if (service.exitCode !== null || service.signalCode !== null || service.pid === undefined) return;
  const ended = new Promise((resolve) => service.once('exit', resolve));
  service.kill('SIGTERM');
  const kill = setTimeout(() => service.kill('SIGKILL'), SERVICE_LIMIT_MS);
  await ended;
  clearTimeout(kill);
}
