import uWS, {
  type HttpRequest,
  type HttpResponse,
  type TemplatedApp,
  type us_listen_socket,
  type us_socket_context_t,
} from 'uWebSockets.js';
import { randomUUID } from 'node:crypto';
import type { Access, Credentials } from '../core/access.ts';
import { sees } from '../core/access.ts';
import type { Log } from '../core/contracts.ts';
import type { Counters } from '../core/counters.ts';
import { AppError } from '../core/errors.ts';
import type { Attachment } from '../core/presence.ts';
import { SANDBOX_ID } from '../core/sandbox.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import { Bridge, type FragmentSocket, type UserData } from './bridge.ts';
import { openCdp } from './cdp.ts';
import { Forwarder, refuse } from './forward.ts';
import { MAX_TO_BROWSER } from './pump.ts';
import { type WebSocketRoute, webSocketRoute } from './routes.ts';
import { openVnc } from './vnc.ts';

export interface GatewayOptions {
  readonly access: Access;
  readonly sandboxes: Sandboxes;
  /** The API's private unix socket. */
  readonly apiSocket: string;
  readonly counters: Counters;
  readonly log: Log;
}

const LIBUS_LISTEN_EXCLUSIVE_PORT = 1;
/** How long opening the connection inside the sandbox may take, in milliseconds. */
const UPSTREAM_LIMIT_MS = 40_000;
/**
 * Load balancers drop silent connections after 60 s, so every client is pinged within half of that. One of which nothing was
 * heard for 56 s (uWebSockets.js counts in steps of four) is gone, and no longer keeps its sandbox from being idle.
 */
const PING_EVERY_MS = 25_000;
const SILENCE_SECONDS = 56;

/** A request as it was when its callback ran; uWebSockets.js frees the original when that returns. */
interface UpgradeRequest extends Credentials {
  readonly requestId: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** The public door: WebSockets are joined to sandboxes here, everything else goes to the API. */
export class Gateway {
  readonly #options: GatewayOptions;
  readonly #forwarder: Forwarder;
  readonly #app: TemplatedApp;
  readonly #sockets = new Set<FragmentSocket>();
  readonly #pings: NodeJS.Timeout;
  #listening: us_listen_socket | undefined;

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#forwarder = new Forwarder(options.apiSocket, options.counters);
    this.#app = uWS.App();
    this.#app.ws<UserData>('/*', {
      // All five limits by hand: the defaults (16 KiB, 64 KiB with silent drops, 120 s) break CDP.
      maxPayloadLength: MAX_TO_BROWSER,
      // Never reached: the bridge pauses the browser at 1 MiB. A drop would be a client that hangs, so it closes instead.
      maxBackpressure: 512 * 1024 * 1024,
      closeOnBackpressureLimit: 1,
      idleTimeout: SILENCE_SECONDS,
      sendPingsAutomatically: false,
      maxLifetime: 0,
      // Costs memory and fragments messages; CDP runs on fast links (websockets/ws#1202).
      compression: uWS.DISABLED,
      upgrade: (res, req, context) => this.#onUpgrade(res, req, context),
      open: (ws) => {
        this.#sockets.add(ws as FragmentSocket);
        ws.getUserData().bridge.open(ws as FragmentSocket);
      },
      message: (ws, message, binary) => ws.getUserData().bridge.onMessage(message, binary),
      drain: (ws) => ws.getUserData().bridge.onDrain(),
      close: (ws, code, message) => {
        this.#sockets.delete(ws as FragmentSocket);
        ws.getUserData().bridge.onClientClosed(code, Buffer.from(message).toString());
      },
    });
    this.#app.any('/*', (res, req) => this.#onRequest(res, req));
    this.#pings = setInterval(() => {
      for (const ws of this.#sockets) ws.ping();
    }, PING_EVERY_MS);
  }

  /** Resolves with the port; rejects with a sentence when it cannot listen. */
  listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      // Exclusive: without it a second service on the same port would silently share the connections with us.
      this.#listenExclusively(host, port, (socket) => {
        if (!socket)
          return reject(
            new Error(`Cannot listen on ${host}:${port}: the port is taken or the address is not this machine's.`),
          );
        this.#listening = socket;
        resolve(uWS.us_socket_local_port(socket));
      });
    });
  }

  /** The binary takes options after the port; this mirror's types have them only without a host. */
  #listenExclusively(host: string, port: number, done: (socket: us_listen_socket | false) => void): void {
    const app = this.#app as unknown as { listen(h: string, p: number, options: number, cb: typeof done): void };
    app.listen(host, port, LIBUS_LISTEN_EXCLUSIVE_PORT, done);
  }

  /** Takes no new connections; those that are open stay. */
  stopListening(): void {
    if (this.#listening) uWS.us_listen_socket_close(this.#listening);
    this.#listening = undefined;
  }

  /** Waits until HTTP answers that are on their way have gone out, at most this long, in milliseconds. */
  drain(limitMs: number): Promise<void> {
    return this.#forwarder.drain(limitMs);
  }

  /** Ends what is left. */
  close(): void {
    this.stopListening();
    clearInterval(this.#pings);
    for (const ws of this.#sockets) ws.getUserData().bridge.end(1001, 'the service is going away');
    this.#forwarder.close();
    this.#app.close();
  }

  #onRequest(res: HttpResponse, req: HttpRequest): void {
    const requestId = requestIdOf(req);
    if (!webSocketRoute(req.getUrl())) return this.#forwarder.forward(res, req, requestId);
    const message = 'This address is a WebSocket: connect with puppeteer.connect, connectOverCDP, noVNC or wscat.';
    refuse(res, new AppError('UPGRADE_REQUIRED', message, { Upgrade: 'websocket' }), requestId, this.#options.counters);
  }

  #onUpgrade(res: HttpResponse, req: HttpRequest, context: us_socket_context_t): void {
    const gone = new AbortController();
    res.onAborted(() => gone.abort());
    const headers: Record<string, string> = {};
    req.forEach((name, value) => {
      headers[name] = value;
    });
    const copy: UpgradeRequest = {
      requestId: requestIdOf(req),
      path: req.getUrl(),
      query: new URLSearchParams(req.getQuery() ?? ''),
      headers,
    };
    const key = req.getHeader('sec-websocket-key');
    // noVNC before 1.0 and websockify offer `binary`; a server that takes none of the offers is refused by browsers.
    const offers = req
      .getHeader('sec-websocket-protocol')
      .split(',')
      .map((p) => p.trim());
    const protocol = offers.includes('binary') ? 'binary' : (offers[0] ?? '');
    this.#connect(copy, gone.signal).then(
      (bridge) => {
        if (gone.signal.aborted) return bridge.abandon();
        // Not inside cork(), though uWebSockets.js's own example has it so: when the upgrade does not move the socket in
        // memory, cork() afterwards takes the WebSocket's data for an HTTP response's, may read "Connection: close" out of
        // them, and shuts the socket down right after the 101 (HttpResponse.h, seen with strace under load).
        res.upgrade<UserData>({ bridge }, key, protocol, '', context);
      },
      (err: unknown) => {
        if (!(err instanceof AppError))
          this.#options.log.warn({ requestId: copy.requestId, path: copy.path, err }, 'upgrade failed');
        if (!gone.signal.aborted) refuse(res, err, copy.requestId, this.#options.counters);
      },
    );
  }

  /** From a checked request to a bridge whose upstream side is open. */
  async #connect(req: UpgradeRequest, gone: AbortSignal): Promise<Bridge> {
    const route = webSocketRoute(req.path);
    if (!route) throw new AppError('NOT_FOUND', `There is no WebSocket at ${req.path}.`);
    this.#assertAllowed(req, route);
    const signal = AbortSignal.any([gone, AbortSignal.timeout(UPSTREAM_LIMIT_MS)]);
    const record = req.query.get('recording') === 'true';
    const { sandboxId, kind } = route;
    const attachment = await this.#options.sandboxes.attach(sandboxId, kind, record, signal);
    const bridge = await this.#open(route, attachment, signal).catch(async (err: unknown) => {
      // The browser died a moment ago and its runtime has not said so yet: the next one is on its way.
      if (kind !== 'client' || !(err instanceof AppError) || err.errorName !== 'BROWSER_UNREACHABLE') throw err;
      const next = await this.#options.sandboxes.attach(sandboxId, kind, false, signal, attachment.browserPath);
      return this.#open(route, next, signal);
    });
    this.#options.log.info({ requestId: req.requestId, sandboxId, kind }, 'connected');
    return bridge;
  }

  /** Opens the sandbox's side. */
  async #open(route: WebSocketRoute, attachment: Attachment, signal: AbortSignal): Promise<Bridge> {
    try {
      const path = route.devtoolsPath ?? attachment.browserPath;
      const viewer = route.kind === 'viewer';
      const source = await (viewer ? openVnc(attachment.way, signal) : openCdp(attachment.way, path, signal));
      return new Bridge(source, attachment, this.#options.counters.bytes[viewer ? 'livestream' : 'automation']);
    } catch (err) {
      attachment.detach();
      throw err;
    }
  }

  #assertAllowed(req: UpgradeRequest, { sandboxId, role }: WebSocketRoute): void {
    const principal = this.#options.access.authenticateFor(req, sandboxId, role);
    const info = SANDBOX_ID.test(sandboxId) ? this.#options.sandboxes.find(sandboxId) : undefined;
    if (!info || (principal && !sees(principal, info.spec.owner))) {
      throw new AppError('SANDBOX_NOT_FOUND', `sandbox not found: ${sandboxId}`);
    }
    if (principal?.role === 'viewer') throw new AppError('FORBIDDEN', 'This key may look but not control anything.');
  }
}

/** The caller's own id when it is harmless to log, else a new one. */
function requestIdOf(req: HttpRequest): string {
  const given = req.getHeader('x-request-id');
  return /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : randomUUID();
}
