/**
 * `berth keys add`, `ls` and `rm`: edit the file with the API keys of a service on this machine, which notices by itself.
 * A key is made here, shown once and stored as its SHA-256; what was in the file stays as it was, comments included.
 */
import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { digestOf, parseKey, parseKeysFile, type Role } from '../core/keys.ts';
import { EXIT, Failure, misuse } from './failure.ts';
import { exclusively, readIfThere, writePrivate } from './file.ts';
import type { Io } from './io.ts';
import { table } from './output.ts';
import { type CommonFlags, talker } from './session.ts';

/** Of a new key: as much as AES-256 takes, and written in characters that need no quoting anywhere. */
const KEY_BYTES = 32;

interface FileFlags extends CommonFlags {
  /** Path; by default the service's own. */
  readonly file?: string;
}

interface AddFlags extends FileFlags {
  readonly tenant: string;
  readonly role: Role;
  readonly note?: string;
}

/** Makes a key, stores its hash, and prints it: alone on stdout, so that it can be sent where it is needed. */
export async function addKey(io: Io, flags: AddFlags): Promise<void> {
  const { tenant, role, note } = flags;
  if (!/^[A-Za-z0-9_.-]{1,64}$/.test(tenant))
    throw misuse('--tenant is 1 to 64 letters, digits, dots, dashes and underscores.');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a line break would be an entry of its own
  if (note !== undefined && (/[\u0000-\u001f\u007f]/.test(note) || note.length > 200))
    throw misuse('--note is one line of at most 200 characters.');
  const file = await keysFile(io, flags);
  const key = randomBytes(KEY_BYTES).toString('base64url');
  const hash = digestOf(key).toString('hex');
  const entry = `${tenant}:sha256=${hash}:${role}${note === undefined ? '' : ` # ${note}`}\n`;
  await edit(file, (text) => `${text}${text === '' || text.endsWith('\n') ? '' : '\n'}${entry}`);
  const keyId = hash.slice(0, 12);
  const session = talker(io, flags);
  session.print({ keyId, tenant, role, key }, () => `${key}\n`);
  session.note(`key ${keyId} of ${tenant} (${role}) is in ${file}; this is the only time that it is shown.`);
}

/** Ids, tenants, roles and notes. */
export async function listKeys(io: Io, flags: FileFlags): Promise<void> {
  const file = await keysFile(io, flags);
  const keys = entriesOf(await readKeys(file)).map(({ keyId, tenant, role, note, hashed }) => {
    return { keyId, tenant, role, ...(note === undefined ? {} : { note }), hashed };
  });
  const { print, note } = talker(io, flags);
  print(keys, () => {
    if (keys.length === 0) note(`no key is in ${file}; berth keys add --tenant <name> makes one.`);
    const rows = keys.map((key) => [key.keyId, key.tenant, key.role, key.note ?? '']);
    return rows.length === 0 ? '' : table(['KEY', 'TENANT', 'ROLE', 'NOTE'], rows);
  });
  const open = keys.filter(({ hashed }) => !hashed).length;
  if (open > 0)
    note(`${open} of them stand in ${file} as they are; better replace them, berth keys add stores hashes.`);
}

/** Removes keys by their ids, all of them or none. */
export async function removeKeys(io: Io, ids: readonly string[], flags: FileFlags): Promise<void> {
  const file = await keysFile(io, flags);
  const removed: string[] = [];
  await edit(file, (text) => {
    const entries = entriesOf(text);
    const drop = new Set<number>();
    for (const id of new Set(ids)) {
      const found = /^[0-9a-f]{4,64}$/.test(id) ? entries.filter(({ hash }) => hash.startsWith(id)) : [];
      const [entry] = found;
      if (!entry)
        throw new Failure(EXIT.notFound, `There is no key ${id} in ${file}; berth keys ls shows those that there are.`);
      if (new Set(found.map(({ hash }) => hash)).size > 1)
        throw misuse(`${id} begins more than one key; say more of it.`);
      for (const { line } of found) drop.add(line);
      removed.push(entry.keyId);
    }
    const lines = text.split('\n');
    return lines.filter((_, index) => !drop.has(index)).join('\n');
  });
  talker(io, flags).print(removed, () => removed.map((id) => `${id}\n`).join(''));
}

interface Entry {
  readonly tenant: string;
  readonly role: Role;
  /** SHA-256 of the key, in hex. */
  readonly hash: string;
  readonly keyId: string;
  /** False where the key itself stands in the file. */
  readonly hashed: boolean;
  readonly note: string | undefined;
  /** Where it stands, from 0. */
  readonly line: number;
}

/** The entries of a keys file, the comment behind each being its note. */
function entriesOf(text: string): Entry[] {
  return text.split('\n').flatMap((raw, line): Entry[] => {
    const [, entry = '', note] = /^([^#]*)(?:#\s*(.*?)\s*)?$/.exec(raw) ?? [];
    if (entry.trim() === '') return [];
    const { id, tenant, role, digest } = parseKey(entry);
    const hashed = entry.includes(':sha256=');
    return [{ tenant, role, hash: digest.toString('hex'), keyId: id, hashed, note: note || undefined, line }];
  });
}

/** Its text, of which the service could read every line. Throws a {@link Failure} when it could not: it would not take our change either. */
async function readKeys(file: string): Promise<string> {
  const text = (await readIfThere(file)) ?? '';
  try {
    parseKeysFile(text);
    return text;
  } catch (err) {
    throw misuse(`${file} ${(err as Error).message}, so the service does not read it; mend that line first.`);
  }
}

async function keysFile(io: Io, { file }: FileFlags): Promise<string> {
  if (file !== undefined) return file;
  return (await io.machine(io.env)).keysFile;
}

async function edit(file: string, change: (text: string) => string): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  try {
    await exclusively(file, async () => writePrivate(file, change(await readKeys(file))));
  } catch (err) {
    const { code } = err as NodeJS.ErrnoException;
    if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS')
      throw new Failure(
        EXIT.failed,
        `${file} cannot be written (${code}); run this as the user that the service runs as.`,
        err,
      );
    throw err;
  }
}
