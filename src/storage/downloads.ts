import { renameSync, type Stats } from 'node:fs';
import { lstat, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline, Transform } from 'node:stream';
import type { Download, Downloads, OpenedDownload } from '../core/contracts.ts';
import { isFileName, isUnfinished } from '../core/download.ts';
import { SANDBOX_ID } from '../core/sandbox.ts';
import { openFile, streamOf, unless, unlinked } from './files.ts';

/** Folders on their way out; no sandbox's id looks like it. */
const REMOVED = '.removed-';

/**
 * Downloads on disk: `<root>/<sandboxId>/<name>`, where the browsers write them. The folder belongs to the sandbox, so
 * anything may be in it and change at any moment; nothing but regular files that are the sandbox's own is listed, opened
 * or removed. The root must be ours alone.
 */
export class DiskDownloads implements Downloads {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  async list(sandboxId: string): Promise<Download[]> {
    const folder = await this.#folderOf(sandboxId);
    if (!folder) return [];
    const entries = (await unless(['ENOENT'], readdir(folder.path, 'buffer'))) ?? [];
    const found: Download[] = [];
    // One after the other: a folder with very many files must not take all of libuv's threads.
    for (const entry of entries) {
      const name = entry.toString();
      // A name that is not UTF-8 cannot be asked for.
      if (!Buffer.from(name).equals(entry)) continue;
      const stats = await unless(['ENOENT'], lstat(join(folder.path, name)));
      if (!stats || !isOwn(stats, folder.stats)) continue;
      found.push({ name, size: stats.size, modifiedAt: Math.floor(stats.mtimeMs), complete: !isUnfinished(name) });
    }
    return found.sort((a, b) => b.modifiedAt - a.modifiedAt || (a.name < b.name ? -1 : 1));
  }

  async open(sandboxId: string, name: string): Promise<OpenedDownload | undefined> {
    const folder = await this.#folderOf(sandboxId);
    if (!folder || !isFileName(name)) return undefined;
    // EACCES: with an ordinary user's service, a file that the sandbox has closed even to itself.
    const opened = await openFile(join(folder.path, name), (stats) => isOwn(stats, folder.stats), ['EACCES']);
    if (!opened) return undefined;
    const { handle, stats } = opened;
    return {
      size: stats.size,
      modifiedAt: Math.floor(stats.mtimeMs),
      stream: (start, end) => whole(streamOf(handle, start, end), end - start + 1),
      close: () => handle.close(),
    };
  }

  async remove(sandboxId: string, name: string): Promise<boolean> {
    const folder = await this.#folderOf(sandboxId);
    if (!folder || !isFileName(name)) return false;
    const path = join(folder.path, name);
    const stats = await unless(['ENOENT'], lstat(path));
    if (!stats || !isOwn(stats, folder.stats)) return false;
    return unlinked(path);
  }

  async sweep(known: (sandboxId: string) => boolean): Promise<void> {
    for (const name of (await unless(['ENOENT'], readdir(this.#root))) ?? []) {
      if (name.startsWith(REMOVED)) await rm(join(this.#root, name), { recursive: true, force: true });
      if (!SANDBOX_ID.test(name) || known(name)) continue;
      // Moved in the same breath as it was asked for: a new sandbox of this id may come while the files are removed.
      const away = join(this.#root, `${REMOVED}${name}`);
      await rm(away, { recursive: true, force: true });
      if (known(name)) continue;
      renameSync(join(this.#root, name), away);
      await rm(away, { recursive: true, force: true });
    }
  }

  async #folderOf(sandboxId: string): Promise<{ readonly path: string; readonly stats: Stats } | undefined> {
    if (!SANDBOX_ID.test(sandboxId)) return undefined;
    const path = join(this.#root, sandboxId);
    const stats = await unless(['ENOENT'], lstat(path));
    return stats?.isDirectory() ? { path, stats } : undefined;
  }
}

/** Somebody else's file in the folder is a hard link that was planted, where the system lets anybody make such. */
function isOwn(file: Stats, folder: Stats): boolean {
  return file.isFile() && file.uid === folder.uid;
}

/** Fails at its end when fewer bytes came than were promised: the browser's side may cut the file while we read it. */
function whole(file: NodeJS.ReadableStream, bytes: number): Transform {
  let left = bytes;
  const counted = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      left -= chunk.length;
      done(null, chunk);
    },
    flush: (done) => done(left > 0 ? new Error('the file was cut while it was read') : null),
  });
  // What fails here fails `counted` too, whose reader hears it.
  pipeline(file, counted, () => {});
  return counted;
}
