import { createHmac, timingSafeEqual } from 'node:crypto';
import type { TicketMemory } from './contracts.ts';
import { AppError, NEVER_OURS } from './errors.ts';
import { type ApiKey, digestOf, type KeyRing, type Role } from './keys.ts';
import { derivedKey } from './secrets.ts';
import type { Ticket, TicketRole } from './ticket.ts';
import { Tickets } from './tickets.ts';

/** Who is asking. */
export interface Principal {
  readonly tenant: string;
  readonly role: Role;
  /** Which key it came with; none while the door is open, nor with a ticket. */
  readonly keyId?: string;
  /** Of the bearer of a ticket, who acts for the owner of its sandbox and reaches nothing else. */
  readonly ticket?: Ticket;
}

/** The parts of a request that say who is asking. Header names are lower case. */
export interface Credentials {
  readonly method?: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly query: URLSearchParams;
}

/** Query parameters that carry secrets: never passed on. */
export const SECRET_PARAMETERS = ['token', 'api_key', 'apiKey', 'ticket'] as const;

/** Name of the cookie that a browser is signed in with. */
export const SESSION_COOKIE = 'berth_session';
/** How long it counts, in seconds. */
export const SESSION_SECONDS = 12 * 3600;

/** Tenant of everybody while no keys are set. */
const OPEN_PRINCIPAL: Principal = { tenant: 'default', role: 'admin' };

/** What {@link Access} is made of. */
export interface AccessOptions {
  readonly keys: KeyRing;
  /** Signs tickets and sessions. */
  readonly masterKey: Buffer;
  readonly tickets: TicketMemory;
  /** Origin of the address that clients use, when it is known: pages of it may use the cookie, whatever a proxy makes of `Host`. */
  readonly publicOrigin?: string;
  readonly now?: () => number;
}

/** Keys, sessions and tickets: who may come in, and whose sandboxes they see. */
export class Access {
  readonly tickets: Tickets;
  readonly #keys: KeyRing;
  readonly #sessionKey: Buffer;
  readonly #publicOrigin: string | undefined;
  readonly #now: () => number;
  #closed = false;

  constructor({ keys, masterKey, tickets, publicOrigin, now = Date.now }: AccessOptions) {
    this.#keys = keys;
    this.tickets = new Tickets(derivedKey(masterKey, 'tickets'), tickets, now);
    this.#sessionKey = derivedKey(masterKey, 'sessions');
    this.#publicOrigin = publicOrigin;
    this.#now = now;
  }

  /** True when no keys are set, and none ever were: taking the last one away must not let everybody in. */
  get open(): boolean {
    this.#closed ||= this.#keys.size > 0;
    return !this.#closed;
  }

  /**
   * Throws UNAUTHORIZED (no or wrong key) or FORBIDDEN: while open, for a foreign page or name in `Origin` or `Host`; with
   * keys, for a `tenantId` that is not the key's.
   */
  authenticate(from: Credentials): Principal {
    if (this.open) {
      assertLocal(from);
      return OPEN_PRINCIPAL;
    }
    const presented = presentedKey(from);
    const key = presented === undefined ? this.#sessionOf(from) : this.#keys.find(digestOf(presented));
    if (!key) {
      const why =
        presented === undefined ? 'An API key is needed: Authorization: Bearer <key>, or X-API-Key.' : undefined;
      throw new AppError('UNAUTHORIZED', why ?? 'The API key is not known.', {}, why ? undefined : NEVER_OURS);
    }
    const tenantId = from.query.get('tenantId');
    if (tenantId !== null && tenantId !== key.tenant && key.role !== 'admin') {
      throw new AppError('FORBIDDEN', 'tenantId: the key is of another tenant.');
    }
    return { tenant: key.tenant, role: key.role, keyId: key.id };
  }

  /** Lets in a ticket for this sandbox and one of these roles, else whoever {@link authenticate} accepts. */
  authenticateFor(from: Credentials, sandboxId: string, roles: readonly TicketRole[]): Principal | Ticket {
    const ticket = from.query.get('ticket');
    return ticket === null ? this.authenticate(from) : this.tickets.check(ticket, sandboxId, roles);
  }

  /** A session for whoever came with a key: the cookie's value, and when it expires in Unix milliseconds. Undefined without a key. */
  session(principal: Principal): { readonly value: string; readonly expiresAt: number } | undefined {
    const key = principal.keyId === undefined ? undefined : this.#keys.get(principal.keyId);
    if (!key) return undefined;
    const expiresAt = this.#now() + SESSION_SECONDS * 1000;
    return { value: `${key.id}.${expiresAt}.${this.#signSession(key, expiresAt)}`, expiresAt };
  }

  /**
   * The key that the browser is signed in with. The cookie counts only where the browser says that our own page sent it:
   * pages of other ports of this machine are of the same site, and `SameSite` lets theirs through.
   */
  #sessionOf(from: Credentials): ApiKey | undefined {
    const cookies = (single(from.headers.cookie) ?? '').split(';').map((part) => part.trim());
    const value = cookies.find((part) => part.startsWith(`${SESSION_COOKIE}=`))?.slice(SESSION_COOKIE.length + 1);
    const [id = '', expires = '', signature = ''] = value?.split('.') ?? [];
    const key = this.#keys.get(id);
    const expiresAt = /^\d{1,15}$/.test(expires) ? Number(expires) : 0;
    if (!key || expiresAt < this.#now()) return undefined;
    // Of the digests of both: of one length, and nothing about where they differ.
    if (!timingSafeEqual(digestOf(signature), digestOf(this.#signSession(key, expiresAt)))) return undefined;
    this.#assertOwnPage(from);
    return key;
  }

  /** Throws FORBIDDEN. */
  #assertOwnPage({ method = 'GET', headers }: Credentials): void {
    const site = single(headers['sec-fetch-site']);
    const origin = single(headers.origin);
    const own = origin !== undefined && (origin === this.#publicOrigin || hostOf(origin) === single(headers.host));
    const foreign = (site !== undefined && site !== 'same-origin' && site !== 'none') || (origin !== undefined && !own);
    // A browser says where each request comes from that changes something or opens a WebSocket (Fetch, section 3.2).
    const needsOrigin = !/^(GET|HEAD|OPTIONS)$/.test(method) || headers.upgrade !== undefined;
    if (foreign || (needsOrigin && !own)) {
      throw new AppError('FORBIDDEN', 'A browser that is signed in may be used by pages of this service only.');
    }
  }

  /** Over the whole digest: no other key of the same id has it. */
  #signSession(key: ApiKey, expiresAt: number): string {
    const said = `${key.digest.toString('hex')}.${expiresAt}`;
    return createHmac('sha256', this.#sessionKey).update(said).digest('base64url');
  }
}

/** Whether it is a ticket, and not the holder of a key. */
export function isTicket(bearer: Principal | Ticket): bearer is Ticket {
  return 'sandboxId' in bearer;
}

/** Who did something, for the audit log. */
export function auditedAs(bearer: Principal | Ticket): { tenant?: string; keyId?: string; ticketId?: string } {
  if (isTicket(bearer)) return { ticketId: bearer.id };
  const { tenant, keyId, ticket } = bearer;
  return { tenant, ...(keyId === undefined ? {} : { keyId }), ...(ticket ? { ticketId: ticket.id } : {}) };
}

/** Whether somebody was turned away for want of a right. */
export function isRefusal(err: unknown): err is AppError {
  return err instanceof AppError && (err.errorName === 'UNAUTHORIZED' || err.errorName === 'FORBIDDEN');
}

/** Whether the principal may see a thing of this owner. What nobody owns is the admin's. */
export function sees(principal: Principal, owner: string | undefined): boolean {
  return principal.role === 'admin' || principal.tenant === owner;
}

/** Throws FORBIDDEN for roles that only look. */
export function assertMayChange(principal: Principal): void {
  if (principal.role === 'viewer') throw new AppError('FORBIDDEN', 'This key may look but not change anything.');
}

/** Throws FORBIDDEN for everybody but those who run the service. */
export function assertAdmin(principal: Principal): void {
  if (principal.role !== 'admin') throw new AppError('FORBIDDEN', 'This needs a key of the role admin.');
}

/** Whether a host name means this machine. */
function isLoopbackName(hostname: string): boolean {
  const name = hostname.replace(/^\[|\]$/g, '').toLowerCase();
  return name === 'localhost' || name.endsWith('.localhost') || name === '::1' || /^127(\.\d{1,3}){3}$/.test(name);
}

/**
 * An open service is for this machine only. A page of the Internet that finds us by a name of its own (DNS rebinding)
 * shows in `Host`; one that opens a WebSocket or posts a form to us (cross-site) shows in `Origin`.
 */
function assertLocal(from: Credentials): void {
  const host = hostnameOf(`http://${single(from.headers.host)}`);
  if (host === undefined || !isLoopbackName(host)) {
    throw new AppError(
      'FORBIDDEN',
      'Without API keys Berth answers to loopback names only; set BERTH_API_KEYS to use others.',
    );
  }
  const origin = single(from.headers.origin);
  if (origin === undefined) {
    // Browsers name no origin when a page merely embeds something of ours, but say that it is a foreign one.
    const site = single(from.headers['sec-fetch-site']);
    if (site === 'cross-site' && single(from.headers['sec-fetch-mode']) !== 'navigate') throw foreignPage();
    return;
  }
  const originHost = hostnameOf(origin);
  if (originHost === undefined || !isLoopbackName(originHost)) throw foreignPage();
}

function foreignPage(): AppError {
  return new AppError('FORBIDDEN', 'Without API keys Berth answers to pages of this machine only; set BERTH_API_KEYS.');
}

/** `name:port` of an origin, as `Host` has it. */
function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

function hostnameOf(url: string): string | undefined {
  try {
    return new URL(url).hostname;
  } catch {
    return undefined;
  }
}

/** The forms that the field's clients send a key in. */
function presentedKey(from: Credentials): string | undefined {
  const authorization = single(from.headers.authorization) ?? '';
  const [scheme = '', value = ''] = authorization.split(' ', 2);
  if (scheme.toLowerCase() === 'bearer') return value;
  if (scheme.toLowerCase() === 'basic') {
    // browserless sends `Basic base64("token:<key>")`, others `<key>:`.
    const [user = '', password = ''] = Buffer.from(value, 'base64').toString().split(':', 2);
    return password || user;
  }
  return (
    single(from.headers['x-api-key']) ??
    single(from.headers['agentrun-access-token']) ??
    from.query.get('token') ??
    from.query.get('api_key') ??
    from.query.get('apiKey') ??
    undefined
  );
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
