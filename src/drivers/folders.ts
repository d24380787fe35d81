import { createHash, createHmac } from 'node:crypto';
import { chmod, lstat, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError } from '../core/errors.ts';

/** Names of sandboxes' folders; everything else in a run folder is not a sandbox. */
export const FOLDER_NAME = /^[0-9a-f]{12}$/;

/** A sandbox's folder: short whatever the id, since a unix socket's path may not exceed 107 bytes and Chromium needs most of them. */
export function folderOf(runDir: string, id: string): string {
  return join(runDir, createHash('sha256').update(id).digest('hex').slice(0, 12));
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
