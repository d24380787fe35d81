import { randomUUID } from 'node:crypto';
import { type Access, auditedAs, type Credentials, isRefusal, isTicket, type Principal, sees } from '../core/access.ts';
import type { Audit, AuditEntry, Log } from '../core/contracts.ts';
import { asksToLook, type Onlooker, ticketBearer, VIEWER_ID } from '../core/control.ts';
import type { Counters } from '../core/counters.ts';
import { AppError } from '../core/errors.ts';
import type { AddressLimits } from '../core/limits.ts';
import type { Attachment } from '../core/presence.ts';
import { SANDBOX_ID } from '../core/sandbox.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import type { Ticket } from '../core/ticket.ts';
import { assertSameSandbox } from '../core/tickets.ts';
import { Bridge } from './bridge.ts';
import { openCdp } from './cdp.ts';
import type { CertificatePaths } from './certificate.ts';
import type { Source } from './pump.ts';
import { type WebSocketRoute, webSocketRoute } from './routes.ts';
import { openVnc } from './vnc.ts';

/** What every front needs. */
export interface GatewayOptions {
  readonly access: Access;
  readonly sandboxes: Sandboxes;
  /** The API's private unix socket. */
  readonly apiSocket: string;
  readonly counters: Counters;
  readonly audit: Audit;
  readonly log: Log;
  /** Speak TLS with these; absent: plain HTTP. */
  readonly tls?: CertificatePaths;
  /** Of what comes from one address; absent: none. */
  readonly limits?: AddressLimits;
  /** Addresses and CIDRs of proxies that may say whom they speak for; absent: none. */
  readonly trustedProxies?: readonly string[];
}

/** The public door, whichever server it is made of. */
export interface Front {
  /** Resolves with the port; rejects with a sentence when it cannot listen. */
  listen(host: string, port: number): Promise<number>;
  /** Waits until HTTP answers that are on their way have gone out, at most this long, in milliseconds. */
  drain(limitMs: number): Promise<void>;
  /** Takes no new connections and ends what is left. */
  close(): void;
}

/** A client's wish for a WebSocket, in no server's own types. */
export interface UpgradeRequest extends Credentials {
  readonly requestId: string;
  /** Without the query. */
  readonly path: string;
  /** IP address of the client. */
  readonly address: string;
}

/** How long opening the connection inside the sandbox may take, in milliseconds. */
const UPSTREAM_LIMIT_MS = 40_000;
/** Load balancers drop silent connections after 60 s, so every client is pinged within half of that, in milliseconds. */
export const PING_EVERY_MS = 25_000;
/** A client of which nothing was heard for this long (uWebSockets.js counts in steps of four) is gone, and no longer keeps its sandbox from being idle. */
export const SILENCE_SECONDS = 56;

/**
 * From a client's wish to a bridge whose upstream side is open. Throws what the client is to read instead of the 101, and
 * something also when it is `gone`: who gets a bridge may complete the upgrade in the same turn of the event loop.
 */
export async function connectSandbox(options: GatewayOptions, req: UpgradeRequest, gone: AbortSignal): Promise<Bridge> {
  const leave = options.limits?.upgrade(req.address);
  const limit = new AbortController();
  // Not AbortSignal.timeout: it would keep the request in memory for all that time, however soon this is done.
  const timer = setTimeout(
    () => limit.abort(new DOMException('The sandbox took too long.', 'TimeoutError')),
    UPSTREAM_LIMIT_MS,
  );
  try {
    const bridge = await connected(options, req, AbortSignal.any([gone, limit.signal]));
    if (gone.aborted) bridge.abandon();
    gone.throwIfAborted();
    return bridge;
  } catch (err) {
    const { requestId, path } = req;
    if (!(err instanceof AppError) && err !== gone.reason) options.log.warn({ requestId, path, err }, 'upgrade failed');
    throw err;
  } finally {
    clearTimeout(timer);
    leave?.();
  }
}

async function connected(options: GatewayOptions, req: UpgradeRequest, signal: AbortSignal): Promise<Bridge> {
  const route = webSocketRoute(req.path);
  if (!route) throw new AppError('NOT_FOUND', `There is no WebSocket at ${req.path}.`);
  const bearer = await admitted(options, req, route);
  const record = req.query.get('recording') === 'true';
  const { sandboxId, kind } = route;
  if (kind === 'viewer') {
    const viewer = await options.sandboxes.watch(sandboxId, onlookerOf(req, bearer), record, signal);
    const bridge = await bridged(options, viewer, bearer, () => openVnc(viewer, signal), 'livestream');
    const { viewerId, role, controls } = viewer;
    noteConnected(options, req, route, bearer, { viewerId, role, controls });
    return bridge;
  }
  let attachment = await options.sandboxes.attach(sandboxId, record, signal);
  for (;;) {
    try {
      const path = route.devtoolsPath ?? attachment.browserPath;
      const bridge = await bridged(
        options,
        attachment,
        bearer,
        () => openCdp(attachment.way, path, signal),
        'automation',
      );
      noteConnected(options, req, route, bearer);
      return bridge;
    } catch (err) {
      // The browser died a moment ago and its runtime has not said so yet: the next one is on its way. It may die, too; after
      // three in a minute the sandbox ends, and with it the wait.
      if (signal.aborted || !isUnreachable(err)) throw err;
      const next = options.sandboxes.attach(sandboxId, false, signal, attachment.browserPath);
      // None came: then what was wrong with the last one says more.
      attachment = await next.catch((why: unknown) => Promise.reject(isUnreachable(why) ? err : why));
    }
  }
}

/** Throws UNAUTHORIZED. */
function assertStands({ tickets }: Access, ticket: Ticket, bridge: Bridge): void {
  try {
    tickets.assertStands(ticket);
  } catch (err) {
    bridge.abandon();
    throw err;
  }
}

function isUnreachable(err: unknown): boolean {
  return err instanceof AppError && err.errorName === 'BROWSER_UNREACHABLE';
}

/** Joins the two once the sandbox's side is open. */
async function bridged(
  { access, counters }: GatewayOptions,
  attachment: Attachment,
  bearer: Principal | Ticket,
  opening: () => Promise<Source>,
  kind: keyof Counters['bytes'],
): Promise<Bridge> {
  let bridge: Bridge;
  try {
    if (isTicket(bearer)) attachment.ticketId = bearer.id;
    bridge = new Bridge(await opening(), attachment, counters.bytes[kind]);
  } catch (err) {
    attachment.detach();
    throw err;
  }
  // Revoked while it was waiting, it was not among those whose end was asked for.
  if (isTicket(bearer)) assertStands(access, bearer, bridge);
  return bridge;
}

function noteConnected(
  { log, audit }: GatewayOptions,
  { requestId, address }: UpgradeRequest,
  { sandboxId, kind }: WebSocketRoute,
  bearer: Principal | Ticket,
  detail?: AuditEntry['detail'],
): void {
  log.info({ requestId, sandboxId, kind, ...detail }, 'connected');
  const what = { action: `${kind}.connect`, requestId, ...auditedAs(bearer), address, sandboxId } as const;
  audit.record(detail ? { ...what, detail } : what);
}

/** Who it is, and may come in. A one-time ticket is used up by it. */
async function admitted(
  options: GatewayOptions,
  req: UpgradeRequest,
  { sandboxId, kind, roles }: WebSocketRoute,
): Promise<Principal | Ticket> {
  const { access, audit, limits } = options;
  try {
    const identify = () => access.authenticateFor(req, sandboxId, roles);
    const bearer = limits ? limits.authenticating(req.address, identify) : identify();
    const info = SANDBOX_ID.test(sandboxId) ? options.sandboxes.find(sandboxId) : undefined;
    if (!info || !(isTicket(bearer) || sees(bearer, info.spec.owner))) {
      throw new AppError('SANDBOX_NOT_FOUND', `sandbox not found: ${sandboxId}`);
    }
    if (kind === 'client' && bearer.role === 'viewer') {
      throw new AppError('FORBIDDEN', 'This key may look but not control anything.');
    }
    if (kind === 'viewer') onlookerOf(req, bearer);
    if (isTicket(bearer)) {
      assertSameSandbox(bearer, info.spec.createdAt);
      await access.tickets.redeem(bearer);
    }
    return bearer;
  } catch (err) {
    const { requestId, address } = req;
    if (isRefusal(err)) {
      audit.record({
        action: 'access.refused',
        requestId,
        address,
        sandboxId,
        detail: { to: `${kind}.connect`, why: err.message },
      });
    }
    throw err;
  }
}

/** Throws INVALID_REQUEST. */
function onlookerOf(req: UpgradeRequest, bearer: Principal | Ticket): Onlooker {
  const viewerId = req.query.get('viewer') ?? randomUUID();
  if (!VIEWER_ID.test(viewerId)) {
    throw new AppError('INVALID_REQUEST', 'viewer: must be 1 to 64 letters, digits, "-" and "_".');
  }
  const mayControl = bearer.role !== 'view' && bearer.role !== 'viewer';
  const role = mayControl && !asksToLook(req.query) ? 'control' : 'view';
  return { viewerId, role, bearer: isTicket(bearer) ? ticketBearer(bearer) : `key ${bearer.keyId ?? ''}` };
}

/** Plain HTTP on a WebSocket path. */
export function upgradeRequired(): AppError {
  const message = 'This address is a WebSocket: connect with puppeteer.connect, connectOverCDP, noVNC or wscat.';
  return new AppError('UPGRADE_REQUIRED', message, { Upgrade: 'websocket' });
}

/**
 * Which of the offered subprotocols is taken, if any. noVNC before 1.0 and websockify offer `binary`; a server that takes
 * none of the offers is refused by browsers.
 */
export function chooseProtocol(offers: readonly string[]): string {
  return offers.includes('binary') ? 'binary' : (offers[0] ?? '');
}

/** The caller's own id when it is harmless to log, else a new one. */
export function requestIdOf(given: string | string[] | undefined): string {
  return typeof given === 'string' && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : randomUUID();
}
