import { BlockList, isIP, isIPv4, isIPv6 } from 'node:net';
import { AppError } from './errors.ts';

/** What a create says of its sandbox's reach. Hosts are exact or `*.example.com`; the rest of the entries are addresses and CIDRs. */
export interface EgressInput {
  /** Only these, of what the operator leaves open. */
  readonly allow?: readonly string[];
  /** None of these; it wins over `allow`. */
  readonly deny?: readonly string[];
  /** Everything goes through this proxy. */
  readonly proxy?: { readonly url: string; readonly username?: string; readonly password?: string };
}

/** The same as it stands in a spec, on disk and in labels: nothing in it is secret. */
export interface EgressSpec extends Omit<EgressInput, 'proxy'> {
  /** `credentials` is a {@link ProxyCredentials} as JSON, sealed for `egress:<sandbox id>`. */
  readonly proxy?: { readonly url: string; readonly credentials?: string };
}

/** For a proxy that asks for them. */
export interface ProxyCredentials {
  readonly username: string;
  readonly password: string;
}

/** What closes an address. `berth`: our own API. `private`: the default. `operator`: BERTH_EGRESS_DENY. `deny`, `allow`: the sandbox's own lists. */
export type EgressRefusal = 'berth' | 'private' | 'operator' | 'deny' | 'allow';
export const EGRESS_REFUSALS: readonly EgressRefusal[] = ['berth', 'private', 'operator', 'deny', 'allow'];

/** Schemes of an upstream proxy and the port of each when its URL names none. */
const PROXY_PORTS: Readonly<Record<string, number>> = { 'http:': 80, 'https:': 443, 'socks5:': 1080 };

/** Name labels; the underscore is no letter of a host name, but there are hosts that have it. */
const HOST = /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/;

/** Addresses and CIDRs. A list for each version: one for both takes `::/3` for a network with IPv4 in it. */
class Networks {
  readonly #four = new BlockList();
  readonly #six = new BlockList();

  constructor(entries: readonly string[] = []) {
    for (const entry of entries) this.add(entry);
  }

  /** False when it is neither an address nor a CIDR. */
  add(entry: string): boolean {
    const [, address = '', , bits] = /^([0-9a-fA-F.:]+)(\/(\d{1,3}))?$/.exec(entry) ?? [];
    const version = isIP(address);
    const most = version === 4 ? 32 : 128;
    const prefix = Number(bits ?? most);
    if (version === 0 || prefix > most) return false;
    if (version === 4) this.#four.addSubnet(address, prefix, 'ipv4');
    else this.#six.addSubnet(address, prefix, 'ipv6');
    return true;
  }

  /** Of an address as {@link plain} writes it. */
  has(address: string): boolean {
    return isIPv4(address) ? this.#four.check(address, 'ipv4') : this.#six.check(address, 'ipv6');
  }
}

/**
 * What is closed unless the operator opens it: all that is not an ordinary address of the public internet (IANA's registries
 * of special-purpose addresses), and 168.63.129.16, which is Azure's metadata service.
 */
const PRIVATE = new Networks([
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24'],
  ...['192.0.2.0/24', '192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15', '198.51.100.0/24', '203.0.113.0/24'],
  ...['224.0.0.0/3', '168.63.129.16/32'],
  // Of IPv6 only 2000::/3 is in use for that. Teredo and 6to4 (2001::/32, 2002::/16) lead to IPv4 in roundabout ways.
  ...['::/3', '4000::/2', '8000::/1', '2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20'],
]);

/** The machine's own addresses, whatever its interfaces are. */
const LOOPBACK = new Networks(['127.0.0.0/8', '0.0.0.0/8', '::1', '::']);

/** Addresses with an IPv4 one in their last 32 bits that they stand for. */
const EMBEDDING = new Networks(['::ffff:0:0/96', '64:ff9b::/96']);

/** Hosts and networks, as settings and creates list them. */
export class EgressList {
  readonly #hosts = new Set<string>();
  /** Each with its dot in front. */
  readonly #suffixes: string[] = [];
  readonly #networks = new Networks();

  /** Throws the rest of a sentence that begins with where the entry stands. */
  constructor(entries: readonly string[]) {
    for (const entry of entries) {
      // No address would be found in it.
      if (isIPv4(plain(entry.split('/')[0] as string)) && entry.includes(':')) {
        throw new Error(`${JSON.stringify(entry)} is to be written as IPv4`);
      }
      if (this.#networks.add(entry)) continue;
      const wild = entry.startsWith('*.');
      const host = hostOf(wild ? entry.slice(2) : entry);
      if (host === undefined || isIP(host) !== 0 || !HOST.test(host)) {
        throw new Error(`${JSON.stringify(entry)} is no host, *.host, address or CIDR`);
      }
      if (wild) this.#suffixes.push(`.${host}`);
      else this.#hosts.add(host);
    }
  }

  /** Whether a host of this name, or this address, is in it; both in their usual form. */
  has(host: string, address: string | undefined): boolean {
    if (this.#hosts.has(host) || this.#suffixes.some((suffix) => host.endsWith(suffix))) return true;
    return address !== undefined && this.#networks.has(address);
  }
}

/** What holds for all sandboxes of a service. */
export interface OperatorRules {
  readonly allow: EgressList;
  readonly deny: EgressList;
  /** Berth's own door: closed whatever is allowed. `hosts` are names by which it is known. */
  readonly doors: readonly { readonly port: number; readonly hosts: readonly string[] }[];
  /** All addresses of this machine. */
  readonly own: () => ReadonlySet<string>;
}

/** Which addresses one sandbox may reach. */
export class EgressRules {
  readonly #operator: OperatorRules;
  readonly #allow: EgressList | undefined;
  readonly #deny: EgressList;

  constructor(operator: OperatorRules, { allow, deny = [] }: Pick<EgressInput, 'allow' | 'deny'>) {
    this.#operator = operator;
    this.#allow = allow && new EgressList(allow);
    this.#deny = new EgressList(deny);
  }

  /**
   * Why a connection to this address, which the host's name led to, is refused; undefined: it may be made. `host` is as
   * {@link hostOf} writes it. Without an address (somebody else resolves the name) only names are looked at.
   */
  refuses(host: string, port: number, address: string | undefined): EgressRefusal | undefined {
    const closed = operatorRefuses(this.#operator, host, port, address);
    if (closed !== undefined) return closed;
    const target = address === undefined ? undefined : plain(address);
    if (this.#deny.has(host, target)) return 'deny';
    if (this.#allow && !this.#allow.has(host, target)) return 'allow';
    return undefined;
  }
}

/** The same by the operator's rules alone, which hold for upstream proxies too. */
export function operatorRefuses(
  { allow, deny, doors, own }: OperatorRules,
  host: string,
  port: number,
  address: string | undefined,
): EgressRefusal | undefined {
  const target = address === undefined ? undefined : plain(address);
  const ours = target !== undefined && (LOOPBACK.has(target) || own().has(target));
  if (doors.some((door) => door.port === port && (ours || door.hosts.includes(host)))) return 'berth';
  if (deny.has(host, target)) return 'operator';
  if (target !== undefined && (ours || PRIVATE.has(target)) && !allow.has(host, target)) return 'private';
  return undefined;
}

/**
 * A host of a URL or CONNECT as rules compare it: lower case, ASCII, no dot at its end, addresses in their one usual form
 * (`0x7f.1` is 127.0.0.1), IPv6 without brackets. Undefined when it is none.
 */
export function hostOf(text: string): string | undefined {
  const bare = isIPv6(text) ? `[${text}]` : text;
  // What a URL would take for the end of the host, or for a user before it.
  if (bare === '' || /[\s/?#@\\]/.test(bare) || (!bare.startsWith('[') && bare.includes(':'))) return undefined;
  const url = `http://${bare}/`;
  if (!URL.canParse(url)) return undefined;
  const { hostname } = new URL(url);
  const host = hostname.startsWith('[') ? hostname.slice(1, -1) : hostname.replace(/\.$/, '');
  return host === '' ? undefined : host;
}

/**
 * The address that a connection really goes to: without a zone, and the IPv4 one inside of mapped (`::ffff:127.0.0.1`)
 * and NAT64 (`64:ff9b::7f00:1`) addresses.
 */
export function plain(address: string): string {
  const bare = address.replace(/%.*$/, '');
  if (!isIPv6(bare)) return bare;
  const host = hostOf(bare) as string;
  if (!EMBEDDING.has(host)) return host;
  const groups = host.split('::').at(-1)?.split(':') ?? [];
  const [high = 0, low = 0] = [groups.at(-2), groups.at(-1)].map((group) => Number.parseInt(group || '0', 16));
  return [high >> 8, high & 255, low >> 8, low & 255].join('.');
}

/** Throws INVALID_REQUEST, naming the field. The proxy's URL is not repeated: it may hold a password. */
export function assertEgress({ allow, deny, proxy }: EgressInput): void {
  const invalid = (field: string, why: string): AppError => new AppError('INVALID_REQUEST', `egress.${field}: ${why}`);
  for (const [field, entries] of Object.entries({ allow, deny })) {
    for (const [index, entry] of (entries ?? []).entries()) {
      try {
        new EgressList([entry]);
      } catch (err) {
        throw invalid(`${field}.${index}`, (err as Error).message);
      }
    }
  }
  if (!proxy) return;
  const url = URL.canParse(proxy.url) ? new URL(proxy.url) : undefined;
  if (!url || !(url.protocol in PROXY_PORTS) || hostOf(url.hostname) === undefined) {
    throw invalid('proxy.url', 'must be an http, https or socks5 address, such as http://proxy.example.com:3128');
  }
  if (url.username || url.password) {
    throw invalid('proxy.url', 'must have no user and password; they have fields of their own, username and password');
  }
  if (!['', '/'].includes(url.pathname) || url.search || url.hash) {
    throw invalid('proxy.url', 'must have no path, query or fragment');
  }
  if (proxy.password !== undefined && proxy.username === undefined) {
    throw invalid('proxy.username', 'is missing');
  }
  if (proxy.username?.includes(':')) throw invalid('proxy.username', 'must have no colon (RFC 7617)');
}

/** What the credentials of a sandbox's upstream proxy are sealed for. */
export function egressContext(sandboxId: string): string {
  return `egress:${sandboxId}`;
}

/** As it may stand in the sandbox's spec. */
export function sealedEgress(
  { proxy, ...lists }: EgressInput,
  sandboxId: string,
  seal: (text: string, context: string) => string,
): EgressSpec {
  if (!proxy) return lists;
  const { url, username, password = '' } = proxy;
  if (username === undefined) return { ...lists, proxy: { url } };
  const credentials: ProxyCredentials = { username, password };
  return { ...lists, proxy: { url, credentials: seal(JSON.stringify(credentials), egressContext(sandboxId)) } };
}

/** Scheme, host and port of a proxy's URL that {@link assertEgress} has let pass. */
export function proxyAddress(url: string): { readonly protocol: string; readonly host: string; readonly port: number } {
  const { protocol, hostname, port } = new URL(url);
  return { protocol, host: hostOf(hostname) as string, port: Number(port || PROXY_PORTS[protocol]) };
}
