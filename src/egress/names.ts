import { lookup, Resolver } from 'node:dns/promises';
import { isIP } from 'node:net';

/** How long an answer serves for further requests, in milliseconds: a page asks for the same name dozens of times at once. */
const FRESH_MS = 5000;
const MOST = 10_000;

/** Finds the addresses of hosts, for all sandboxes alike. */
export class Names {
  readonly #resolver: Resolver | undefined;
  readonly #known = new Map<string, { readonly until: number; readonly addresses: Promise<string[]> }>();

  /** Asks these servers (`9.9.9.9`, `[2620:fe::fe]:53`); none: as this machine does, with its hosts file. */
  constructor(servers: readonly string[]) {
    if (servers.length === 0) return;
    this.#resolver = new Resolver({ timeout: 3000, tries: 2 });
    this.#resolver.setServers(servers);
  }

  /** At least one address; an address is its own. Rejects with a `code` such as ENOTFOUND. */
  find(host: string): Promise<readonly string[]> {
    if (isIP(host) !== 0) return Promise.resolve([host]);
    const now = performance.now();
    const known = this.#known.get(host);
    if (known && known.until > now) return known.addresses;
    const addresses = this.#resolver ? resolved(this.#resolver, host) : asThisMachine(host);
    this.#known.delete(host);
    this.#known.set(host, { until: now + FRESH_MS, addresses });
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= MOST) break;
      this.#known.delete(oldest);
    }
    // A name that failed may be there in a moment.
    addresses.catch(() => this.#known.delete(host));
    return addresses;
  }
}

async function asThisMachine(host: string): Promise<string[]> {
  return (await lookup(host, { all: true, verbatim: true })).map(({ address }) => address);
}

async function resolved(resolver: Resolver, host: string): Promise<string[]> {
  const [four, six] = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
  const found = [four, six].flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
  if (found.length === 0 && four.status === 'rejected') throw four.reason;
  return found;
}
