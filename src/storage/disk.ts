import { lstat, open, readdir, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { OpenedFile, Storage, StoredFile } from '../core/contracts.ts';
import { parseSegmentName } from '../core/recording.ts';
import { SANDBOX_ID } from '../core/sandbox.ts';
import { NOT_A_FILE, OPEN_FLAGS, streamOf, unless } from './files.ts';

export interface DiskStorageOptions {
  /**
   * Whether a recorder may still write into the sandbox's folder. Such a folder stays when its last file is removed:
   * ffmpeg opens each next segment by path, so without the folder the recording would end. When unsure, answer true.
   * The default keeps every folder.
   */
  readonly inUse?: (sandboxId: string) => boolean;
}

/**
 * Recordings on a local or mounted disk: `<root>/<sandboxId>/<filename>`, where the recorders write them. Nothing but
 * regular files is listed, opened or removed, and no symlink below the root is followed. Limit: Node has no `openat`,
 * so who may swap a sandbox's folder between our check and our open can still lead us astray; keep the root ours.
 */
export class DiskStorage implements Storage {
  readonly #root: string;
  readonly #inUse: (sandboxId: string) => boolean;

  constructor(root: string, options: DiskStorageOptions = {}) {
    this.#root = root;
    this.#inUse = options.inUse ?? (() => true);
  }

  /** In no particular order. A root that does not exist yet is empty. */
  async list(sandboxId?: string): Promise<StoredFile[]> {
    if (sandboxId !== undefined) return (await this.#hasFolder(sandboxId)) ? this.#listFolder(sandboxId) : [];
    const entries = (await unless(['ENOENT'], readdir(this.#root, { withFileTypes: true }))) ?? [];
    const folders: StoredFile[][] = [];
    for (const entry of entries) {
      if (entry.isDirectory() && SANDBOX_ID.test(entry.name)) folders.push(await this.#listFolder(entry.name));
    }
    return folders.flat();
  }

  async open(sandboxId: string, filename: string): Promise<OpenedFile | undefined> {
    if (!belongs(sandboxId, filename) || !(await this.#hasFolder(sandboxId))) return undefined;
    const handle = await unless(NOT_A_FILE, open(join(this.#root, sandboxId, filename), OPEN_FLAGS));
    if (!handle) return undefined;
    try {
      const stats = await handle.stat();
      if (stats.isFile()) {
        return {
          size: stats.size,
          createdAt: firstByteAt(stats),
          stream: (start, end) => streamOf(handle, start, end),
          close: () => handle.close(),
        };
      }
    } catch (err) {
      await handle.close();
      throw err;
    }
    await handle.close();
    return undefined;
  }

  async remove(sandboxId: string, filename: string): Promise<boolean> {
    if (!belongs(sandboxId, filename) || !(await this.#hasFolder(sandboxId))) return false;
    const folder = join(this.#root, sandboxId);
    const path = join(folder, filename);
    const stats = await unless(['ENOENT'], lstat(path));
    if (!stats?.isFile()) return false;
    const removed = await unless(
      ['ENOENT'],
      unlink(path).then(() => true),
    );
    if (!removed) return false;
    // POSIX lets rmdir say EEXIST for "not empty" too.
    if (!this.#inUse(sandboxId)) await unless(['ENOENT', 'ENOTEMPTY', 'EEXIST'], rmdir(folder));
    return true;
  }

  async #hasFolder(sandboxId: string): Promise<boolean> {
    if (!SANDBOX_ID.test(sandboxId)) return false;
    const stats = await unless(['ENOENT'], lstat(join(this.#root, sandboxId)));
    return stats?.isDirectory() ?? false;
  }

  async #listFolder(sandboxId: string): Promise<StoredFile[]> {
    const folder = join(this.#root, sandboxId);
    const entries = (await unless(['ENOENT'], readdir(folder, { withFileTypes: true }))) ?? [];
    const found = await Promise.all(
      entries
        .filter((entry) => entry.isFile() && belongs(sandboxId, entry.name))
        .map(async ({ name }): Promise<StoredFile | undefined> => {
          const stats = await unless(['ENOENT'], lstat(join(folder, name)));
          if (!stats?.isFile()) return undefined;
          return { filename: name, size: stats.size, createdAt: firstByteAt(stats) };
        }),
    );
    return found.filter((file) => file !== undefined);
  }
}

function belongs(sandboxId: string, filename: string): boolean {
  return parseSegmentName(filename)?.sandboxId === sandboxId;
}

/** File systems without a birth time say 0; there the last write is the best that is known. */
function firstByteAt(stats: { birthtimeMs: number; mtimeMs: number }): number {
  return Math.floor(stats.birthtimeMs > 0 ? stats.birthtimeMs : stats.mtimeMs);
}
