import uWS, {
  type HttpRequest,
  type HttpResponse,
  type TemplatedApp,
  type us_listen_socket,
  type us_socket_context_t,
} from 'uWebSockets.js';
import type { AddressLimits } from '../core/limits.ts';
import type { FragmentSocket, UserData } from './bridge.ts';
import { type Caller, Callers, plainAddress } from './caller.ts';
import { CertificateWatch, readCertificate } from './certificate.ts';
import {
  chooseProtocol,
  connectSandbox,
  type Front,
  type GatewayOptions,
  PING_EVERY_MS,
  requestIdOf,
  SILENCE_SECONDS,
  type UpgradeRequest,
  upgradeRequired,
} from './connect.ts';
import { copyHeaders, Forwarder, peerOf, refuse, refuseUnread } from './forward.ts';
import { asksToUpgrade } from './head.ts';
import { MAX_REFUSED_READABLY } from './pump.ts';
import { webSocketRoute } from './routes.ts';

/** Of uSockets: several sockets may listen on one port, and share its connections; or just this one. */
const LIBUS_LISTEN_DEFAULT = 0;
const LIBUS_LISTEN_EXCLUSIVE_PORT = 1;

/** A turn of the event loop this short, in milliseconds, had nothing to do; how many are looked at for one. */
const QUIET_TURN_MS = 0.05;
const MAX_TURNS = 10_000;

/** The public door on uWebSockets.js: WebSockets are joined to sandboxes here, everything else goes to the API. */
export class Gateway implements Front {
  readonly #options: GatewayOptions;
  readonly #forwarder: Forwarder;
  readonly #callers: Callers;
  /** The newest last. One more for each new certificate: what uWebSockets.js has once begun with one it ends with it. */
  readonly #apps: TemplatedApp[];
  readonly #sockets = new Set<FragmentSocket>();
  readonly #pings: NodeJS.Timeout;
  readonly #listening = new Set<us_listen_socket>();
  #watch: CertificateWatch | undefined;

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#callers = new Callers(options.trustedProxies ?? [], options.tls !== undefined);
    this.#forwarder = new Forwarder(options.apiSocket, options.counters, this.#callers, options.limits);
    this.#apps = [this.#newApp()];
    this.#pings = setInterval(() => {
      for (const ws of this.#sockets) ws.ping();
    }, PING_EVERY_MS);
  }

  /** Throws when there is a certificate that uWebSockets.js cannot use. */
  #newApp(): TemplatedApp {
    const { tls } = this.#options;
    // BoringSSL's own least version is TLS 1.2. It names no protocol (ALPN), so nobody takes us for HTTP/2.
    const app = tls ? uWS.SSLApp({ cert_file_name: tls.cert, key_file_name: tls.key }) : uWS.App();
    app.ws<UserData>('/*', {
      // All five limits by hand: the defaults (16 KiB, 64 KiB with silent drops, 120 s) break CDP.
      maxPayloadLength: MAX_REFUSED_READABLY,
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
    app.any('/*', (res, req) => this.#onRequest(res, req));
    const { limits } = this.#options;
    if (!limits) return app;
    return app.filter((res, change) => this.#onConnection(res, Number(change), limits));
  }

  async listen(host: string, port: number): Promise<number> {
    const [app] = this.#apps as [TemplatedApp];
    const { tls, log } = this.#options;
    const certificate = tls && readCertificate(tls);
    // Exclusive: without it a second service on the same port would silently share the connections with us.
    const first = this.#listenOn(app, host, port, LIBUS_LISTEN_EXCLUSIVE_PORT);
    const bound = uWS.us_socket_local_port(first);
    if (!tls || !certificate) return bound;
    // A new certificate needs a listener of its own beside this one, and only those may share a port who all said so before.
    this.#stopListening(first);
    this.#listenOn(app, host, bound, LIBUS_LISTEN_DEFAULT);
    this.#watch = new CertificateWatch(tls, certificate, () => this.#renew(host, bound), log);
    return bound;
  }

  /** Throws when it cannot. The binary takes options after the port; this mirror's types have them only without a host. */
  #listenOn(app: TemplatedApp, host: string, port: number, options: number): us_listen_socket {
    type Listen = (h: string, p: number, options: number, cb: (socket: us_listen_socket | false) => void) => void;
    let listening: us_listen_socket | false = false;
    // Called back before it returns.
    (app as unknown as { listen: Listen }).listen(host, port, options, (socket) => {
      listening = socket;
    });
    if (!listening)
      throw new Error(`Cannot listen on ${host}:${port}: the port is taken or the address is not this machine's.`);
    this.#listening.add(listening);
    return listening;
  }

  /** New connections get the new certificate; those that there are go on with theirs. */
  #renew(host: string, port: number): void {
    const app = this.#newApp();
    this.#apps.push(app);
    const before = [...this.#listening];
    this.#listenOn(app, host, port, LIBUS_LISTEN_DEFAULT);
    // Who has connected to the old one and is not accepted at its end is reset. The event loop accepts all in its poll phase,
    // which an immediate comes right after: the end is there, in a turn short enough that hardly anybody came meanwhile.
    let turn = Number.NEGATIVE_INFINITY;
    const look = (turnsLeft: number): void => {
      const now = performance.now();
      if (now - turn > QUIET_TURN_MS && turnsLeft > 0) {
        turn = now;
        setImmediate(look, turnsLeft - 1);
      } else for (const socket of before) this.#stopListening(socket);
    };
    setImmediate(look, MAX_TURNS);
  }

  #stopListening(socket: us_listen_socket): void {
    if (this.#listening.delete(socket)) uWS.us_listen_socket_close(socket);
  }

  drain(limitMs: number): Promise<void> {
    return this.#forwarder.drain(limitMs);
  }

  close(): void {
    this.#watch?.close();
    for (const socket of this.#listening) this.#stopListening(socket);
    clearInterval(this.#pings);
    for (const ws of this.#sockets) ws.getUserData().bridge.end(1001, 'the service is going away');
    this.#forwarder.close();
    for (const app of this.#apps) app.close();
  }

  /** `change` is 1 for a connection that begins, and -1 for one that ends without having become a WebSocket. */
  #onConnection(res: HttpResponse, change: number, limits: AddressLimits): void {
    if (change !== 1) return;
    const address = plainAddress(peerOf(res));
    if (!this.#callers.isProxy(address) && !limits.connection(address)) res.close();
  }

  #onRequest(res: HttpResponse, req: HttpRequest): void {
    const requestId = requestIdOf(req.getHeader('x-request-id'));
    if (!webSocketRoute(req.getUrl())) return this.#forwarder.forward(res, req, requestId);
    refuse(res, upgradeRequired(), requestId, this.#options.counters);
  }

  #onUpgrade(res: HttpResponse, req: HttpRequest, context: us_socket_context_t): void {
    const requestId = requestIdOf(req.getHeader('x-request-id'));
    const connection: string[] = [];
    req.forEach((name, value) => {
      if (name === 'connection') connection.push(value);
    });
    if (!asksToUpgrade(connection)) return refuse(res, upgradeRequired(), requestId, this.#options.counters);
    let caller: Caller;
    try {
      caller = this.#callers.of(peerOf(res), copyHeaders(req));
    } catch (err) {
      return refuseUnread(res, err, requestId, this.#options.counters);
    }
    const gone = new AbortController();
    res.onAborted(() => gone.abort());
    const { address, headers } = caller;
    const copy: UpgradeRequest = {
      requestId,
      address,
      path: req.getUrl(),
      query: new URLSearchParams(req.getQuery() ?? ''),
      // Taken away with what is the connection's own.
      headers: { ...headers, upgrade: 'websocket' },
      method: 'GET',
    };
    const key = req.getHeader('sec-websocket-key');
    const offers = req.getHeader('sec-websocket-protocol').split(',');
    const protocol = chooseProtocol(offers.map((p) => p.trim()));
    connectSandbox(this.#options, copy, gone.signal).then(
      (bridge) => {
        // Not inside cork(), though uWebSockets.js's own example has it so: when the upgrade does not move the socket in
        // memory, cork() afterwards takes the WebSocket's data for an HTTP response's, may read "Connection: close" out of
        // them, and shuts the socket down right after the 101 (HttpResponse.h, seen with strace under load).
        res.upgrade<UserData>({ bridge }, key, protocol, '', context);
      },
      (err: unknown) => {
        if (!gone.signal.aborted) refuse(res, err, copy.requestId, this.#options.counters);
      },
    );
  }
}
