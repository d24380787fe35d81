/** Named addresses and keys, so that nobody types a key: `~/.config/berth/config.json`, below `XDG_CONFIG_HOME` where that is set. */
import { mkdir, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { EXIT, Failure, misuse } from './failure.ts';
import { exclusively, readIfThere, writePrivate } from './file.ts';
import type { Io } from './io.ts';

export interface Profile {
  readonly url: string;
  readonly apiKey?: string;
}

export interface Profiles {
  /** The one that counts where none is named. */
  readonly current?: string;
  readonly profiles: Readonly<Record<string, Profile>>;
}

const NOTHING: Profiles = { profiles: {} };

/** Path of the file. A relative `XDG_CONFIG_HOME` does not count (XDG Base Directory Specification). */
export function profilesFile(io: Io): string {
  const { XDG_CONFIG_HOME = '' } = io.env;
  return join(isAbsolute(XDG_CONFIG_HOME) ? XDG_CONFIG_HOME : join(io.home, '.config'), 'berth', 'config.json');
}

/** What the file says. Throws a {@link Failure} for one that others can read, or that is no such file. */
export async function readProfiles(io: Io): Promise<Profiles> {
  const file = profilesFile(io);
  let text: string | undefined;
  try {
    text = await readIfThere(file);
  } catch (err) {
    throw new Failure(EXIT.failed, `${file} cannot be read (${(err as NodeJS.ErrnoException).code}).`, err);
  }
  if (text === undefined) return NOTHING;
  const { mode, uid } = await stat(file);
  if ((mode & 0o077) !== 0)
    throw misuse(
      `${file} holds keys and others can read it (mode ${(mode & 0o777).toString(8)}); run chmod 600 ${file} and change the keys in it.`,
    );
  const me = process.getuid?.();
  if (me !== undefined && me !== 0 && uid !== me) throw misuse(`${file} belongs to somebody else, so it is not used.`);
  const value = parse(text);
  if (value === undefined) throw misuse(`${file} is damaged; mend it or remove it.`);
  return value;
}

/** Reads, changes and writes the file, which then only its owner can read. */
export async function changeProfiles(io: Io, change: (before: Profiles) => Profiles): Promise<void> {
  const file = profilesFile(io);
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  await exclusively(file, async () => {
    await writePrivate(file, `${JSON.stringify(change(await readProfiles(io)), undefined, 2)}\n`);
  });
}

function parse(text: string): Profiles | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(value) || !isRecord(value.profiles)) return undefined;
  const { current, profiles } = value;
  if (current !== undefined && typeof current !== 'string') return undefined;
  for (const profile of Object.values(profiles)) {
    if (!isRecord(profile) || typeof profile.url !== 'string') return undefined;
    if (profile.apiKey !== undefined && typeof profile.apiKey !== 'string') return undefined;
  }
  return value as unknown as Profiles;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
