import { createHash, createHmac } from 'node:crypto';
import { chmod, chown, lstat, mkdir, readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { AppError } from '../core/errors.ts';
import { unlessGone } from './files.ts';

/** Names of sandboxes' folders; everything else in a run folder is not a sandbox. */
export const FOLDER_NAME = /^[0-9a-f]{12}$/;

/** A sandbox's folder: short whatever the id, since a unix socket's path may not exceed 107 bytes and Chromium needs most of them. */
export function folderOf(runDir: string, id: string): string {
  return join(runDir, createHash('sha256').update(id).digest('hex').slice(0, 12));
}

/** The socket of a sandbox's way out, in a folder of its own, where nothing in the sandbox can write. */
export function egressSocketOf(dir: string): string {
  return join(dir, 'e', 's');
}

/** Where a sandbox's downloads lie. */
export function downloadsOf(dataDir: string, id: string): string {
  return join(dataDir, 'downloads', id);
}

/**
 * A new folder for a sandbox's downloads, its browser's own; null is our user. It outlives the sandbox, so one that is
 * there was an earlier sandbox's of this id, which must have ended: only then does nobody swap folders while we remove it.
 */
export async function prepareDownloads(
  folder: string,
  user: { readonly uid: number; readonly gid: number } | null,
): Promise<string> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true, mode: 0o700 });
  if (user) await chown(folder, user.uid, user.gid);
  return folder;
}

/** The secret of a sandbox's runtime, derived so that none has to be stored by the service. */
export function secretOf(masterKey: Buffer, id: string): string {
  return createHmac('sha256', masterKey).update(`runtime:${id}`).digest('base64url');
}

/** Makes the run folder. It may lie in a shared /tmp: it must be ours and not a link that somebody planted. Throws START_FAILED. */
export async function prepareRunDir(runDir: string): Promise<void> {
  await mkdir(runDir, { recursive: true, mode: 0o711 });
  const stat = await lstat(runDir);
  if (!stat.isDirectory() || stat.uid !== process.getuid?.()) {
    const message = `${runDir} belongs to somebody else: set BERTH_RUN_DIR to a folder of your own.`;
    throw new AppError('START_FAILED', message);
  }
  if ((stat.mode & 0o777) !== 0o711) await chmod(runDir, 0o711);
}

/** The nearest of this folder and those above it that strangers may not pass through; undefined when there is none. */
export async function unpassable(folder: string): Promise<string | undefined> {
  for (let above = folder; above !== '/'; above = dirname(above)) {
    if (((await lstat(above)).mode & 0o001) === 0) return above;
  }
  return undefined;
}

/**
 * Lets strangers pass through our data folder to this one inside, without listing either. What else is in there was safe
 * behind the closed folder so far, whatever its own mode, and is closed first.
 */
export async function openToPassers(dataDir: string, inside: string): Promise<void> {
  const way = join(dataDir, inside);
  await mkdir(way, { recursive: true, mode: 0o700 });
  const { mode } = await lstat(dataDir);
  if ((mode & 0o001) === 0) {
    for (const name of await readdir(dataDir)) {
      const path = join(dataDir, name);
      // The history's temporary file comes and goes.
      const found = await lstat(path).catch(unlessGone);
      if (found && name !== inside && !found.isSymbolicLink()) await chmod(path, found.mode & 0o700).catch(unlessGone);
    }
    await chmod(dataDir, (mode & 0o777) | 0o001);
  }
  await chmod(way, 0o701);
}
