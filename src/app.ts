import { readdirSync, statSync } from 'node:fs';
import { mkdir, readFile, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Logger, pino } from 'pino';
import { Pages } from './api/pages.ts';
import { Api } from './api/server.ts';
import { Validator } from './api/validate.ts';
import { takeFolder } from './app/alone.ts';
import { findChromium } from './app/chromium.ts';
import { createEgress } from './app/egress.ts';
import { keysFileOf, loadMasterKey, readKeysFile, watchKeysFile } from './app/keys.ts';
import { createRecordings } from './app/recordings.ts';
import { loadTemplates } from './app/templates.ts';
import { type Config, exposure } from './config.ts';
import { Access } from './core/access.ts';
import { Admission } from './core/admission.ts';
import type { Driver, Egress } from './core/contracts.ts';
import { Counters } from './core/counters.ts';
import { accepts } from './core/endpoint.ts';
import { AppError } from './core/errors.ts';
import { Events } from './core/events.ts';
import { KeyRing } from './core/keys.ts';
import { AddressLimits, TenantLimits } from './core/limits.ts';
import { Sandboxes } from './core/sandboxes.ts';
import { Vault } from './core/secrets.ts';
import { Stats } from './core/stats.ts';
import { LocalDriver } from './drivers/local.ts';
import { hostFreeMemoryMb, ownFreeMemoryMb } from './drivers/memory.ts';
import { readCertificate } from './gateway/certificate.ts';
import { openFront } from './gateway/front.ts';
import { FileAudit } from './registry/audit.ts';
import { EmbeddedRegistry } from './registry/embedded.ts';
import { EmbeddedTickets } from './registry/tickets.ts';
import { openRuntimeLink } from './runtime/link.ts';
import { DiskDownloads } from './storage/downloads.ts';

/** A running service. */
export interface App {
  /** Where it listens, such as `http://127.0.0.1:3000`. */
  readonly url: string;
  readonly port: number;
  readonly log: Logger;
  /** Stops in the reverse order of the start. `stopSandboxes` ends them too; otherwise they live on by their own clocks. */
  close(stopSandboxes: boolean): Promise<void>;
}

/** How often it is looked for downloads of sandboxes that the service has forgotten, in milliseconds. */
const FORGET_EVERY_MS = 60_000;
/** How long answers that are on their way may take when everything else has ended, in milliseconds. */
const LAST_WORDS_MS = 500;

/** Of lines that could not be written yet; more are dropped. */
const LOG_BUFFER_BYTES = 1024 * 1024;

/** Of the environment, what programs inside a sandbox may know. */
type Env = { readonly PATH: string; readonly TZ?: string };

/** Wires everything, starts in order. Throws an error with one sentence when it cannot start; nothing runs then. */
export async function startApp(config: Config, env: Env): Promise<App> {
  const log = createLog(config.logLevel);
  const tls = config.tlsCert && config.tlsKey ? { cert: config.tlsCert, key: config.tlsKey } : undefined;
  if (tls) readCertificate(tls);
  const openapiYaml = await readFile(inRoot('openapi.yaml'), 'utf8');
  const templates = await loadTemplates(config.templates, new Validator(openapiYaml));
  const unknown = [...config.poolSizes.keys()].find((name) => !templates.has(name));
  if (unknown !== undefined) throw new Error(`BERTH_POOL_SIZE: no template is called "${unknown}".`);
  const keys = new KeyRing(config.apiKeys);
  const keysFile = keysFileOf(config);
  keys.setFiled(await readKeysFile(keysFile));
  const exposed = exposure(config, keys.size);
  if (exposed !== undefined) throw new Error(exposed);
  await mkdir(config.dataDir, { recursive: true, mode: 0o700 });
  // Before the other one is made, which a service that is refused would leave behind.
  const folders = [await takeFolder(config.dataDir, 'BERTH_DATA_DIR')];
  await mkdir(config.runDir, { recursive: true, mode: 0o711 });
  folders.push(await takeFolder(config.runDir, 'BERTH_RUN_DIR'));
  const apiSocket = join(config.runDir, 'api');
  await assertAlone(apiSocket, config.dataDir);

  const masterKey = await loadMasterKey(config);
  const tickets = await EmbeddedTickets.open(join(config.dataDir, 'tickets.jsonl'));
  const publicOrigin = config.publicUrl === undefined ? {} : { publicOrigin: new URL(config.publicUrl).origin };
  const access = new Access({ keys, masterKey, tickets, ...publicOrigin });
  const audit = await FileAudit.open(join(config.dataDir, 'audit.jsonl'), log);
  const registry = await EmbeddedRegistry.open(join(config.dataDir, 'history.jsonl'));
  const events = new Events();
  const counters = new Counters();
  const vault = new Vault(masterKey);
  const egress = createEgress(config, env, vault, counters, log);
  const driver = await createDriver(config, env, masterKey, egress, log);
  await driver.check();
  egress.start();
  const recordings = await createRecordings(
    config,
    (id) => sandboxes.find(id),
    (id) => sandboxes.cutRecording(id),
    { events, counters, log },
  );
  const limits = new AddressLimits(config);
  const tenantLimits = new TenantLimits(config);
  const sandboxes = new Sandboxes({
    driver,
    openLink: openRuntimeLink,
    registry,
    events,
    templates,
    admission: createAdmission(config, () => sandboxes.pool.relieve()),
    tenantLimits,
    sandboxClients: config.sandboxClients,
    startTimeoutSeconds: config.startTimeoutSeconds,
    poolSizes: config.poolSizes,
    saw: (info) => recordings.saw(info),
    seal: (text, context) => vault.seal(text, context),
    log,
  });
  await sandboxes.adopt();
  await recordings.start();
  const downloads = new DiskDownloads(join(config.dataDir, 'downloads'));
  const forgetDownloads = (): Promise<void> =>
    downloads
      .sweep((id) => sandboxes.find(id) !== undefined)
      .catch((err: unknown) => log.error({ err }, 'could not remove downloads of forgotten sandboxes'));
  await forgetDownloads();
  const forgetting = setInterval(() => void forgetDownloads(), FORGET_EVERY_MS);
  const startedAt = Date.now();
  const stats = new Stats({
    live: () => sandboxes.live(),
    poolReady: () => sandboxes.pool.ready,
    events,
    counters,
    now: () => ({
      startedAt,
      maxSandboxes: config.maxSandboxes,
      freeMemoryMb: freeMemoryMbOf(config)(),
      pool: Object.fromEntries(
        [...config.poolSizes].map(([name, { max }]) => [
          name,
          { ready: sandboxes.pool.ready.get(name) ?? 0, wanted: max },
        ]),
      ),
    }),
  });
  const require = (name: string): string => fileURLToPath(import.meta.resolve(name));
  const api = new Api(
    {
      access,
      tickets,
      audit,
      sandboxes,
      recordings: recordings.recordings,
      ...(recordings.uploads ? { uploads: recordings.uploads } : {}),
      downloads,
      events,
      counters,
      limits,
      tenantLimits,
      ready: async () => {
        if (sandboxes.closing)
          throw new AppError('SHUTTING_DOWN', 'Berth is shutting down and takes no new sandboxes.');
        await driver.check();
        return { archive: recordings.archiveState() };
      },
      openapiYaml,
      console: { pages: new Pages(fileURLToPath(inRoot('dist/console'))), templates, stats },
      publicUrl: config.publicUrl,
      frameAncestors: config.frameAncestors,
      novncDir: join(dirname(require('@novnc/novnc')), '..'),
      log,
    },
    apiSocket,
  );
  const gateway = await openFront(config.front, {
    access,
    sandboxes,
    apiSocket,
    counters,
    audit,
    log,
    ...(tls ? { tls } : {}),
    limits,
    trustedProxies: config.trustedProxies,
  });
  let port: number;
  try {
    await api.listen();
    port = await gateway.listen(config.host, config.port);
    egress.serves(port);
  } catch (err) {
    clearInterval(forgetting);
    stats.close();
    gateway.close();
    await api.close();
    await sandboxes.close(false);
    await recordings.close();
    egress.end();
    throw err;
  }
  const unwatchKeys = watchKeysFile(keysFile, keys, log);
  const shown = config.host.includes(':') ? `[${config.host}]` : config.host;
  const url = `${tls ? 'https' : 'http'}://${shown}:${port}`;
  log.info({ url, driver: driver.name, dataDir: config.dataDir, sandboxes: sandboxes.count }, 'Berth serves');
  if (access.open)
    log.warn(
      'There are no API keys (BERTH_API_KEYS, or berth keys add): anybody on this machine may use this service.',
    );
  return {
    url,
    port,
    log,
    async close(stopSandboxes) {
      clearInterval(forgetting);
      unwatchKeys();
      stats.close();
      // Nobody new is admitted from here on, but the door stays open for those who ask how it goes.
      await sandboxes.close(stopSandboxes);
      // Whoever reads events has a right to the last ones and to a proper end.
      events.close();
      await gateway.drain(LAST_WORDS_MS);
      gateway.close();
      await api.close();
      await recordings.close();
      await Promise.all([registry.close(), tickets.close(), audit.close()]);
      // Not where sandboxes live on in it, nor where it is not ours to remove.
      await rmdir(config.runDir).catch(() => {});
      egress.end();
      for (const folder of folders) folder.close();
    },
  };
}

function createAdmission(config: Config, onShortage: () => void): Admission {
  const { maxSandboxes, maxStarts, maxQueue, queueSeconds, minFreeMemoryMb } = config;
  const freeMemoryMb = freeMemoryMbOf(config);
  return new Admission({ maxSandboxes, maxStarts, maxQueue, queueSeconds, minFreeMemoryMb, freeMemoryMb, onShortage });
}

/** Containers lie in control groups of the engine's, not below ours. */
function freeMemoryMbOf(config: Config): () => number | undefined {
  return config.driver === 'docker' ? hostFreeMemoryMb : ownFreeMemoryMb;
}

async function createDriver(config: Config, env: Env, masterKey: Buffer, egress: Egress, log: Logger): Promise<Driver> {
  const { runDir, dataDir, startTimeoutSeconds, downloadsMb } = config;
  if (config.driver === 'docker') {
    // Loaded only when wanted: the engine's client is large.
    const { DockerDriver } = await import('./drivers/docker.ts');
    return new DockerDriver({
      runDir,
      dataDir,
      startTimeoutSeconds,
      downloadsMb,
      masterKey,
      engineSocket: config.dockerSocket,
      image: config.runtimeImage,
      egress,
      seccomp: JSON.stringify(JSON.parse(await readFile(inRoot('runtime-image/seccomp.json'), 'utf8'))),
      limits: { memoryMb: config.sandboxMemoryMb, cpus: config.sandboxCpus, pids: config.sandboxPids },
    });
  }
  return new LocalDriver({
    runDir,
    dataDir,
    startTimeoutSeconds,
    downloadsMb,
    masterKey,
    egress,
    runtimeProgram: findRuntime(),
    chromium: config.chromium ?? findChromium(),
    env,
    warn: (message) => log.warn(message),
  });
}

/**
 * The program inside a sandbox: as one file where the build has made one, since that loads in half the time, or as it is when
 * anything that it is made of is newer, as it is while somebody works on it.
 */
function findRuntime(): string {
  const whole = inRoot('dist/runtime.mjs');
  const parts = ['dist/src/core/', 'dist/src/runtime/'].flatMap((folder) =>
    readdirSync(inRoot(folder)).map((name) => inRoot(`${folder}${name}`)),
  );
  const entry = inRoot('dist/cmd/runtime.js');
  const made = statSync(whole, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const isNewer = (part: URL): boolean => statSync(part).mtimeMs > made;
  return fileURLToPath([entry, ...parts].some(isNewer) ? entry : whole);
}

/** A file of the repository or image; this one runs as `dist/src/app.js`. */
function inRoot(path: string): URL {
  return new URL(`../../${path}`, import.meta.url);
}

function createLog(level: string): Logger {
  const output = pino.destination({ fd: 1, sync: true, maxLength: LOG_BUFFER_BYTES });
  // A log that cannot be written, its disk being full, must not fail the request it tells of.
  output.on('error', () => {});
  const options = {
    level,
    base: null,
    // Should a request or error object ever be logged whole, its secrets stay out.
    redact: ['*.headers.authorization', '*.headers["x-api-key"]', '*.headers.cookie', '*.secret', 'secret', '*.ticket'],
  };
  return pino(options, output);
}

/** Two services on one data folder would take each other's sandboxes for left over. {@link takeFolder} does not see those with a network of their own. */
async function assertAlone(apiSocket: string, dataDir: string): Promise<void> {
  if (await accepts({ path: apiSocket }))
    throw new Error(`Another Berth already serves ${dataDir}: give this one its own BERTH_DATA_DIR.`);
}
