import { rmSync } from 'node:fs';
import { createServer, request, type Server } from 'node:http';
import type { Socket } from 'node:net';
import { ENGINE_SOCKET } from './engine.ts';

/** What the engine answers instead of doing what it is asked. */
interface Fault {
  readonly method: string;
  readonly path: RegExp;
  readonly status: number;
  readonly message: string;
}

/** The real engine behind a socket of our own, so that it can fail on cue without failing for anybody else. */
export class EngineProxy {
  readonly socket: string;
  /** The next call that fits is answered with this, once. */
  fault: Fault | undefined;
  #server: Server | undefined;
  readonly #open = new Set<Socket>();

  constructor(socket: string) {
    this.socket = socket;
  }

  /** Answers from now on. */
  async up(): Promise<void> {
    const server = createServer((req, res) => {
      const { fault } = this;
      if (fault && req.method === fault.method && fault.path.test(req.url ?? '')) {
        this.fault = undefined;
        req.resume();
        res.writeHead(fault.status, { 'content-type': 'application/json' });
        res.end(JSON.stringify({ message: fault.message }));
        return;
      }
      const { method, url: path, headers } = req;
      const forwarded = request({ socketPath: ENGINE_SOCKET, method, path, headers, agent: false }, (answer) => {
        res.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(res);
      });
      forwarded.on('error', () => res.destroy());
      req.pipe(forwarded);
    });
    server.on('connection', (socket) => {
      this.#open.add(socket);
      socket.once('close', () => this.#open.delete(socket));
    });
    this.#server = server;
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(this.socket, resolve));
  }

  /** Gone from one moment to the next, as when the engine is killed; sandboxes live on. */
  down(): void {
    this.#server?.close();
    for (const socket of this.#open) socket.destroy();
    rmSync(this.socket, { force: true });
  }
}
