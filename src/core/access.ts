import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { AppError } from './errors.ts';

/** admin: everything of every tenant. user: everything of its own tenant. viewer: reads its own tenant's, changes nothing. */
export type Role = 'admin' | 'user' | 'viewer';

/** One of `BERTH_API_KEYS`: a secret, whose sandboxes it shows, and what it may do with them. */
export interface ApiKey {
  readonly tenant: string;
  readonly key: string;
  readonly role: Role;
}

/** Who is asking. */
export interface Principal {
  readonly tenant: string;
  readonly role: Role;
}

/** What a ticket lets its bearer do with one sandbox: drive it over CDP, or see and control its screen. */
export type TicketRole = 'automation' | 'control';

/** The parts of a request that say who is asking. Header names are lower case. */
export interface Credentials {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly query: URLSearchParams;
}

/** Query parameters that carry secrets: never passed on. */
export const SECRET_PARAMETERS = ['token', 'api_key', 'apiKey', 'ticket'] as const;

/** Tenant of everybody while no keys are set. */
const OPEN_PRINCIPAL: Principal = { tenant: 'default', role: 'admin' };

/** Keys and tickets: who may come in, and whose sandboxes they see. */
export class Access {
  readonly #keys: readonly { readonly digest: Buffer; readonly principal: Principal }[];
  readonly #ticketKey: Buffer;
  readonly #now: () => number;

  /** Without keys the door is open, but only to this machine's own programs and pages. `masterKey` signs tickets. */
  constructor(keys: readonly ApiKey[], masterKey: Buffer, now: () => number = Date.now) {
    this.#keys = keys.map((k) => ({ digest: sha256(k.key), principal: { tenant: k.tenant, role: k.role } }));
    this.#ticketKey = createHmac('sha256', masterKey).update('tickets').digest();
    this.#now = now;
  }

  /** True when no keys are set. */
  get open(): boolean {
    return this.#keys.length === 0;
  }

  /** Throws UNAUTHORIZED (no or wrong key) or, while open, FORBIDDEN (a foreign page or name in `Origin` or `Host`). */
  authenticate(from: Credentials): Principal {
    if (this.open) {
      assertLocal(from);
      return OPEN_PRINCIPAL;
    }
    const key = presentedKey(from);
    if (key === undefined)
      throw new AppError('UNAUTHORIZED', 'An API key is needed: Authorization: Bearer <key>, or X-API-Key.');
    const digest = sha256(key);
    let found: Principal | undefined;
    // All keys are compared, so that the time taken says nothing about which one was near.
    for (const entry of this.#keys) if (timingSafeEqual(entry.digest, digest)) found = entry.principal;
    if (!found) throw new AppError('UNAUTHORIZED', 'The API key is not known.');
    return found;
  }

  /** Lets in a ticket for this sandbox and role, else whoever {@link authenticate} accepts; undefined stands for the ticket's bearer. */
  authenticateFor(from: Credentials, sandboxId: string, role: TicketRole): Principal | undefined {
    const ticket = from.query.get('ticket');
    if (ticket === null) return this.authenticate(from);
    this.#checkTicket(ticket, sandboxId, role);
    return undefined;
  }

  /** A signed ticket for one sandbox and role, valid until `expiresAt` (Unix milliseconds). Undefined while the door is open: none is needed. */
  ticket(sandboxId: string, role: TicketRole, expiresAt: number): string | undefined {
    if (this.open) return undefined;
    const nonce = randomBytes(9).toString('base64url');
    const payload = Buffer.from(JSON.stringify([sandboxId, role, Math.round(expiresAt), nonce])).toString('base64url');
    return `${payload}.${this.#sign(payload)}`;
  }

  #checkTicket(ticket: string, sandboxId: string, role: TicketRole): void {
    const [payload = '', signature = ''] = ticket.split('.');
    if (!timingSafeEqual(sha256(signature), sha256(this.#sign(payload)))) {
      throw new AppError('UNAUTHORIZED', 'The ticket is not valid.');
    }
    const [id, ticketRole, expiresAt] = JSON.parse(Buffer.from(payload, 'base64url').toString()) as [
      string,
      string,
      number,
    ];
    if (expiresAt < this.#now()) throw new AppError('UNAUTHORIZED', 'The ticket has expired.');
    if (id !== sandboxId || ticketRole !== role) throw new AppError('FORBIDDEN', 'The ticket is for something else.');
  }

  #sign(payload: string): string {
    return createHmac('sha256', this.#ticketKey).update(payload).digest('base64url');
  }
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
  if (origin === undefined) return;
  const originHost = hostnameOf(origin);
  if (originHost === undefined || !isLoopbackName(originHost)) {
    throw new AppError(
      'FORBIDDEN',
      'Without API keys Berth answers to pages of this machine only; set BERTH_API_KEYS.',
    );
  }
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

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
