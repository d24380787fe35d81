import uWS, {
  type HttpRequest,
  type HttpResponse,
  type TemplatedApp,
  type us_listen_socket,
  type us_socket_context_t,
} from 'uWebSockets.js';
import type { FragmentSocket, UserData } from './bridge.ts';
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
import { Forwarder, refuse } from './forward.ts';
import { MAX_REFUSED_READABLY } from './pump.ts';
import { webSocketRoute } from './routes.ts';

const LIBUS_LISTEN_EXCLUSIVE_PORT = 1;

/** The public door on uWebSockets.js: WebSockets are joined to sandboxes here, everything else goes to the API. */
export class Gateway implements Front {
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
    this.#app.any('/*', (res, req) => this.#onRequest(res, req));
    this.#pings = setInterval(() => {
      for (const ws of this.#sockets) ws.ping();
    }, PING_EVERY_MS);
  }

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

  drain(limitMs: number): Promise<void> {
    return this.#forwarder.drain(limitMs);
  }

  close(): void {
    if (this.#listening) uWS.us_listen_socket_close(this.#listening);
    this.#listening = undefined;
    clearInterval(this.#pings);
    for (const ws of this.#sockets) ws.getUserData().bridge.end(1001, 'the service is going away');
    this.#forwarder.close();
    this.#app.close();
  }

  #onRequest(res: HttpResponse, req: HttpRequest): void {
    const requestId = requestIdOf(req.getHeader('x-request-id'));
    if (!webSocketRoute(req.getUrl())) return this.#forwarder.forward(res, req, requestId);
    refuse(res, upgradeRequired(), requestId, this.#options.counters);
  }

  #onUpgrade(res: HttpResponse, req: HttpRequest, context: us_socket_context_t): void {
    const gone = new AbortController();
    res.onAborted(() => gone.abort());
    const headers: Record<string, string> = {};
    req.forEach((name, value) => {
      headers[name] = value;
    });
    const copy: UpgradeRequest = {
      requestId: requestIdOf(req.getHeader('x-request-id')),
      path: req.getUrl(),
      query: new URLSearchParams(req.getQuery() ?? ''),
      headers,
      method: 'GET',
      address: Buffer.from(res.getRemoteAddressAsText()).toString(),
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
