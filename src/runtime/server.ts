import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { RuntimeClaim, RuntimeConfig } from '../core/contracts.ts';
import type { EndedReason, SandboxChange } from '../core/sandbox.ts';
import { onJsonLines } from './lines.ts';
import { devtoolsPath, passOn, spliceUpgrade } from './splice.ts';
import type { Supervisor } from './supervisor.ts';

/** What a gateway says on the control connection, one JSON object a line. */
export type ControlMessage =
  | { readonly type: 'presence'; readonly clients: number; readonly viewers: number; readonly active: boolean }
  | { readonly type: 'call'; readonly id: number; readonly call: Call }
  | { readonly type: 'stop'; readonly reason: EndedReason };

/** What has an answer. */
export type Call =
  | { readonly name: 'record'; readonly on: boolean }
  | { readonly name: 'cut' }
  | { readonly name: 'ping' }
  | { readonly name: 'change'; readonly change: SandboxChange }
  | { readonly name: 'claim'; readonly claim: RuntimeClaim }
  | { readonly name: 'pages' }
  | { readonly name: 'screenshot'; readonly width: number }
  | { readonly name: 'closePage'; readonly page: string };

/** What the runtime says: its status after each change, and the outcome of a `call`. */
export type ControlEvent =
  | { readonly type: 'status'; readonly status: Supervisor['status'] }
  | { readonly type: 'result'; readonly id: number; readonly value?: unknown; readonly error?: string };

/** The runtime's door: `GET /status`, and `GET /control` upgraded to lines of JSON both ways. Everything needs the sandbox's secret. */
export class RuntimeServer {
  readonly #config: RuntimeConfig;
  readonly #supervisor: Supervisor;
  readonly #server: Server;
  readonly #controls = new Set<Duplex>();

  constructor(config: RuntimeConfig, supervisor: Supervisor) {
    this.#config = config;
    this.#supervisor = supervisor;
    this.#server = createServer((req, res) => this.#onRequest(req, res));
    this.#server.on('upgrade', (req, socket, head) => this.#onUpgrade(req, socket, head));
  }

  listen(): Promise<void> {
    const { endpoint } = this.#config;
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen('path' in endpoint ? { path: endpoint.path } : endpoint, resolve);
    });
  }

  /** Sends the current status to every gateway. */
  announce(): void {
    const line = encode({ type: 'status', status: this.#supervisor.status });
    for (const socket of this.#controls) socket.write(line);
  }

  /** Closes after every gateway has what was written to it, or after a second. */
  async close(): Promise<void> {
    this.#server.close();
    const flushed = [...this.#controls].map((socket) => new Promise<void>((resolve) => socket.end(resolve)));
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([
      Promise.all(flushed),
      new Promise((resolve) => {
        timer = setTimeout(resolve, 1000);
      }),
    ]);
    clearTimeout(timer);
    for (const socket of this.#controls) socket.destroy();
    this.#server.closeAllConnections();
  }

  /** As a bearer, or beside the headers of a request that is passed on. */
  #authorised(req: IncomingMessage): boolean {
    const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
    const given = req.headers.authorization?.replace(/^Bearer /, '') ?? String(req.headers['x-berth-secret'] ?? '');
    return timingSafeEqual(digest(given), digest(this.#config.secret));
  }

  #onRequest(req: IncomingMessage, res: ServerResponse): void {
    const { status } = this.#supervisor;
    const path = devtoolsPath(req.url);
    if (!this.#authorised(req)) res.writeHead(401).end();
    else if (path && status.devtools) passOn(req, res, status.devtools.port, path);
    else if (path) res.writeHead(502).end();
    else if (req.method === 'GET' && req.url === '/status') {
      res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(status));
    } else res.writeHead(404).end();
  }

  #onUpgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    const { devtools } = this.#supervisor.status;
    const path = devtoolsPath(req.url);
    if (!this.#authorised(req)) return refuse(socket, '401 Unauthorized');
    if (path && devtools) return spliceUpgrade(req, socket, head, devtools.port, path);
    if (req.url !== '/control') return refuse(socket, path ? '502 Bad Gateway' : '404 Not Found');
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: berth-control\r\n\r\n');
    this.#controls.add(socket);
    socket.write(encode({ type: 'status', status: this.#supervisor.status }));
    onJsonLines<ControlMessage>(socket, (message) => this.#onMessage(socket, message));
    socket.once('close', () => {
      this.#controls.delete(socket);
      this.#supervisor.activity.forget(socket);
      this.#supervisor.watchClocks();
    });
  }

  async #answer(call: Call): Promise<unknown> {
    switch (call.name) {
      case 'record':
        return this.#supervisor.setRecording(call.on);
      case 'cut':
        return this.#supervisor.cutRecording();
      case 'ping':
        return undefined;
      case 'change':
        return this.#supervisor.change(call.change);
      case 'claim':
        return this.#supervisor.claim(call.claim);
      case 'pages':
        return this.#supervisor.watcher.pages();
      case 'screenshot':
        return (await this.#supervisor.screenshot(call.width)).toString('base64');
      case 'closePage':
        return this.#supervisor.watcher.closePage(call.page);
    }
  }

  #onMessage(socket: Duplex, message: ControlMessage): void {
    switch (message.type) {
      case 'presence':
        if (message.clients > this.#supervisor.activity.clients) this.#supervisor.welcomeClient();
        this.#supervisor.activity.report(socket, message, message.active);
        this.#supervisor.watchClocks();
        this.announce();
        return;
      case 'call':
        this.#answer(message.call).then(
          (value) => socket.write(encode({ type: 'result', id: message.id, value })),
          (err: Error) => socket.write(encode({ type: 'result', id: message.id, error: err.message })),
        );
        return;
      case 'stop':
        void this.#supervisor.end(message.reason);
    }
  }
}

function refuse(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
}

function encode(event: ControlEvent): string {
  return `${JSON.stringify(event)}\n`;
}
