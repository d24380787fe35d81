import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Docker from 'dockerode';
import { DockerDriver, type DockerDriverOptions } from '../../src/drivers/docker.ts';
import { EgressBook } from './egress-book.ts';

export const ENGINE_SOCKET = process.env.BERTH_TEST_ENGINE ?? '/var/run/docker.sock';
/** The image of a sandbox; another one is for whoever changes the runtime while others use the usual one. */
export const RUNTIME_IMAGE = process.env.BERTH_TEST_IMAGE ?? 'berth-runtime';
export const docker = new Docker({ socketPath: ENGINE_SOCKET });

/**
 * Why tests that need an engine and the sandbox image cannot run here; false when they can. Where they must run (CI sets
 * BERTH_TEST_DOCKER) nothing is skipped, and what is missing fails.
 */
export async function dockerSkip(): Promise<string | false> {
  if (process.env.BERTH_TEST_DOCKER === '1') return false;
  try {
    await docker.ping();
    await docker.getImage(RUNTIME_IMAGE).inspect();
    return false;
  } catch (err) {
    return `needs a container engine at ${ENGINE_SOCKET} and the image of npm run images: ${(err as Error).message}`;
  }
}

/** Options of a driver on temporary folders. */
export function dockerOptions(over: Partial<DockerDriverOptions> = {}): DockerDriverOptions {
  const base = mkdtempSync(join(tmpdir(), 'bt-'));
  return {
    engineSocket: ENGINE_SOCKET,
    image: RUNTIME_IMAGE,
    egress: new EgressBook(),
    seccomp: seccompProfile(),
    limits: { memoryMb: 2048, cpus: 2, pids: 1024 },
    runDir: join(base, 'r'),
    dataDir: join(base, 'd'),
    // Another key is another service, whose containers are not ours.
    masterKey: Buffer.from(base.padEnd(32, '.')).subarray(0, 32),
    startTimeoutSeconds: 40,
    downloadsMb: 100,
    ...over,
  };
}

export function seccompProfile(): string {
  const file = fileURLToPath(new URL('../../../runtime-image/seccomp.json', import.meta.url));
  return JSON.stringify(JSON.parse(readFileSync(file, 'utf8')));
}

/** Containers that see something of this folder. */
export async function containersIn(folder: string): Promise<string[]> {
  const containers = await docker.listContainers({ all: true });
  return containers
    .filter(({ Mounts }) => Mounts.some(({ Source = '' }) => Source.startsWith(`${folder}/`)))
    .map((c) => `container ${c.Names[0]} ${c.State}`);
}

export { DockerDriver };
