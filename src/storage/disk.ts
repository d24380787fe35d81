import type { Stats } from 'node:fs';
import { lstat, readdir, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { OpenedFile, Storage, StoredFile, StoredFolder, StoredNames } from '../core/contracts.ts';
import { parseSegmentName, sandboxOfSession } from '../core/recording.ts';
import { SANDBOX_ID } from '../core/sandbox.ts';
import { openFile, streamOf, unless, unlinked } from './files.ts';

/** Ends the name of the file in which the recorder says how the segments of one session ended. */
const JOURNAL = '.jsonl';
/** Some twenty thousand lines; a week has that many segments of half a minute. */
const MAX_JOURNAL_BYTES = 1024 * 1024;

/** What {@link DiskStorage} has to know of those who write there. */
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

  /** A root that does not exist yet is empty. */
  async folders(): Promise<StoredFolder[]> {
    const entries = (await unless(['ENOENT'], readdir(this.#root, { withFileTypes: true }))) ?? [];
    const found: StoredFolder[] = [];
    for (const { name } of entries.filter((entry) => entry.isDirectory() && SANDBOX_ID.test(entry.name))) {
      const stats = await unless(['ENOENT'], lstat(join(this.#root, name)));
      if (stats?.isDirectory()) found.push({ sandboxId: name, changedAt: stats.mtimeMs });
    }
    return found;
  }

  async names(sandboxId: string): Promise<StoredNames> {
    if (!(await this.#hasFolder(sandboxId))) return { segments: [], journals: [] };
    const entries = (await unless(['ENOENT'], readdir(join(this.#root, sandboxId), { withFileTypes: true }))) ?? [];
    const names = entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
    return {
      segments: names.filter((name) => belongs(sandboxId, name)),
      journals: names
        .filter((name) => name.endsWith(JOURNAL))
        .map((name) => name.slice(0, -JOURNAL.length))
        .filter((session) => sandboxOfSession(session) === sandboxId),
    };
  }

  async find(sandboxId: string, filename: string): Promise<StoredFile | undefined> {
    if (!belongs(sandboxId, filename) || !(await this.#hasFolder(sandboxId))) return undefined;
    const stats = await unless(['ENOENT'], lstat(join(this.#root, sandboxId, filename)));
    if (!stats?.isFile()) return undefined;
    return {
      filename,
      size: stats.size,
      createdAt: firstByteAt(stats),
      modifiedAt: Math.floor(stats.mtimeMs),
    };
  }

  async open(sandboxId: string, filename: string): Promise<OpenedFile | undefined> {
    if (!belongs(sandboxId, filename) || !(await this.#hasFolder(sandboxId))) return undefined;
    const opened = await openFile(join(this.#root, sandboxId, filename), isFile);
    if (!opened) return undefined;
    const { handle, stats } = opened;
    return {
      size: stats.size,
      createdAt: firstByteAt(stats),
      stream: (start, end) => streamOf(handle, start, end),
      close: () => handle.close(),
    };
  }

  async remove(sandboxId: string, filename: string): Promise<boolean> {
    if (!belongs(sandboxId, filename) || !(await this.#hasFolder(sandboxId))) return false;
    const path = join(this.#root, sandboxId, filename);
    const stats = await unless(['ENOENT'], lstat(path));
    if (!stats?.isFile()) return false;
    if (!(await unlinked(path))) return false;
    await this.#removeEmpty(sandboxId);
    return true;
  }

  async journal(sandboxId: string, sessionId: string): Promise<string | undefined> {
    if (sandboxOfSession(sessionId) !== sandboxId || !(await this.#hasFolder(sandboxId))) return undefined;
    const opened = await openFile(join(this.#root, sandboxId, sessionId + JOURNAL), isFile);
    if (!opened) return undefined;
    const { handle, stats } = opened;
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(Math.min(stats.size, MAX_JOURNAL_BYTES) || 1));
      return buffer.toString('utf8', 0, bytesRead);
    } finally {
      await handle.close();
    }
  }

  async removeJournal(sandboxId: string, sessionId: string): Promise<void> {
    if (sandboxOfSession(sessionId) !== sandboxId || !(await this.#hasFolder(sandboxId))) return;
    // Whatever bears the name: unlinking follows nothing, and a folder stays.
    await unless(['ENOENT', 'EISDIR', 'EPERM'], unlink(join(this.#root, sandboxId, sessionId + JOURNAL)));
    await this.#removeEmpty(sandboxId);
  }

  async #removeEmpty(sandboxId: string): Promise<void> {
    // POSIX lets rmdir say EEXIST for "not empty" too.
    if (!this.#inUse(sandboxId)) await unless(['ENOENT', 'ENOTEMPTY', 'EEXIST'], rmdir(join(this.#root, sandboxId)));
  }

  async #hasFolder(sandboxId: string): Promise<boolean> {
    if (!SANDBOX_ID.test(sandboxId)) return false;
    const stats = await unless(['ENOENT'], lstat(join(this.#root, sandboxId)));
    return stats?.isDirectory() ?? false;
  }
}

const isFile = (stats: Stats): boolean => stats.isFile();

function belongs(sandboxId: string, filename: string): boolean {
  return parseSegmentName(filename)?.sandboxId === sandboxId;
}

/** File systems without a birth time say 0; there the last write is the best that is known. */
function firstByteAt(stats: { birthtimeMs: number; mtimeMs: number }): number {
  return Math.floor(stats.birthtimeMs > 0 ? stats.birthtimeMs : stats.mtimeMs);
}
