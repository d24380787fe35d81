import { AppError, isGuess } from './errors.ts';

/** How much one tenant may ask for; 0, or nothing said, sets no limit. */
export interface TenantLimitsOptions {
  /** At the same time. */
  readonly tenantSandboxes?: number;
  readonly tenantCreatesPerMinute?: number;
  readonly tenantTicketsPerMinute?: number;
}

/** How much may come from one address (of IPv6: from one /64); 0, or nothing said, sets no limit. */
export interface AddressLimitsOptions {
  readonly addressFailuresPerMinute?: number;
  readonly addressRequestsPerMinute?: number;
  readonly addressUpgradesPerMinute?: number;
  /** Under way at once. */
  readonly addressUpgrades?: number;
  /** New ones in {@link SILENT_MS}. */
  readonly addressConnections?: number;
}

/** Milliseconds that never go back. */
type Clock = () => number;

const MINUTE_MS = 60_000;
/** How long a connection may stay that sends no request: 10 s, and what it takes to notice. */
const SILENT_MS = 12_000;
/** Names remembered by one {@link Rate}, some 100 bytes each; over that those longest unheard of are forgotten. */
const MAX_NAMES = 10_000;
/** When somebody may come again who met a limit on what there is at once: nobody knows, so it is a guess, in seconds. */
const RETRY_AFTER_SECONDS = 5;

/**
 * So many in a period, for each name: all at once, and then one whenever its share of the period has passed. Of a name no more
 * is kept than when its allowance will be whole again (the generic cell rate algorithm), and nothing of those that have it whole.
 */
export class Rate {
  readonly #limit: number;
  readonly #periodMs: number;
  readonly #now: Clock;
  /** Those that took longest ago first. */
  readonly #wholeAt = new Map<string, number>();

  /** A limit of 0 is none. */
  constructor(limit: number, periodMs: number, now: Clock = () => performance.now()) {
    this.#limit = limit;
    this.#periodMs = periodMs;
    this.#now = now;
  }

  /** Names that are remembered. */
  get size(): number {
    return this.#wholeAt.size;
  }

  /** Seconds until this name may take one, a whole number; 0: now. */
  wait(name: string): number {
    const wholeAt = this.#wholeAt.get(name);
    if (this.#limit === 0 || wholeAt === undefined) return 0;
    const ms = wholeAt - this.#now() - this.#periodMs + this.#periodMs / this.#limit;
    // Sums of fractions end a little off.
    return ms < 0.001 ? 0 : Math.ceil(ms / 1000);
  }

  /** Takes one, and answers 0; or what {@link wait} says, and takes none. */
  take(name: string): number {
    if (this.#limit === 0) return 0;
    const wait = this.wait(name);
    if (wait > 0) return wait;
    const now = this.#now();
    const wholeAt = Math.max(this.#wholeAt.get(name) ?? 0, now) + this.#periodMs / this.#limit;
    this.#wholeAt.delete(name);
    this.#wholeAt.set(name, wholeAt);
    this.#forget(now);
    return 0;
  }

  /** Two at most for one that comes, so that there are ever fewer, and no call takes long. */
  #forget(now: number): void {
    let looked = 0;
    for (const [name, wholeAt] of this.#wholeAt) {
      if (++looked > 2 || (wholeAt > now && this.#wholeAt.size <= MAX_NAMES)) return;
      this.#wholeAt.delete(name);
    }
  }
}

/** What one tenant may ask for. */
export class TenantLimits {
  readonly #sandboxes: number;
  readonly #creates: Rate;
  readonly #tickets: Rate;

  constructor(options: TenantLimitsOptions = {}, now?: Clock) {
    this.#sandboxes = options.tenantSandboxes ?? 0;
    this.#creates = new Rate(options.tenantCreatesPerMinute ?? 0, MINUTE_MS, now);
    this.#tickets = new Rate(options.tenantTicketsPerMinute ?? 0, MINUTE_MS, now);
  }

  /** Before a create; `living` is how many the tenant has. Throws NO_CAPACITY, TOO_MANY_REQUESTS. */
  create(tenant: string, living: number): void {
    const wait = this.#creates.take(tenant);
    if (wait > 0) throw tooMany('creates of this tenant (BERTH_TENANT_CREATES_PER_MINUTE)', wait);
    if (this.#sandboxes === 0 || living < this.#sandboxes) return;
    throw new AppError(
      'NO_CAPACITY',
      `All ${this.#sandboxes} sandboxes that this tenant may have are in use (BERTH_TENANT_SANDBOXES).`,
      { 'Retry-After': String(RETRY_AFTER_SECONDS) },
    );
  }

  /** Before a ticket is made. Throws TOO_MANY_REQUESTS. */
  ticket(tenant: string): void {
    const wait = this.#tickets.take(tenant);
    if (wait > 0) throw tooMany('tickets for this tenant (BERTH_TENANT_TICKETS_PER_MINUTE)', wait);
  }
}

/** What may come from one address. */
export class AddressLimits {
  readonly #failures: Rate;
  readonly #requests: Rate;
  readonly #upgrades: Rate;
  readonly #connections: Rate;
  readonly #mostUpgrades: number;
  readonly #upgrading = new Map<string, number>();

  constructor(options: AddressLimitsOptions = {}, now?: Clock) {
    this.#failures = new Rate(options.addressFailuresPerMinute ?? 0, MINUTE_MS, now);
    this.#requests = new Rate(options.addressRequestsPerMinute ?? 0, MINUTE_MS, now);
    this.#upgrades = new Rate(options.addressUpgradesPerMinute ?? 0, MINUTE_MS, now);
    this.#connections = new Rate(options.addressConnections ?? 0, SILENT_MS, now);
    this.#mostUpgrades = options.addressUpgrades ?? 0;
  }

  /** Lets somebody show a key or ticket, unless too many from there were wrong. Throws TOO_MANY_REQUESTS before anything is compared, and what `attempt` throws. */
  authenticating<T>(address: string, attempt: () => T): T {
    const from = subnetOf(address);
    const wait = this.#failures.wait(from);
    if (wait > 0) throw tooMany('wrong keys or tickets from this address (BERTH_ADDRESS_FAILURES_PER_MINUTE)', wait);
    try {
      return attempt();
    } catch (err) {
      if (isGuess(err)) this.#failures.take(from);
      throw err;
    }
  }

  /** Before a request is passed on. Throws TOO_MANY_REQUESTS. */
  request(address: string): void {
    const wait = this.#requests.take(subnetOf(address));
    if (wait > 0) throw tooMany('requests from this address (BERTH_ADDRESS_REQUESTS_PER_MINUTE)', wait);
  }

  /** Before a WebSocket is opened; the answer is called when it is open or refused. Throws TOO_MANY_REQUESTS. */
  upgrade(address: string): () => void {
    const from = subnetOf(address);
    const underWay = this.#upgrading.get(from) ?? 0;
    if (this.#mostUpgrades > 0 && underWay >= this.#mostUpgrades) {
      throw tooMany('WebSockets being opened from this address (BERTH_ADDRESS_UPGRADES)', RETRY_AFTER_SECONDS);
    }
    const wait = this.#upgrades.take(from);
    if (wait > 0) throw tooMany('WebSockets from this address (BERTH_ADDRESS_UPGRADES_PER_MINUTE)', wait);
    this.#upgrading.set(from, underWay + 1);
    return () => {
      const left = (this.#upgrading.get(from) ?? 1) - 1;
      if (left > 0) this.#upgrading.set(from, left);
      else this.#upgrading.delete(from);
    };
  }

  /** Whether one more connection may stay. */
  connection(address: string): boolean {
    return this.#connections.take(subnetOf(address)) === 0;
  }
}

/** What counts as one address: of IPv6 the first 64 bits, of which a single machine may have all the rest. */
export function subnetOf(address: string): string {
  if (!address.includes(':')) return address;
  const [head = '', tail] = address.split('::');
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':'));
  const [front, back] = [groups(head), groups(tail ?? '')];
  const absent = tail === undefined ? 0 : Math.max(0, 8 - front.length - back.length);
  const all = [...front, ...Array<string>(absent).fill('0'), ...back];
  return all
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':');
}

function tooMany(what: string, seconds: number): AppError {
  return new AppError('TOO_MANY_REQUESTS', `Too many ${what}; try again in ${seconds} s.`, {
    'Retry-After': String(seconds),
  });
}
