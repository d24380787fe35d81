import { BlockList, isIP, isIPv4 } from 'node:net';

/** Headers as they came: lower-case names, all values of each. */
export type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** Who a request comes from, as far as it can be believed. */
export interface Caller {
  /** IP address of the client: the peer's, or what a trusted proxy says. */
  readonly address: string;
  /** What is left for us to believe: `host`, `x-forwarded-proto` and `x-real-ip` are right, nothing else speaks of the way here. */
  readonly headers: Record<string, string | string[]>;
}

/** What clients or proxies say about the way that a request took. `Forwarded` is never believed: proxies that do not know it pass it on. */
const HEARSAY = /^(x-forwarded-.*|forwarded|x-real-ip|x-client-ip|true-client-ip|x-original-.*|x-rewrite-url)$/;
/** A name or address and a port, as it may stand in `Host`. */
const HOST = /^[A-Za-z0-9._-]+(:\d{1,5})?$|^\[[0-9A-Fa-f:.]+\](:\d{1,5})?$/;
/** Traefik and others name a WebSocket's scheme. */
const SCHEMES: Readonly<Record<string, string>> = { http: 'http', https: 'https', ws: 'http', wss: 'https' };

/** Tells who is calling: from nobody but trusted proxies is it believed that they speak for somebody else. */
export class Callers {
  readonly #proxies = new BlockList();
  readonly #scheme: string;

  /** `secure`: clients reach us by TLS. */
  constructor(trustedProxies: readonly string[], secure: boolean) {
    this.#scheme = secure ? 'https' : 'http';
    for (const entry of trustedProxies) {
      const [address = '', bits] = entry.split('/');
      const family = isIPv4(address) ? 'ipv4' : 'ipv6';
      if (bits === undefined) this.#proxies.addAddress(address, family);
      else this.#proxies.addSubnet(address, Number(bits), family);
    }
  }

  /** Whether this peer is one of the trusted proxies. */
  isProxy(address: string): boolean {
    return isIP(address) !== 0 && this.#proxies.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
  }

  /** `peer` is the address at the other end of the connection. */
  of(peer: string, given: Headers): Caller {
    const from = plainAddress(peer);
    const headers: Record<string, string | string[]> = {};
    for (const [name, value] of Object.entries(given)) {
      if (value !== undefined && !HEARSAY.test(name)) headers[name] = value;
    }
    const trusted = this.isProxy(from);
    const said = (name: string): string | undefined => (trusted ? joined(given[name]) : undefined);
    const address = this.#client(from, said('x-forwarded-for'));
    headers['x-real-ip'] = address;
    // Of several the first: it is the client's own, and a proxy that is trusted has replaced what came before it.
    const scheme = SCHEMES[first(said('x-forwarded-proto')).toLowerCase()];
    headers['x-forwarded-proto'] = scheme ?? this.#scheme;
    const host = first(said('x-forwarded-host'));
    if (HOST.test(host)) headers.host = host;
    return { address, headers };
  }

  /** From the right, each proxy has added whom it was called by, so that the first that is not ours is the client. */
  #client(peer: string, forwardedFor: string | undefined): string {
    let client = peer;
    for (const entry of (forwardedFor ?? '').split(',').reverse()) {
      const address = plainAddress(
        entry
          .trim()
          .replace(/^\[(.*)\](:\d+)?$/, '$1')
          .replace(/^([\d.]+):\d+$/, '$1'),
      );
      if (isIP(address) === 0) break;
      client = address;
      if (!this.isProxy(address)) break;
    }
    return client;
  }
}

/** An IPv4 address that came in the form of an IPv6 one (`::ffff:…`, however it is written) is itself again. */
export function plainAddress(address: string): string {
  const bare = address.split('%', 1)[0] as string;
  const dotted = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(bare)?.[1];
  if (dotted !== undefined) return dotted;
  const hex = /^(?:::|(?:0{1,4}:){5})ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/i.exec(bare);
  if (!hex) return bare;
  const [high, low] = [hex[1], hex[2]].map((part) => Number.parseInt(part as string, 16)) as [number, number];
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
}

function joined(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(',') : value;
}

function first(list: string | undefined): string {
  return (list ?? '').split(',', 1)[0]?.trim() ?? '';
}
