import { readlink, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { SandboxSpec } from '../core/sandbox.ts';
import { readJson, unlessGone } from './files.ts';
import { folderOf } from './folders.ts';

/**
 * A sandbox that was started ahead of demand keeps its folder, sockets and processes under the id it was started with, its
 * handle: they cannot be renamed while it runs. What it is since its claim is said by a file in that folder, where nothing
 * inside the sandbox can write, and by a link to the folder under the name of the new id.
 */
export interface Claim {
  readonly handle: string;
  readonly spec: SandboxSpec;
}

/** Undefined when the sandbox of this folder, or link to one, was not claimed. */
export async function readClaim(dir: string): Promise<Claim | undefined> {
  return readJson(join(dir, 'claim.json'));
}

/** From the moment the file is there, the sandbox is the new one, whoever is killed then. */
export async function writeClaim(runDir: string, claim: Claim): Promise<void> {
  const file = join(folderOf(runDir, claim.handle), 'claim.json');
  await writeFile(`${file}.tmp`, JSON.stringify(claim), { mode: 0o600 });
  await rename(`${file}.tmp`, file);
  await linkClaim(runDir, claim);
}

/** Makes the link, also in the place of one that leads elsewhere. */
export async function linkClaim(runDir: string, { handle, spec }: Claim): Promise<void> {
  const link = folderOf(runDir, spec.id);
  await rm(link, { force: true });
  await symlink(basename(folderOf(runDir, handle)), link);
}

/** The folder behind a link, also when it is gone; a path that is no link is its own. */
export async function behind(path: string): Promise<string> {
  const target = await readlink(path).catch((err: NodeJS.ErrnoException) => {
    if (err.code !== 'EINVAL') return unlessGone(err);
    return undefined;
  });
  return target === undefined ? path : join(path, '..', target);
}

/** Whether this is a link to a folder that is gone. */
export async function dangles(path: string): Promise<boolean> {
  return (await behind(path)) !== path && (await stat(path).catch(unlessGone)) === undefined;
}
