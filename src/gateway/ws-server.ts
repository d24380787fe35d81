import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { SecureContextOptions } from 'node:tls';
import { WebSocketServer } from 'ws';
import { AppError } from '../core/errors.ts';
import type { Bridge } from './bridge.ts';
import { type Caller, Callers, plainAddress } from './caller.ts';
import { type Certificate, CertificateWatch, readCertificate } from './certificate.ts';
import {
  chooseProtocol,
  connectSandbox,
  type Front,
  type GatewayOptions,
  PING_EVERY_MS,
  requestIdOf,
  SILENCE_SECONDS,
  upgradeRequired,
} from './connect.ts';
import { unknownMethod } from './forward.ts';
import { asksToUpgrade, MAX_HEAD } from './head.ts';
import { MAX_TO_BROWSER } from './pump.ts';
import { webSocketRoute } from './routes.ts';
import { ReasonedWebSocket, WsClient } from './ws-client.ts';
import { copyHeaders, isEnding, peerOf, refuseRequest, refuseSocket, WsForwarder } from './ws-forward.ts';

/** How often it is looked for silent clients, in milliseconds; uWebSockets.js counts in such steps too. */
const LOOK_EVERY_MS = 4000;

/**
 * How long a client may take for its headers and for a whole request, which is no longer than a body of 1 MiB, and how long a
 * connection may stay between two requests, in milliseconds. What the answer takes is not in it. uWebSockets.js waits 10 s for
 * headers and wants 16 KiB of a body in each second.
 */
const READING = {
  // Asked for by our own check, whose answer is readable.
  requireHostHeader: false,
  maxHeaderSize: MAX_HEAD,
  headersTimeout: 10_000,
  requestTimeout: 120_000,
  keepAliveTimeout: 10_000,
  connectionsCheckingInterval: 2000,
};
/** How long a client may take for the TLS handshake, in milliseconds. */
const TLS_HANDSHAKE_MS = 10_000;

/** A message of the largest size may come in fragments of 1 KiB. The package's own limit is 16,384 fragments. */
const MAX_FRAGMENTS = MAX_TO_BROWSER / 1024;
/** As many pings as one read of 64 KiB has, and some. The package cuts a connection at 60 that are not answered yet. */
const MAX_PONGS = 16 * 1024;

/** What a client's socket says when the client has gone. */
const LEAVING = ['end', 'close', 'error'];

/** For a socket whose end is told in another way, too. */
function heardAlready(): void {}

/** The public door on Node's own HTTP server and the `ws` package, for where uWebSockets.js does not load. */
export class WsGateway implements Front {
  readonly #options: GatewayOptions;
  readonly #forwarder: WsForwarder;
  readonly #callers: Callers;
  readonly #server: Server | TlsServer;
  #watch: CertificateWatch | undefined;
  readonly #handshakes = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload: MAX_TO_BROWSER,
    maxFragments: MAX_FRAGMENTS,
    // Its types do not know this one yet.
    ...({ maxPendingAutoPongs: MAX_PONGS } as object),
    // Costs memory and fragments messages; CDP runs on fast links (websockets/ws#1202).
    perMessageDeflate: false,
    WebSocket: ReasonedWebSocket,
    handleProtocols: (offers) => chooseProtocol([...offers]),
  });
  /** That are not over. */
  readonly #answers = new WeakMap<Duplex, ServerResponse>();
  readonly #clients = new Set<WsClient>();
  readonly #timers: readonly NodeJS.Timeout[];

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#callers = new Callers(options.trustedProxies ?? [], options.tls !== undefined);
    this.#forwarder = new WsForwarder(options.apiSocket, options.counters, this.#callers, options.limits);
    this.#server = this.#newServer();
    this.#server.on('connection', (socket) => this.#onConnection(socket));
    this.#server.on('upgrade', (req, socket, head) => this.#onUpgrade(req, socket, head));
    this.#server.on('connect', (req, socket) => this.#refuse(socket, unknownMethod(), req));
    this.#server.on('clientError', (err: NodeJS.ErrnoException, socket) => {
      if (err.code === 'ECONNRESET') return void socket.destroy();
      // What cannot be read is the rest of a request that is answered already.
      if (this.#answers.get(socket)?.headersSent) return void (socket as Socket).destroySoon();
      this.#refuse(socket, unreadable(err));
    });
    this.#handshakes.on('wsClientError', (err, socket, req) =>
      this.#refuse(socket, new AppError('INVALID_REQUEST', `${err.message}.`), req),
    );
    const eachClient = (everyMs: number, what: (client: WsClient) => void): NodeJS.Timeout =>
      setInterval(() => {
        for (const client of this.#clients) what(client);
      }, everyMs);
    this.#timers = [
      eachClient(PING_EVERY_MS, (client) => client.ping()),
      eachClient(LOOK_EVERY_MS, (client) => client.cutIfSilent(SILENCE_SECONDS * 1000)),
    ];
  }

  #newServer(): Server | TlsServer {
    const { tls, log } = this.#options;
    const onRequest = (req: IncomingMessage, res: ServerResponse): void => this.#onRequest(req, res);
    if (!tls) return createServer(READING, onRequest);
    const certificate = readCertificate(tls);
    const handshakeTimeout = TLS_HANDSHAKE_MS;
    const server = createTlsServer({ ...READING, ...secureContext(certificate), handshakeTimeout }, onRequest);
    // For new connections; those that there are go on with what they began with.
    const renew = (next: Certificate): void => server.setSecureContext(secureContext(next));
    this.#watch = new CertificateWatch(tls, certificate, renew, log);
    return server;
  }

  listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', (err) => reject(new Error(`Cannot listen on ${host}:${port}: ${err.message}.`)));
      this.#server.listen(port, host, () => resolve((this.#server.address() as AddressInfo).port));
    });
  }

  drain(limitMs: number): Promise<void> {
    return this.#forwarder.drain(limitMs);
  }

  close(): void {
    this.#watch?.close();
    this.#server.close();
    for (const timer of this.#timers) clearInterval(timer);
    for (const client of this.#clients) client.bridge.end(1001, 'the service is going away');
    this.#forwarder.close();
    this.#server.closeAllConnections();
  }

  #onConnection(socket: Socket): void {
    const address = plainAddress(socket.remoteAddress ?? '');
    if (this.#callers.isProxy(address) || this.#options.limits?.connection(address) !== false) return;
    socket.destroy();
  }

  #onRequest(req: IncomingMessage, res: ServerResponse): void {
    // Node reads on behind a request whose answer ends the connection.
    if (isEnding(req.socket)) return;
    this.#answers.set(req.socket, res);
    res.once('close', () => {
      if (this.#answers.get(req.socket) === res) this.#answers.delete(req.socket);
    });
    const requestId = requestIdOf(req.headers['x-request-id']);
    if (!webSocketRoute(pathOf(req))) return this.#forwarder.forward(req, res, requestId);
    refuseRequest(res, upgradeRequired(), requestId, this.#options.counters);
  }

  #onUpgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    // Node takes its own listener away with the upgrade, and an error that nobody hears ends the service.
    socket.on('error', heardAlready);
    // Behind a request that is not answered yet, whose answer would come into the middle of the frames.
    if (isEnding(socket) || this.#answers.has(socket)) return void socket.destroy();
    if (!isHandshake(req)) return this.#serveWithoutUpgrade(req, socket, head);
    const gone = new AbortController();
    const leave = (): void => gone.abort();
    for (const event of LEAVING) socket.once(event, leave);
    const requestId = requestIdOf(req.headers['x-request-id']);
    let caller: Caller;
    try {
      caller = this.#callers.of(peerOf(req), copyHeaders(req));
    } catch (err) {
      return refuseSocket(socket, err, requestId, this.#options.counters);
    }
    const { address, headers } = caller;
    const request = {
      requestId,
      path: pathOf(req),
      query: new URLSearchParams(req.url?.split('?', 2)[1] ?? ''),
      address,
      // Taken away with what is the connection's own.
      headers: { ...headers, upgrade: 'websocket' },
      method: 'GET',
    };
    connectSandbox(this.#options, request, gone.signal)
      .then(
        (bridge) => this.#shakeHands(req, socket as Socket, head, bridge),
        (err: unknown) => {
          if (gone.signal.aborted) socket.destroy();
          else refuseSocket(socket, err, request.requestId, this.#options.counters);
        },
      )
      // As long as the socket has it, it keeps all that this function knows of the request.
      .finally(() => {
        for (const event of LEAVING) socket.off(event, leave);
      });
  }

  #shakeHands(req: IncomingMessage, socket: Socket, head: Buffer, bridge: Bridge): void {
    let done = false;
    this.#handshakes.handleUpgrade(req, socket, head, (ws) => {
      done = true;
      const client = new WsClient(ws, socket, bridge);
      this.#clients.add(client);
      ws.once('close', () => this.#clients.delete(client));
    });
    if (!done) bridge.abandon();
  }

  /**
   * Node's server takes every `Upgrade` for one that we want. Java's client offers HTTP/2 so with an ordinary request: it is
   * put back without the offer, on a connection that begins anew.
   */
  #serveWithoutUpgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    let text = `${req.method} ${req.url} HTTP/1.1\r\n`;
    for (let i = 0; i < req.rawHeaders.length; i += 2) {
      const name = req.rawHeaders[i] as string;
      if (!/^(connection|upgrade|http2-settings)$/i.test(name)) text += `${name}: ${req.rawHeaders[i + 1]}\r\n`;
    }
    socket.unshift(Buffer.concat([Buffer.from(`${text}\r\n`, 'latin1'), head]));
    // TLS is done with by now: the other event would begin it anew.
    this.#server.emit(this.#options.tls ? 'secureConnection' : 'connection', socket);
  }

  #refuse(socket: Duplex, err: AppError, req?: IncomingMessage): void {
    refuseSocket(socket, err, requestIdOf(req?.headers['x-request-id']), this.#options.counters);
  }
}

/** What Node would take anyway, but says here, in case its defaults were changed by the environment. */
function secureContext(certificate: Certificate): SecureContextOptions & { ALPNProtocols: string[] } {
  // Clients that also speak HTTP/2 must not begin with it: they would get no WebSocket.
  return { ...certificate, minVersion: 'TLSv1.2', ALPNProtocols: ['http/1.1'] };
}

/** What the client is told of a request that Node cannot read. */
function unreadable(err: NodeJS.ErrnoException): AppError {
  if (err.code === 'HPE_INVALID_METHOD') return unknownMethod();
  if (err.code === 'HPE_HEADER_OVERFLOW')
    return new AppError('HEADERS_TOO_LARGE', `Address and headers are more than ${MAX_HEAD} bytes.`);
  return new AppError('INVALID_REQUEST', `${err.message}.`, {}, err);
}

/** Whether it is a WebSocket's handshake and not only something like it. */
function isHandshake({ method, headers, headersDistinct }: IncomingMessage): boolean {
  return (
    method === 'GET' &&
    asksToUpgrade(headersDistinct.connection ?? []) &&
    headers.upgrade?.toLowerCase() === 'websocket' &&
    /^[+/0-9A-Za-z]{22}==$/.test(headers['sec-websocket-key'] ?? '') &&
    /^(13|8)$/.test(headers['sec-websocket-version'] ?? '')
  );
}

function pathOf(req: IncomingMessage): string {
  return (req.url ?? '').split('?', 1)[0] as string;
}
