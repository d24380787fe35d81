import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { unwatchFile, watchFile } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseMasterKey } from '../config/access.ts';
import type { Config } from '../config.ts';
import type { Log } from '../core/contracts.ts';
import { type ApiKey, type KeyRing, parseKeysFile } from '../core/keys.ts';

/** How often it is looked whether the keys file has changed, in milliseconds. Files that are mounted tell of it in no other way. */
const LOOK_EVERY_MS = 1000;

/** Where the keys file of these settings is. */
export function keysFileOf({ apiKeysFile, dataDir }: Pick<Config, 'apiKeysFile' | 'dataDir'>): string {
  return apiKeysFile ?? join(dataDir, 'keys');
}

/** Throws a sentence that names the file and the line. One that is not there holds no keys. */
export async function readKeysFile(file: string): Promise<readonly ApiKey[]> {
  try {
    return parseKeysFile(await readFile(file, 'utf8'));
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw new Error(`The keys file ${file} ${(err as Error).message}.`);
  }
}

/**
 * Keeps the ring at what the file says; where it cannot be read it is tried again, since a key that was taken away must
 * not open doors until the next change only because there was no file descriptor left. Answers what ends that.
 */
export function watchKeysFile(file: string, ring: KeyRing, log: Log): () => void {
  let again: NodeJS.Timeout | undefined;
  let told: string | undefined;
  let ended = false;
  const look = async (): Promise<void> => {
    clearTimeout(again);
    try {
      const keys = await readKeysFile(file);
      if (ended) return;
      ring.setFiled(keys);
      told = undefined;
      log.info({ file, keys: ring.size }, 'the keys have changed');
    } catch (err) {
      if (ended) return;
      const why = (err as Error).message;
      if (why !== told) log.error({ file, err }, 'the keys file cannot be read: the keys stay as they were');
      told = why;
      clearTimeout(again);
      again = setTimeout(() => void look(), LOOK_EVERY_MS).unref();
    }
  };
  const onChange = (): void => void look();
  watchFile(file, { interval: LOOK_EVERY_MS, persistent: false }, onChange);
  return () => {
    ended = true;
    clearTimeout(again);
    unwatchFile(file, onChange);
  };
}

/**
 * The key that every other secret is derived from: of the settings, or from its file, which is made at the first start when
 * nobody named one. Throws a sentence when it is not the one that this data folder was used with before.
 */
export async function loadMasterKey(config: Config): Promise<Buffer> {
  const key = config.masterKey ?? (await readMasterKey(config));
  const check = join(config.dataDir, 'master.check');
  const mark = createHmac('sha256', key).update('check').digest('hex');
  const known = await readFile(check, 'utf8').catch((err: NodeJS.ErrnoException) => {
    if (err.code === 'ENOENT') return undefined;
    throw err;
  });
  if (known === undefined) await writeFile(check, mark, { mode: 0o600 });
  else if (known.length !== mark.length || !timingSafeEqual(Buffer.from(known), Buffer.from(mark))) {
    throw new Error(
      `The master key is not the one that ${config.dataDir} was used with. Set BERTH_MASTER_KEY or BERTH_MASTER_KEY_FILE to that one; ` +
        `without it, remove ${check}: links handed out, sandboxes that run and secrets at rest are lost then.`,
    );
  }
  return key;
}

async function readMasterKey({ masterKeyFile, dataDir }: Config): Promise<Buffer> {
  const own = join(dataDir, 'master.key');
  if (masterKeyFile === undefined) {
    const fresh = randomBytes(32);
    try {
      await writeFile(own, fresh, { mode: 0o600, flag: 'wx' });
      return fresh;
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'EEXIST') throw err;
    }
  }
  const file = masterKeyFile ?? own;
  const bytes = await readFile(file).catch((err: Error) => {
    throw new Error(`BERTH_MASTER_KEY_FILE: ${err.message}`);
  });
  if (bytes.length === 32) return bytes;
  try {
    return parseMasterKey(bytes.toString('latin1'));
  } catch (err) {
    throw new Error(`${file} is damaged: it must hold 32 bytes, or their text in hex or base64.`, { cause: err });
  }
}
