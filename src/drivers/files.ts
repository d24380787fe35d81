import { readFile } from 'node:fs/promises';

/** For what may not be there; another failure is one. */
export function unlessGone(err: NodeJS.ErrnoException): undefined {
  if (err.code !== 'ENOENT' && err.code !== 'ENOTDIR') throw err;
  return undefined;
}

/**
 * What one of our own files says. Undefined when there is none, and for one that was being written when service or machine
 * went down: after a loss of power also a file that was renamed into place may be empty.
 */
export async function readJson<T>(file: string): Promise<T | undefined> {
  const text = await readFile(file, 'utf8').catch(unlessGone);
  try {
    return text === undefined ? undefined : (JSON.parse(text) as T);
  } catch {
    return undefined;
  }
}
