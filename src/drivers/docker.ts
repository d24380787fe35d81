import { createHash } from 'node:crypto';
import { chmod, chown, lstat, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Docker from 'dockerode';
import type { ClaimedSandbox, Driver, Egress, FoundSandbox, RuntimeAddress, RuntimeConfig } from '../core/contracts.ts';
import { accepts } from '../core/endpoint.ts';
import { AppError } from '../core/errors.ts';
import type { EndedReason, EndedSandbox, SandboxSpec } from '../core/sandbox.ts';
import { isEndedReason } from '../core/status.ts';
import { linkClaim, readClaim, writeClaim } from './claims.ts';
import {
  downloadsOf,
  egressSocketOf,
  FOLDER_NAME,
  folderOf,
  prepareDownloads,
  prepareRunDir,
  secretOf,
} from './folders.ts';
import { startOrUndo } from './start.ts';

/** What one container may use: megabytes of memory (no swap on top), processors, processes and threads. */
export interface DockerLimits {
  readonly memoryMb: number;
  readonly cpus: number;
  readonly pids: number;
}

/** Of the engine, the sandboxes and their places. */
export interface DockerDriverOptions {
  /** The engine's unix socket. */
  readonly engineSocket: string;
  readonly image: string;
  /** Text of the seccomp profile. */
  readonly seccomp: string;
  readonly limits: DockerLimits;
  /** Short folder for the sandboxes' sockets; the engine must see it under the same path. */
  readonly runDir: string;
  /** Recordings and downloads; the engine must see it under the same path. */
  readonly dataDir: string;
  readonly masterKey: Buffer;
  readonly startTimeoutSeconds: number;
  /** What the downloads of one sandbox may take, in MiB. */
  readonly downloadsMb: number;
  readonly egress: Egress;
}

/** The image's own user, used when we are root; else the container runs as we do, so that its files are ours. */
const IMAGE_USER = { uid: 10_001, gid: 10_001 };
/** Paths inside the container, as runtime-image/Dockerfile has them. */
const INSIDE = {
  mount: '/run/berth',
  egress: '/run/egress',
  recordings: '/recordings',
  downloads: '/downloads',
  dir: '/sandbox/box',
} as const;
/** In the data folder; so that a folder moves out of it by a mere rename. */
const POOL = 'pool';
const SHM_BYTES = 1024 * 1024 * 1024;
/** Profile, temporary files: memory of the container, like everything on a tmpfs. */
const SCRATCH_MB = 1024;
/** Chromium runs out below some 4,000; an engine cannot give more than it was given itself, often 16,384. */
const OPEN_FILES = 8192;
const LABEL = {
  service: 'berth.service',
  id: 'berth.id',
  owner: 'berth.owner',
  created: 'berth.created',
  spec: 'berth.spec',
} as const;

/**
 * One hardened container per sandbox. The gateway reaches it through sockets in a folder that both see: no port is published.
 * The engine is Docker or Podman; Podman's Docker API differs where a comment here says so (tried: Podman 4.3.1).
 */
export class DockerDriver implements Driver {
  readonly name = 'docker';
  readonly #options: DockerDriverOptions;
  readonly #docker: Docker;
  /** Tells our containers from those of another Berth on the same engine. */
  readonly #service: string;
  #podman: boolean | undefined;

  constructor(options: DockerDriverOptions) {
    this.#options = options;
    this.#docker = new Docker({ socketPath: options.engineSocket });
    this.#service = createHash('sha256').update(options.masterKey).digest('hex').slice(0, 16);
  }

  async check(): Promise<void> {
    const { engineSocket, image } = this.#options;
    await this.#docker.ping().catch((err: Error) => {
      throw new AppError('START_FAILED', `No container engine answers at ${engineSocket}: ${err.message}.`, {}, err);
    });
    const info = await this.#docker.getImage(image).inspect().catch(onlyStatus(404));
    if (!info) throw new AppError('START_FAILED', `The image ${image} is missing: build it with npm run images.`);
    if (info.Config.Labels?.['berth.runtime'] !== '1') {
      throw new AppError(
        'START_FAILED',
        `The image ${image} has no Berth runtime in it: build it with npm run images.`,
      );
    }
  }

  start(spec: SandboxSpec, signal: AbortSignal): Promise<RuntimeAddress> {
    return startOrUndo(this, spec.id, async () => {
      const podman = await this.#isPodman();
      await this.#prepareFolders(spec);
      await this.#options.egress.open(egressSocketOf(this.#dirOf(spec.id)), spec);
      signal.throwIfAborted();
      // Neither call is cut short: the engine would finish it all the same, after we had removed what was not there yet.
      const container = await this.#docker.createContainer(this.#containerOf(spec, podman));
      signal.throwIfAborted();
      await container.start();
      await this.#awaitSocket(spec.id, container, signal);
      return this.#addressOf(spec.id);
    });
  }

  async stop(id: string): Promise<void> {
    const handle = await this.#handleOf(id);
    const container = this.#docker.getContainer(this.#nameOf(handle));
    // Podman's forced removal first waits for as long as StopTimeout says. What goes wrong here the removal tells as well.
    await container.kill().catch(() => {});
    // 409: somebody is removing it already.
    await container.remove({ force: true, v: true }).catch(onlyStatus(404, 409));
    for (let i = 0; (await container.inspect().catch(onlyStatus(404))) && i < 100; i++) await sleep(100);
    await this.#options.egress.close(egressSocketOf(this.#dirOf(handle)));
    for (const path of [this.#dirOf(handle), this.#pooledDirOf(handle), this.#dirOf(id)]) {
      await rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
    }
  }

  async list(): Promise<FoundSandbox[]> {
    const filters = { label: [`${LABEL.service}=${this.#service}`] };
    const containers = await this.#docker.listContainers({ all: true, filters });
    const found = await Promise.all(containers.map((c) => this.#foundOf(c)));
    // Folders whose container is gone: the service was killed between removing the two.
    const handles = new Set(containers.map((c) => c.Labels[LABEL.id] ?? ''));
    const dirs = new Set([...handles, ...found.map((f) => f.spec.id)].map((id) => this.#dirOf(id)));
    for (const name of await readdir(this.#options.runDir).catch(() => [])) {
      const dir = join(this.#options.runDir, name);
      if (FOLDER_NAME.test(name) && !dirs.has(dir)) await rm(dir, { recursive: true, force: true });
    }
    for (const name of await readdir(join(this.#options.dataDir, POOL)).catch(() => [])) {
      if (!handles.has(name)) await rm(this.#pooledDirOf(name), { recursive: true, force: true });
    }
    return found;
  }

  async shape(): Promise<string> {
    const { image, seccomp, limits, downloadsMb, startTimeoutSeconds } = this.#options;
    const { Id } = await this.#docker.getImage(image).inspect();
    return JSON.stringify({ Id, seccomp, limits, downloadsMb, startTimeoutSeconds });
  }

  async claim(handle: string, spec: SandboxSpec): Promise<ClaimedSandbox | undefined> {
    const recordings = this.#recordingsOf(spec);
    // Those of an earlier sandbox of this id cannot get into a folder that the container sees already.
    if ((await readdir(recordings).catch(() => [])).length > 0) return undefined;
    const pooled = { id: handle, pooled: '' };
    await writeClaim(this.#options.runDir, { handle, spec });
    // What the container sees is the folder itself, whatever its name (bind mounts, mount(2)).
    await move(this.#recordingsOf(pooled), recordings);
    await rm(this.#downloadsOf(spec), { recursive: true, force: true });
    await move(this.#downloadsOf(pooled), this.#downloadsOf(spec));
    await rm(this.#pooledDirOf(handle), { recursive: true, force: true });
    await this.#options.egress.open(egressSocketOf(this.#dirOf(handle)), spec);
    const { recordings: recordingsDir, downloads: downloadsDir } = INSIDE;
    const runtime = { spec: withoutEgress(spec), recordingsDir, downloadsDir, tombstone: `${INSIDE.mount}/ended.json` };
    return { address: this.#addressOf(handle), runtime };
  }

  async autopsy(id: string): Promise<EndedReason | undefined> {
    const told = await this.#lastWordOf(id);
    if (told) return told.reason;
    const name = this.#nameOf(await this.#handleOf(id));
    // The connection breaks before the engine has noted the end.
    for (let i = 0; i < 10; i++) {
      const info = await this.#docker.getContainer(name).inspect().catch(onlyStatus(404));
      if (!info || info.State.Status === 'removing') return 'failed: the container was removed';
      if (info.State.OOMKilled) return `failed: out of memory (the limit is ${this.#options.limits.memoryMb} MB)`;
      if (!info.State.Running) return `failed: the container ended with code ${info.State.ExitCode}`;
      await sleep(100);
    }
    return undefined;
  }

  async #foundOf(container: Docker.ContainerInfo): Promise<FoundSandbox> {
    const made = JSON.parse(container.Labels[LABEL.spec] ?? '{}') as SandboxSpec;
    const claim = await readClaim(this.#dirOf(made.id));
    if (claim) await linkClaim(this.#options.runDir, claim);
    const spec = claim?.spec ?? made;
    if (container.State === 'running') {
      await this.#options.egress.open(egressSocketOf(this.#dirOf(made.id)), spec).catch(() => {}); // told by whoever opens it
      return { spec, address: this.#addressOf(made.id) };
    }
    const told = await this.#lastWordOf(spec.id);
    const reason = told?.reason ?? (await this.autopsy(spec.id)) ?? 'failed: the container ended without a word';
    const ended: EndedSandbox = {
      spec,
      state: reason.startsWith('failed: ') ? 'FAILED' : 'TERMINATED',
      endedAt: told?.at ?? Date.now(),
      endedReason: reason,
    };
    return { spec, ended };
  }

  #lastWordOf(id: string): ReturnType<typeof readEnd> {
    return readEnd(join(this.#dirOf(id), 'm', 'ended.json'));
  }

  /** The folder that holds the one the container sees; nothing in the container can reach this one. */
  #dirOf(id: string): string {
    return folderOf(this.#options.runDir, id);
  }

  /** The id that the sandbox was started with: its container's. */
  async #handleOf(id: string): Promise<string> {
    return (await readClaim(this.#dirOf(id)))?.handle ?? id;
  }

  #nameOf(id: string): string {
    return `berth-${this.#service.slice(0, 8)}-${id}`;
  }

  /** Lies beside the folder that the container sees. */
  #seccompFileOf(id: string): string {
    return join(this.#dirOf(id), 'seccomp.json');
  }

  /** Where what outlives a sandbox lies while the sandbox is nobody's. */
  #pooledDirOf(handle: string): string {
    return join(this.#options.dataDir, POOL, handle);
  }

  #recordingsOf({ id, pooled }: Pick<SandboxSpec, 'id' | 'pooled'>): string {
    if (pooled !== undefined) return join(this.#pooledDirOf(id), 'recordings');
    return join(this.#options.dataDir, 'recordings', id);
  }

  #downloadsOf({ id, pooled }: Pick<SandboxSpec, 'id' | 'pooled'>): string {
    return pooled === undefined ? downloadsOf(this.#options.dataDir, id) : join(this.#pooledDirOf(id), 'downloads');
  }

  #addressOf(id: string): RuntimeAddress {
    const mount = join(this.#dirOf(id), 'm');
    return {
      endpoint: { path: join(mount, 's') },
      secret: secretOf(this.#options.masterKey, id),
      direct: false,
      vncSocket: join(mount, 'v'),
    };
  }

  get #user(): { uid: number; gid: number } {
    const uid = process.getuid?.() ?? 0;
    return uid === 0 ? IMAGE_USER : { uid, gid: process.getgid?.() ?? uid };
  }

  async #prepareFolders(spec: SandboxSpec): Promise<void> {
    const { runDir, seccomp, startTimeoutSeconds, downloadsMb } = this.#options;
    const { uid, gid } = this.#user;
    const mount = join(this.#dirOf(spec.id), 'm');
    await prepareRunDir(runDir);
    const config: RuntimeConfig = {
      spec: withoutEgress(spec),
      secret: this.#addressOf(spec.id).secret,
      endpoint: { path: `${INSIDE.mount}/s` },
      dir: INSIDE.dir,
      vncSocket: `${INSIDE.mount}/v`,
      egressSocket: `${INSIDE.egress}/s`,
      notify: false,
      forgetConfig: true,
      recordingsDir: INSIDE.recordings,
      downloadsDir: INSIDE.downloads,
      downloadsMb,
      tombstone: `${INSIDE.mount}/ended.json`,
      user: null,
      // Not Debian's wrapper script, which costs a third of a second and adds nothing that is needed here.
      chromium: '/usr/lib/chromium/chromium',
      chromiumSandbox: true,
      startTimeoutSeconds,
    };
    for (const folder of [mount, this.#recordingsOf(spec)]) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await chown(folder, uid, gid);
    }
    await prepareDownloads(this.#downloadsOf(spec), { uid, gid });
    // Ours: what the sandbox could write to, it could put a link in, and we work in there.
    await mkdir(dirname(egressSocketOf(this.#dirOf(spec.id))), { mode: 0o711 });
    const file = join(mount, 'runtime.json');
    await writeFile(file, JSON.stringify(config), { mode: 0o400, flag: 'wx' });
    await chown(file, uid, gid);
    await chmod(file, 0o400);
    // For Podman, which takes no other form of it.
    await writeFile(this.#seccompFileOf(spec.id), seccomp, { mode: 0o400, flag: 'wx' });
  }

  #containerOf(spec: SandboxSpec, podman: boolean): Docker.ContainerCreateOptions {
    const { image, seccomp, limits } = this.#options;
    const { uid, gid } = this.#user;
    const memory = limits.memoryMb * 1024 * 1024;
    return {
      name: this.#nameOf(spec.id),
      Image: image,
      User: `${uid}:${gid}`,
      // Names the sandbox in the prompt of whoever looks inside; the id itself may be too long for a host name.
      Hostname: 'sandbox',
      Labels: {
        [LABEL.service]: this.#service,
        [LABEL.id]: spec.id,
        [LABEL.owner]: spec.owner,
        [LABEL.created]: new Date(spec.createdAt).toISOString(),
        [LABEL.spec]: JSON.stringify(spec),
      },
      // Longer than ffmpeg is given to finish its file.
      StopTimeout: 30,
      HostConfig: {
        // A loopback interface and nothing else: no other sandbox, no host, no DNS, no packet that is not TCP through the way out.
        NetworkMode: 'none',
        Binds: [
          `${join(this.#dirOf(spec.id), 'm')}:${INSIDE.mount}`,
          `${dirname(egressSocketOf(this.#dirOf(spec.id)))}:${INSIDE.egress}:ro`,
          `${this.#recordingsOf(spec)}:${INSIDE.recordings}`,
          `${this.#downloadsOf(spec)}:${INSIDE.downloads}`,
        ],
        ReadonlyRootfs: true,
        Tmpfs: {
          '/tmp': 'rw,nosuid,nodev,noexec,size=64m,mode=1777',
          // Podman adds a writable one, where programs could be put and run, unless there is one already.
          '/var/tmp': 'ro,nosuid,nodev,noexec,size=64k',
          // Podman refuses uid and gid here; its U means the container's own user.
          '/sandbox': `rw,nosuid,nodev,noexec,size=${SCRATCH_MB}m,mode=0700,${podman ? 'U' : `uid=${uid},gid=${gid}`}`,
        },
        CapDrop: ['ALL'],
        // Docker takes the text only, Podman (up to 5 at least) the path of a file only.
        SecurityOpt: ['no-new-privileges', `seccomp=${podman ? this.#seccompFileOf(spec.id) : seccomp}`],
        PidsLimit: limits.pids,
        Memory: memory,
        // The same number: no swap.
        MemorySwap: memory,
        NanoCpus: Math.round(limits.cpus * 1e9),
        ShmSize: SHM_BYTES,
        Ulimits: [{ Name: 'nofile', Soft: OPEN_FILES, Hard: OPEN_FILES }],
        RestartPolicy: { Name: 'no' },
        LogConfig: { Type: 'json-file', Config: { 'max-size': '1m', 'max-file': '1' } },
      },
    };
  }

  /** The runtime listens, or the container ended; the engine has no event that would say the first. */
  async #awaitSocket(id: string, container: Docker.Container, signal: AbortSignal): Promise<void> {
    const { endpoint } = this.#addressOf(id);
    for (let i = 1; ; i++) {
      if (await accepts(endpoint)) return;
      const late = signal.aborted;
      if (late || (i % 20 === 0 && !(await container.inspect()).State.Running)) {
        const why = late ? 'its runtime did not answer' : ((await this.autopsy(id)) ?? 'failed');
        throw new AppError('START_FAILED', `The sandbox did not start: ${why}${await lastWords(container)}`);
      }
      await sleep(10);
    }
  }

  /** Asks once: the two engines contradict each other (seccomp), and say so in no other way. */
  async #isPodman(): Promise<boolean> {
    this.#podman ??= ((await this.#docker.version()).Components ?? []).some((c) => c.Name === 'Podman Engine');
    return this.#podman;
  }
}

/** Puts a folder where none is, or an empty one (rename(2)). */
async function move(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true, mode: 0o700 });
  await rename(from, to);
}

/** Turns an engine's answer of these statuses into undefined; everything else stays an error. */
function onlyStatus(...statuses: number[]): (err: { statusCode?: number }) => undefined {
  return (err) => {
    if (err.statusCode !== undefined && statuses.includes(err.statusCode)) return undefined;
    throw err;
  };
}

/** The sandbox has no use for it: who lets it out is on our side. */
function withoutEgress({ egress, ...spec }: SandboxSpec): SandboxSpec {
  return spec;
}

/** The runtime's last word. It comes out of the sandbox, so nothing in it is believed that is not of the right form. */
async function readEnd(file: string): Promise<{ reason: EndedReason; at: number } | undefined> {
  try {
    const stat = await lstat(file);
    if (!stat.isFile() || stat.size > 64 * 1024) return undefined;
    const told = JSON.parse(await readFile(file, 'utf8')) as Partial<EndedSandbox>;
    const reason = told.endedReason;
    if (!isEndedReason(reason) || typeof told.endedAt !== 'number' || !(told.endedAt <= Date.now())) return undefined;
    return { reason, at: told.endedAt };
  } catch {
    return undefined; // no word, or a torn one
  }
}

/** The end of a container's log, to end a sentence that says why it failed: a colon and the words, or nothing. */
async function lastWords(container: Docker.Container): Promise<string> {
  const log = await container.logs({ stdout: true, stderr: true, tail: 5 }).catch(() => Buffer.alloc(0));
  // Without the engine's frame headers and other bytes that a sentence cannot have.
  const words = log
    .toString('latin1')
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(-500);
  return words === '' ? '' : `: ${words}`;
}
