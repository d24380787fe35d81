/** Which service is talked to, and with which key: flags before the environment before the profile before the default. */
import { readFile } from 'node:fs/promises';
import { text as readAll } from 'node:stream/consumers';
import { BerthClient } from '../client/client.ts';
import { misuse } from './failure.ts';
import type { Io } from './io.ts';
import { readProfiles } from './profiles.ts';

const DEFAULT_URL = 'http://127.0.0.1:3000';

/** Flags that every command has which talks to a service. */
export interface ConnectionFlags {
  readonly url?: string;
  readonly apiKey?: string;
  readonly apiKeyFile?: string;
  readonly profile?: string;
}

export interface Connection {
  /** Without a slash at its end. */
  readonly url: string;
  readonly apiKey: string | undefined;
  /** What {@link Io.signal} ends. */
  readonly client: BerthClient;
}

/** Finds out whom to talk to; nothing is sent yet. Throws a {@link Failure}. */
export async function connect(io: Io, flags: ConnectionFlags): Promise<Connection> {
  const { url, apiKey } = await resolve(io, flags);
  return { url, apiKey, client: new BerthClient(url, apiKey, io.signal) };
}

async function resolve(io: Io, flags: ConnectionFlags): Promise<{ url: string; apiKey: string | undefined }> {
  const { BERTH_URL, BERTH_API_KEY, BERTH_PROFILE } = io.env;
  // A profile that was asked for by a flag counts as what it holds would: before the environment.
  const env = flags.profile === undefined ? { url: BERTH_URL || undefined, apiKey: BERTH_API_KEY || undefined } : {};
  const givenUrl = flags.url ?? env.url;
  const givenKey = (await keyOfFlags(io, flags)) ?? env.apiKey;
  // Nothing is left to ask a profile for, so one that is unfit does not matter.
  if (givenUrl !== undefined && givenKey !== undefined && flags.profile === undefined)
    return { url: addressOf(givenUrl), apiKey: givenKey };
  const { current, profiles } = await readProfiles(io);
  const name = flags.profile ?? (BERTH_PROFILE || current);
  const profile = name !== undefined && Object.hasOwn(profiles, name) ? profiles[name] : undefined;
  if (name !== undefined && !profile)
    throw misuse(`There is no profile "${name}"; berth profile ls shows those that there are.`);
  const url = addressOf(givenUrl ?? profile?.url ?? DEFAULT_URL);
  // A profile's key is for the profile's service: it is not shown to another one that was named by hand.
  const ownKey = profile && addressOf(profile.url) === url ? profile.apiKey : undefined;
  return { url, apiKey: givenKey ?? ownKey };
}

async function keyOfFlags(io: Io, { apiKey, apiKeyFile }: ConnectionFlags): Promise<string | undefined> {
  if (apiKey !== undefined && apiKeyFile !== undefined)
    throw misuse('--api-key and --api-key-file exclude each other.');
  if (apiKeyFile !== undefined) return keyFromFile(io, apiKeyFile);
  return apiKey === undefined ? undefined : usableKey(apiKey, '--api-key');
}

/** The key that a file holds, `-` being stdin. */
export async function keyFromFile(io: Io, file: string): Promise<string> {
  if (file === '-') return usableKey(await readAll(io.stdin()), 'stdin');
  const text = await readFile(file, 'utf8').catch((err: NodeJS.ErrnoException) => {
    throw misuse(`The key file ${file} cannot be read (${err.code}).`);
  });
  return usableKey(text, file);
}

/** It goes into a header, so a line break or an umlaut in it would be somebody else's error message. */
function usableKey(text: string, from: string): string {
  const key = text.trim();
  if (/^[\x21-\x7e]+$/.test(key)) return key;
  throw misuse(`${from} holds no API key: one line without spaces is wanted.`);
}

/** The address of a service as it was typed. Throws a {@link Failure} for what is none. */
export function addressOf(text: string): string {
  const url = tryParse(text);
  if (url === undefined || !/^https?:$/.test(url.protocol))
    throw misuse(`"${text}" is not the address of a service; it looks like ${DEFAULT_URL}.`);
  if (url.username || url.password || url.search || url.hash)
    throw misuse('The address of a service has no user, query or fragment in it; a key goes into --api-key-file.');
  return url.href.replace(/\/+$/, '');
}

function tryParse(text: string): URL | undefined {
  try {
    return new URL(text);
  } catch {
    return undefined;
  }
}
