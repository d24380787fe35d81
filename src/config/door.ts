/** The settings of the public door: how it is reached, and who may say for whom. */
import net from 'node:net';
import path from 'node:path';
import { parseWord, type Setting } from './setting.ts';

export interface DoorConfig {
  /** `production` refuses what is fit for one's own machine only. */
  readonly env: 'development' | 'production';
  /** Absolute paths of PEM files, both or neither; undefined: plain HTTP. */
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  /** Addresses and CIDRs whose `X-Forwarded-…` headers are believed. */
  readonly trustedProxies: readonly string[];
  /** Sources as in CSP's `frame-ancestors`; undefined: anybody, or while no keys are set pages of this machine. */
  readonly frameAncestors: string | undefined;
}

/** Rows of the table of settings. */
export const doorSettings: { readonly [K in keyof DoorConfig]: Setting<DoorConfig[K]> } = {
  env: {
    name: 'BERTH_ENV',
    default: 'development',
    meaning:
      '`production` starts only with API keys, and with TLS, trusted proxies, or loopback behind an https address.',
    danger: '`development` does not ask whether others can listen in.',
    parse: (text) => parseWord(text, ['development', 'production'] as const),
  },
  tlsCert: {
    name: 'BERTH_TLS_CERT',
    default: '',
    defaultShown: 'none',
    meaning:
      'Path of a PEM file with the certificate and those between it and its root: https and wss instead of http and ws.',
    danger: 'Looked at every two seconds and taken over when it changes; one that does not fit its key is not.',
    parse: parsePath,
  },
  tlsKey: {
    name: 'BERTH_TLS_KEY',
    default: '',
    defaultShown: 'none',
    meaning: 'Path of the PEM file with its private key, not encrypted.',
    danger: 'Whoever can read it can be you.',
    parse: parsePath,
  },
  trustedProxies: {
    name: 'BERTH_TRUSTED_PROXIES',
    default: '',
    defaultShown: 'none',
    meaning:
      'Comma-separated addresses and CIDRs of your reverse proxies: their `X-Forwarded-For`, `-Proto` and `-Host` are believed.',
    danger:
      'Whoever else has such an address says who its callers are; each proxy must replace these headers, not pass them on.',
    parse: parseProxies,
  },
  frameAncestors: {
    name: 'BERTH_FRAME_ANCESTORS',
    default: '',
    defaultShown: '`*`; without keys, pages of this machine',
    meaning:
      "Who may show the live view in a frame: sources as in CSP's `frame-ancestors`, such as `'self' https://app.example.com`.",
    danger: 'A page that frames the view of a user can have them click in it.',
    parse: parseSources,
  },
};

/** A sentence that says why these do not go together, if they do not. */
export function doorContradiction({ tlsCert, tlsKey }: DoorConfig): string | undefined {
  if ((tlsCert === undefined) === (tlsKey === undefined)) return undefined;
  return 'BERTH_TLS_CERT and BERTH_TLS_KEY belong together; set both or neither.';
}

/** Why the service must not start like this, if it must not; `keys`: there are some, `loopback`: it listens to this machine only. */
export function doorExposure(
  config: DoorConfig & { readonly publicUrl: string | undefined },
  keys: boolean,
  loopback: boolean,
): string | undefined {
  const none = 'there are no keys (BERTH_API_KEYS, or berth keys add), so anybody could use your browsers; set keys.';
  if (config.trustedProxies.length > 0 && !keys) {
    return `BERTH_TRUSTED_PROXIES is set, so others come in through a proxy, but ${none}`;
  }
  if (config.env !== 'production') return undefined;
  if (!keys) return `BERTH_ENV is production, but ${none}`;
  const behindProxy = config.trustedProxies.length > 0 || (loopback && config.publicUrl?.startsWith('https:'));
  if (config.tlsCert !== undefined || behindProxy) return undefined;
  return 'BERTH_ENV is production, but keys and screens would cross the network in the clear; set BERTH_TLS_CERT and BERTH_TLS_KEY, or BERTH_TRUSTED_PROXIES, or listen on 127.0.0.1 with an https BERTH_PUBLIC_URL.';
}

function parsePath(text: string): string | undefined {
  return text === '' ? undefined : path.resolve(text);
}

function parseProxies(text: string): readonly string[] {
  if (text.trim() === '') return Object.freeze([]);
  const proxies = text.split(',').map((entry) => {
    const [address = '', bits, ...more] = entry.trim().split('/');
    const family = net.isIP(address);
    const most = family === 4 ? 32 : 128;
    // With 0 bits everybody would be one's own proxy.
    const fits = bits === undefined || (/^[1-9]\d{0,2}$/.test(bits) && Number(bits) <= most);
    if (family === 0 || !fits || more.length > 0)
      throw new Error(`must be addresses and CIDRs such as 10.0.0.0/8, and ${JSON.stringify(entry.trim())} is neither`);
    return entry.trim();
  });
  return Object.freeze(proxies);
}

/** Nothing that could end the directive or the header. */
function parseSources(text: string): string | undefined {
  if (text === '') return undefined;
  if (/^[A-Za-z0-9'*.:/ [\]_-]{1,1000}$/.test(text)) return text.trim();
  throw new Error("must be sources with blanks between them, such as 'self' https://app.example.com");
}
