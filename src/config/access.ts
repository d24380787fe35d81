/** The settings of keys: who may come in, and what secrets are sealed with. */
import path from 'node:path';
import { type ApiKey, parseKeys } from '../core/keys.ts';
import type { Setting } from './setting.ts';

/** Keys. None of them in the clear but the master key, which the service needs. */
export interface AccessConfig {
  readonly apiKeys: readonly ApiKey[];
  /** Absolute path; undefined: `keys` in the data folder. */
  readonly apiKeysFile: string | undefined;
  /** 32 bytes; undefined: from the file. */
  readonly masterKey: Buffer | undefined;
  /** Absolute path; undefined: `master.key` in the data folder, made at the first start. */
  readonly masterKeyFile: string | undefined;
}

/** Rows of the table of settings. */
export const accessSettings: { readonly [K in keyof AccessConfig]: Setting<AccessConfig[K]> } = {
  apiKeys: {
    name: 'BERTH_API_KEYS',
    default: '',
    defaultShown: 'none',
    meaning:
      'Comma-separated `tenant:key[:role]`; role `admin`, `user` (default) or `viewer`; keys of 16 characters or more, or `sha256=<hex>` of one.',
    danger: 'Without keys here or in the keys file everybody who reaches the port may do everything.',
    parse: (text) =>
      text.trim() === '' ? Object.freeze([]) : parseKeys(text.split(','), (index) => `has in entry ${index + 1}`),
  },
  apiKeysFile: {
    name: 'BERTH_API_KEYS_FILE',
    default: '',
    defaultShown: '`keys` in the data folder',
    meaning:
      'File of further keys, an entry like those of `BERTH_API_KEYS` on each line; `berth keys` edits it. Read again when it changes.',
    danger: 'Whoever may write it may come in; one that cannot be read right leaves the keys as they were.',
    parse: (text) => (text === '' ? undefined : path.resolve(text)),
  },
  masterKey: {
    name: 'BERTH_MASTER_KEY',
    default: '',
    defaultShown: 'from the file',
    meaning: '32 bytes in hex or base64, which tickets, sessions and secrets at rest depend on.',
    danger: 'With another one than before the service does not start; lost, secrets at rest are lost.',
    parse: (text) => (text === '' ? undefined : parseMasterKey(text)),
  },
  masterKeyFile: {
    name: 'BERTH_MASTER_KEY_FILE',
    default: '',
    defaultShown: '`master.key` in the data folder, made at the first start',
    meaning: 'File that holds the master key: its 32 bytes, or the text of `BERTH_MASTER_KEY`.',
    danger: 'Beside the data it protects them from nobody who reads both; keep it elsewhere, and a copy.',
    parse: (text) => (text === '' ? undefined : path.resolve(text)),
  },
};

/** Throws the rest of a sentence, without the text. */
export function parseMasterKey(text: string): Buffer {
  const trimmed = text.trim();
  const key = Buffer.from(trimmed, /^[0-9a-fA-F]{64}$/.test(trimmed) ? 'hex' : 'base64');
  if (key.length !== 32 || !/^[A-Za-z0-9+/_-]{43}=?$|^[0-9a-fA-F]{64}$/.test(trimmed)) {
    throw new Error('must be 32 bytes in hex or base64, as `openssl rand -hex 32` makes them');
  }
  return key;
}
