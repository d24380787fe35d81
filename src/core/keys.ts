import { createHash, timingSafeEqual } from 'node:crypto';

/** admin: everything of every tenant. user: everything of its own tenant. viewer: looks at its own tenant's, changes nothing. */
export type Role = 'admin' | 'user' | 'viewer';

/** Whose sandboxes somebody sees, and what they may do with them. The key itself is nowhere: its SHA-256 tells it. */
export interface ApiKey {
  /** The first 12 hex digits of the digest: names the key in lists and in the audit log without telling it. */
  readonly id: string;
  readonly tenant: string;
  readonly role: Role;
  /** SHA-256 of the key, 32 bytes. Keys are long and random, so nothing slower is needed to keep them from being guessed. */
  readonly digest: Buffer;
}

/** Stands before the digest in an entry that does not hold the key itself. */
const DIGEST = /^sha256=([0-9a-f]{64})$/;

/**
 * One entry, `tenant:key[:role]`, whose key may be `sha256=<64 hex digits>`. Throws the rest of a sentence; it holds nothing
 * of the entry, any part of which may be the key, typed into the wrong place.
 */
export function parseKey(entry: string): ApiKey {
  const [tenant = '', key = '', role = 'user', ...more] = entry.trim().split(':');
  if (!entry.includes(':') || more.length > 0) {
    throw new Error('something other than tenant:key or tenant:key:role');
  }
  if (!/^[A-Za-z0-9_.-]{1,64}$/.test(tenant)) {
    throw new Error('a tenant that is not 1 to 64 letters, digits, dots, dashes or underscores');
  }
  const hex = DIGEST.exec(key)?.[1];
  if (hex === undefined && key.startsWith('sha256=')) throw new Error('a sha256= without its 64 small hex digits');
  if (!/^[\x21-\x7e]{16,}$/.test(key)) throw new Error('a key shorter than 16 characters, or with spaces or accents');
  if (role !== 'admin' && role !== 'user' && role !== 'viewer') {
    throw new Error('a role other than admin, user and viewer');
  }
  const digest = hex === undefined ? digestOf(key) : Buffer.from(hex, 'hex');
  return Object.freeze({ id: keyId(digest), tenant, role, digest });
}

/** Parses entries one by one; none may come twice. Throws the rest of a sentence that begins with where, such as `has in entry 2`. */
export function parseKeys(entries: readonly string[], where: (index: number) => string): readonly ApiKey[] {
  const seen = new Set<string>();
  const keys = entries.map((entry, index) => {
    try {
      const key = parseKey(entry);
      const digest = key.digest.toString('hex');
      if (seen.has(digest)) throw new Error('the same key as an entry before it');
      seen.add(digest);
      return key;
    } catch (err) {
      throw new Error(`${where(index)} ${(err as Error).message}`);
    }
  });
  return Object.freeze(keys);
}

/** The entries of a file of keys: one a line, `#` begins a comment. */
export function parseKeysFile(text: string): readonly ApiKey[] {
  const lines = text.split('\n').map((line, index) => ({ entry: line.replace(/#.*/, '').trim(), number: index + 1 }));
  const entries = lines.filter(({ entry }) => entry !== '');
  return parseKeys(
    entries.map(({ entry }) => entry),
    (index) => `has in line ${entries[index]?.number}`,
  );
}

/** SHA-256 of a key. */
export function digestOf(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}

/** What names a key without telling it. */
export function keyId(digest: Buffer): string {
  return digest.toString('hex').slice(0, 12);
}

/** The keys that count now: those of the settings, and those of the keys file, which may change at any moment. */
export class KeyRing {
  readonly #fixed: readonly ApiKey[];
  #filed: readonly ApiKey[] = [];

  constructor(fixed: readonly ApiKey[]) {
    this.#fixed = fixed;
  }

  /** What the keys file holds from now on. */
  setFiled(keys: readonly ApiKey[]): void {
    this.#filed = keys;
  }

  get size(): number {
    return this.#fixed.length + this.#filed.length;
  }

  /** All keys are compared, each in constant time, so that the time taken says nothing about which one was near. */
  find(digest: Buffer): ApiKey | undefined {
    let found: ApiKey | undefined;
    for (const key of [...this.#fixed, ...this.#filed]) if (timingSafeEqual(key.digest, digest)) found ??= key;
    return found;
  }

  /** By {@link ApiKey.id}. */
  get(id: string): ApiKey | undefined {
    return [...this.#fixed, ...this.#filed].find((key) => key.id === id);
  }
}
