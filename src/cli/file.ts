import { randomBytes } from 'node:crypto';
import { chown, open, readFile, realpath, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/** How long an edit of the same file by another program is waited for, and after which age its mark counts as forgotten, in milliseconds. */
const LOCK_WAIT_MS = 5_000;

/**
 * Writes a file that only its owner may read, whole or not at all: beside it first, then renamed. It keeps its owner, so that root
 * may edit the file of a service that runs as somebody else; a new one has the owner of its folder. A link to it stays one.
 */
export async function writePrivate(path: string, text: string): Promise<void> {
  const target = await realpath(path).catch(() => path);
  const beside = `${target}.${randomBytes(6).toString('hex')}.new`;
  try {
    const file = await open(beside, 'wx', 0o600);
    try {
      await file.writeFile(text);
      // A power loss right after the rename must not leave an empty file.
      await file.sync();
    } finally {
      await file.close();
    }
    const { uid, gid } = await stat(target).catch(() => stat(dirname(target)));
    if (process.getuid?.() === 0) await chown(beside, uid, gid);
    await rename(beside, target);
  } catch (err) {
    await rm(beside, { force: true });
    throw err;
  }
}

/** Its text; undefined when there is none. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw err;
  }
}

/** Runs `edit` while no other program does so for the same file: two that read, change and write at once would lose one change. */
export async function exclusively<T>(path: string, edit: () => Promise<T>): Promise<T> {
  const mark = `${await realpath(path).catch(() => path)}.lock`;
  const deadline = Date.now() + LOCK_WAIT_MS;
  for (;;) {
    try {
      await (await open(mark, 'wx', 0o600)).close();
      break;
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'EEXIST') throw err;
      const age =
        Date.now() -
        (await stat(mark).then(
          ({ mtimeMs }) => mtimeMs,
          () => Date.now(),
        ));
      if (age > LOCK_WAIT_MS) await rm(mark, { force: true });
      else if (Date.now() > deadline) throw new Error(`${path} is being edited by another program`);
      else await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  try {
    return await edit();
  } finally {
    await rm(mark, { force: true });
  }
}
