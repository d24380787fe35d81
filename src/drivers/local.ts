import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { accessSync, closeSync, constants, openSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import {
  type ClaimedSandbox,
  type Driver,
  type Egress,
  type FoundSandbox,
  type RuntimeAddress,
  type RuntimeConfig,
  SANDBOX_UIDS,
} from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import type { EndedReason, EndedSandbox, SandboxSpec } from '../core/sandbox.ts';
import { removeTracesOfX } from '../core/xtraces.ts';
import { behind, dangles, linkClaim, readClaim, writeClaim } from './claims.ts';
import { readJson } from './files.ts';
import {
  downloadsOf,
  egressSocketOf,
  FOLDER_NAME,
  folderOf,
  openToPassers,
  prepareDownloads,
  prepareRunDir,
  secretOf,
  unpassable,
} from './folders.ts';
import { endProcessesOf } from './leftovers.ts';
import { startOrUndo } from './start.ts';

/** Of the programs and the places of the sandboxes. */
export interface LocalDriverOptions {
  /** Short folder for sockets and profiles of running sandboxes. */
  readonly runDir: string;
  /** Recordings, downloads and words of ended sandboxes outlive the sandbox here. */
  readonly dataDir: string;
  /** The runtime program. */
  readonly runtimeProgram: string;
  /** Full path of Chromium; undefined when none was found. */
  readonly chromium: string | undefined;
  /** Derives each sandbox's secret, so that none has to be stored by the service. */
  readonly masterKey: Buffer;
  readonly startTimeoutSeconds: number;
  /** What the downloads of one sandbox may take, in MiB. */
  readonly downloadsMb: number;
  readonly egress: Egress;
  /** PATH and TZ of the service; the runtime inherits these and nothing else. */
  readonly env: { readonly PATH: string; readonly TZ?: string };
  /** Told once when Chromium has to run without its own sandbox, or when downloads cannot be kept. */
  readonly warn: (message: string) => void;
}

/** Programs of a sandbox and the Debian package that has each. */
const PROGRAMS = {
  Xvfb: 'xvfb',
  openbox: 'openbox',
  X0tigervnc: 'tigervnc-scraping-server',
  ffmpeg: 'ffmpeg',
  setpriv: 'util-linux',
};

/** Sandboxes as plain processes of this machine: own group, own folder, own X display; as root also each its own user. */
export class LocalDriver implements Driver {
  readonly name = 'local';
  readonly #options: LocalDriverOptions;
  #sandboxProbe: boolean | undefined;
  #toldOfDownloads = false;

  constructor(options: LocalDriverOptions) {
    this.#options = options;
  }

  async check(): Promise<void> {
    if (!this.#options.chromium) {
      throw new AppError(
        'START_FAILED',
        'Chromium is missing: install the package chromium, or set BERTH_CHROMIUM to its path.',
      );
    }
    for (const [program, name] of Object.entries(PROGRAMS)) {
      if (!onPath(program, this.#options.env.PATH))
        throw new AppError('START_FAILED', `${program} is missing: install the package ${name}.`);
    }
    await this.#prepareRunDir();
  }

  async start(spec: SandboxSpec, signal: AbortSignal): Promise<RuntimeAddress> {
    await this.check();
    return startOrUndo(this, spec.id, async () => {
      const dir = this.#dirOf(spec.id);
      await mkdir(dir, { mode: 0o711 });
      const config = await this.#configOf(spec);
      await mkdir(dirname(config.egressSocket), { mode: 0o700 });
      await this.#options.egress.open(config.egressSocket, spec);
      await writeFile(join(dir, 'runtime.json'), JSON.stringify(config), { mode: 0o600 });
      await this.#spawnRuntime(dir, signal);
      return this.#addressOf(spec.id);
    });
  }

  async stop(id: string): Promise<void> {
    const link = this.#dirOf(id);
    const dir = await behind(link);
    const config = await readConfig(dir);
    // Also when the runtime has removed its folder and its children already: theirs may live on, Chromium's helpers end by
    // themselves when it is killed, and one that is stuck does not.
    await endProcessesOf(dir, config?.user?.uid);
    if (config) await removeTracesOfX(config.user);
    await this.#options.egress.close(egressSocketOf(dir));
    await rm(dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
    await rm(link, { force: true });
    await rm(this.#tombstoneOf(id), { force: true });
  }

  async list(): Promise<FoundSandbox[]> {
    const found: FoundSandbox[] = [];
    for (const name of await namesIn(this.#tombstones)) {
      if (!name.endsWith('.json')) continue;
      const file = join(this.#tombstones, name);
      const ended = await readJson<EndedSandbox>(file);
      if (ended) found.push({ spec: ended.spec, ended });
      else await rm(file, { force: true });
    }
    const buried = new Set(found.map((f) => this.#dirOf(f.spec.id)));
    for (const name of await namesIn(this.#options.runDir)) {
      if (!FOLDER_NAME.test(name)) continue;
      const dir = join(this.#options.runDir, name);
      // One of a buried sandbox goes with it.
      if ((await behind(dir)) !== dir) {
        if (!buried.has(dir) && (await dangles(dir))) await rm(dir, { force: true });
        continue;
      }
      const config = await readConfig(dir);
      const claim = config && (await readClaim(dir));
      if (claim) await linkClaim(this.#options.runDir, claim);
      const spec = claim?.spec ?? config?.spec;
      if (!config || !spec) await rm(dir, { recursive: true, force: true });
      else if (!buried.has(this.#dirOf(spec.id))) {
        await this.#options.egress.open(egressSocketOf(dir), spec).catch(() => {}); // told by whoever opens it
        found.push({ spec, address: this.#addressOf(config.spec.id) });
      }
    }
    return found;
  }

  async shape(): Promise<string> {
    const { runtimeProgram, chromium = '', downloadsMb, env, startTimeoutSeconds } = this.#options;
    const programs = await Promise.all(
      [runtimeProgram, chromium].map(async (file) => [file, (await stat(file)).mtimeMs]),
    );
    return JSON.stringify({ programs, downloadsMb, env, startTimeoutSeconds });
  }

  async claim(handle: string, spec: SandboxSpec): Promise<ClaimedSandbox> {
    const config = await readConfig(this.#dirOf(handle));
    if (!config) throw new Error('its folder is gone');
    await writeClaim(this.#options.runDir, { handle, spec });
    await this.#options.egress.open(config.egressSocket, spec);
    return { address: this.#addressOf(handle), runtime: { spec, ...(await this.#keptOf(spec, config.user)) } };
  }

  async autopsy(id: string): Promise<EndedReason | undefined> {
    return (await readJson<EndedSandbox>(this.#tombstoneOf(id)))?.endedReason; // none: it died without a word
  }

  get #tombstones(): string {
    return join(this.#options.dataDir, 'ended');
  }

  #tombstoneOf(id: string): string {
    return join(this.#tombstones, `${id}.json`);
  }

  #dirOf(id: string): string {
    return folderOf(this.#options.runDir, id);
  }

  #addressOf(id: string): RuntimeAddress {
    const secret = secretOf(this.#options.masterKey, id);
    return { endpoint: { path: join(this.#dirOf(id), 's') }, secret, direct: true };
  }

  async #configOf(spec: SandboxSpec): Promise<RuntimeConfig> {
    const address = this.#addressOf(spec.id);
    const user = sandboxUser();
    return {
      spec,
      ...(await this.#keptOf(spec, user)),
      secret: address.secret,
      endpoint: address.endpoint,
      dir: this.#dirOf(spec.id),
      // In the browser user's own folder, so it needs no password of its own.
      vncSocket: join(this.#dirOf(spec.id), 'h', 'v'),
      egressSocket: egressSocketOf(this.#dirOf(spec.id)),
      notify: true,
      // The driver reads it again, and the browser's user cannot.
      forgetConfig: false,
      downloadsMb: this.#options.downloadsMb,
      user,
      chromium: this.#options.chromium as string,
      chromiumSandbox: this.#chromiumSandbox(user),
      startTimeoutSeconds: this.#options.startTimeoutSeconds,
    };
  }

  /** Where what outlives the sandbox lies. */
  async #keptOf(
    spec: SandboxSpec,
    user: { uid: number; gid: number } | null,
  ): Promise<Pick<RuntimeConfig, 'recordingsDir' | 'downloadsDir' | 'tombstone'>> {
    // Nobody downloads anything in one that is nobody's, so it gets its folder with its id.
    const downloadsDir = spec.pooled === undefined ? await this.#downloadsFor(spec.id, user) : undefined;
    return {
      recordingsDir: join(this.#options.dataDir, 'recordings', spec.id),
      ...(downloadsDir === undefined ? {} : { downloadsDir }),
      tombstone: this.#tombstoneOf(spec.id),
    };
  }

  /** Undefined where the sandbox's user could not get to it: then its downloads end with it. */
  async #downloadsFor(id: string, user: { uid: number; gid: number } | null): Promise<string | undefined> {
    const { dataDir } = this.#options;
    const blocked = user ? await unpassable(dirname(dataDir)) : undefined;
    if (blocked === undefined) {
      if (user) await openToPassers(dataDir, 'downloads');
      return prepareDownloads(downloadsOf(dataDir, id), user);
    }
    if (!this.#toldOfDownloads) {
      this.#options.warn(
        `Downloads end with their sandbox: its user cannot enter ${blocked}. Set BERTH_DATA_DIR to a folder elsewhere, or chmod o+x it.`,
      );
    }
    this.#toldOfDownloads = true;
    return undefined;
  }

  /** Whether Chromium's own sandbox can work: user namespaces for an ordinary user. Asked once. */
  #chromiumSandbox(user: { uid: number; gid: number } | null): boolean {
    if (this.#sandboxProbe === undefined) {
      const as = user ? [`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups'] : [];
      const probe = spawnSync('setpriv', [...as, '--', 'unshare', '--user', 'true'], {
        timeout: 5000,
        stdio: 'ignore',
      });
      this.#sandboxProbe = probe.status === 0;
      if (!this.#sandboxProbe) {
        this.#options.warn(
          'This machine allows no user namespaces, so Chromium runs without its own sandbox: open only pages that you trust.',
        );
      }
    }
    return this.#sandboxProbe;
  }

  async #prepareRunDir(): Promise<void> {
    const { runDir } = this.#options;
    await prepareRunDir(runDir);
    // As root each sandbox is a user of its own, which has to get to its folder.
    const blocked = process.getuid?.() === 0 ? await unpassable(dirname(runDir)) : undefined;
    if (blocked !== undefined) {
      throw new AppError(
        'START_FAILED',
        `The users of the sandboxes cannot enter ${blocked}: set BERTH_RUN_DIR to a folder elsewhere, or chmod o+x it.`,
      );
    }
    // Xvfb run by an ordinary user would make it too, but as its own, and then complain to everybody else.
    await mkdir('/tmp/.X11-unix', { mode: 0o1777 }).then(
      () => chmod('/tmp/.X11-unix', 0o1777),
      (err: NodeJS.ErrnoException) => {
        if (err.code !== 'EEXIST') throw err;
      },
    );
  }

  async #spawnRuntime(dir: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const log = openSync(join(dir, 'runtime.log'), 'a', 0o600);
    let child: ChildProcess;
    try {
      child = spawn(process.execPath, [this.#options.runtimeProgram, join(dir, 'runtime.json')], {
        // Own session and group: the sandbox outlives the service and gets none of its signals.
        detached: true,
        stdio: ['ignore', log, log, 'pipe'],
        cwd: dir,
        env: { ...this.#options.env },
      });
    } finally {
      closeSync(log);
    }
    // None when we are out of file descriptors; then nothing comes but the error.
    const pipe = child.stdio?.[3] as Readable | undefined;
    const listening = await new Promise<boolean>((resolve, reject) => {
      child.once('error', reject);
      if (!pipe) return;
      const onAbort = (): void => reject(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      pipe.once('data', () => resolve(true));
      pipe.once('end', () => resolve(false));
      pipe.once('close', () => signal.removeEventListener('abort', onAbort));
    }).finally(() => pipe?.destroy());
    child.unref();
    if (!listening) {
      const tail = (await readFile(join(dir, 'runtime.log'), 'utf8').catch(() => '')).trim().slice(-500);
      throw new AppError('START_FAILED', `The runtime ended at its start: ${tail}`);
    }
  }
}

/** A user of its own for each sandbox, when we may choose. */
function sandboxUser(): { uid: number; gid: number } | null {
  if (process.getuid?.() !== 0) return null;
  const id = randomInt(SANDBOX_UIDS.from, SANDBOX_UIDS.to);
  return { uid: id, gid: id };
}

function onPath(program: string, path: string): boolean {
  return path.split(':').some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Undefined where there is no such sandbox. */
async function readConfig(dir: string): Promise<RuntimeConfig | undefined> {
  return readJson(join(dir, 'runtime.json'));
}

async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch((err: NodeJS.ErrnoException) => {
    if (err.code === 'ENOENT') return [];
    throw err;
  });
}
