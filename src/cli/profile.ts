/** `berth profile add`, `ls`, `use` and `rm`. */
import { addressOf, type ConnectionFlags, keyFromFile } from './connection.ts';
import { EXIT, Failure, misuse } from './failure.ts';
import type { Io } from './io.ts';
import { table } from './output.ts';
import { changeProfiles, type Profile, profilesFile, readProfiles } from './profiles.ts';
import { type CommonFlags, talker } from './session.ts';

/** Stores an address and a key under a name. The first one that is stored is the one that is used. */
export async function addProfile(io: Io, name: string, url: string, flags: ConnectionFlags): Promise<void> {
  if (!/^[A-Za-z0-9_.-]{1,64}$/.test(name) || name === '__proto__')
    throw misuse('A profile is named by 1 to 64 letters, digits, dots, dashes and underscores.');
  const address = addressOf(url);
  const apiKey = flags.apiKeyFile === undefined ? flags.apiKey : await keyFromFile(io, flags.apiKeyFile);
  const key = apiKey ?? (io.stdinIsTTY ? await askHidden(io, `API key for ${address} (empty for none): `) : undefined);
  const profile: Profile = { url: address, ...(key ? { apiKey: key } : {}) };
  await changeProfiles(io, ({ current, profiles }) => ({
    current: current ?? name,
    profiles: { ...profiles, [name]: profile },
  }));
  talker(io, {}).note(`profile ${name} is in ${profilesFile(io)}${key ? '' : ', without a key'}.`);
}

/** Names, addresses, and whether there is a key; never the key itself. */
export async function listProfiles(io: Io, flags: CommonFlags): Promise<void> {
  const { current, profiles } = await readProfiles(io);
  const found = Object.entries(profiles).map(([name, { url, apiKey }]) => ({
    name,
    url,
    hasKey: apiKey !== undefined,
    current: name === current,
  }));
  const { print, note } = talker(io, flags);
  print(found, () => {
    if (found.length === 0) note('no profile is stored; berth profile add stores one.');
    const rows = found.map((one) => [one.current ? '*' : '', one.name, one.url, one.hasKey ? 'yes' : 'no']);
    return rows.length === 0 ? '' : table(['', 'PROFILE', 'URL', 'KEY'], rows);
  });
}

export async function useProfile(io: Io, name: string): Promise<void> {
  await changeProfiles(io, ({ profiles }) => {
    assertThere(profiles, name);
    return { current: name, profiles };
  });
}

export async function removeProfile(io: Io, name: string): Promise<void> {
  await changeProfiles(io, ({ current, profiles }) => {
    assertThere(profiles, name);
    const { [name]: _, ...left } = profiles;
    return { ...(current !== undefined && current !== name ? { current } : {}), profiles: left };
  });
}

function assertThere(profiles: Readonly<Record<string, Profile>>, name: string): void {
  if (!Object.hasOwn(profiles, name))
    throw new Failure(EXIT.notFound, `There is no profile "${name}"; berth profile ls shows those that there are.`);
}

/** A line that is typed without being shown. */
function askHidden(io: Io, question: string): Promise<string> {
  const stdin = io.stdin();
  return new Promise((resolve, reject) => {
    let typed = '';
    const done = (finish: () => void): void => {
      stdin.setRawMode?.(false);
      stdin.off('data', onData).pause();
      io.stderr.write('\n');
      finish();
    };
    const onData = (chunk: Buffer): void => {
      for (const character of chunk.toString()) {
        if (character === '\r' || character === '\n' || character === '\u0004')
          return done(() => resolve(typed.trim()));
        // In raw mode the terminal leaves Ctrl-C to us.
        if (character === '\u0003') return done(() => reject(new Failure(130, 'Nothing was stored.')));
        typed = character === '\u007f' || character === '\b' ? typed.slice(0, -1) : typed + character;
      }
    };
    io.stderr.write(question);
    stdin.setRawMode?.(true);
    stdin.on('data', onData).resume();
  });
}
