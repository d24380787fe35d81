import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** What goes wrong with the connections that come from now on. */
export type Fault =
  | { readonly kind: 'none' }
  /** Nobody listens, as far as a client can tell. */
  | { readonly kind: 'refuse' }
  /** Takes this many bytes of what the client sends, then closes. */
  | { readonly kind: 'cut-up'; readonly after: number }
  /** Gives the client this many bytes, then closes. */
  | { readonly kind: 'cut-down'; readonly after: number }
  /** Passes this many bytes of what the client sends, then nothing, either way, and keeps the connection. */
  | { readonly kind: 'stall-up'; readonly after: number }
  | { readonly kind: 'stall-down'; readonly after: number }
  /** Turns the bits of one byte of what the client sends. */
  | { readonly kind: 'corrupt-up'; readonly at: number }
  | { readonly kind: 'corrupt-down'; readonly at: number };

/** A TCP proxy before a server, which breaks what goes through it on cue. */
export class FaultProxy {
  /** How many connections the fault is for; then all is well. */
  times = Number.POSITIVE_INFINITY;
  /** Connections that met a fault. */
  struck = 0;
  /** Bytes given to clients so far. */
  down = 0;
  #fault: Fault = { kind: 'none' };
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  constructor(port: number) {
    this.#server = createServer((client) => this.#pass(client, port));
  }

  /** Its address. */
  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Breaks connections from now on; those that are open are closed, so that none escapes it. */
  break(fault: Fault, times = Number.POSITIVE_INFINITY): void {
    this.#fault = fault;
    this.times = times;
    this.struck = 0;
    for (const socket of this.#open) socket.destroy();
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#open) socket.destroy();
  }

  #pass(client: Socket, port: number): void {
    const fault: Fault = this.times > 0 ? this.#fault : { kind: 'none' };
    if (fault.kind === 'refuse') {
      this.#strike();
      client.resetAndDestroy();
      return;
    }
    const server = connect(port, '127.0.0.1');
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#open.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        this.#open.delete(socket);
        other.destroy();
      });
    }
    this.#flow(client, server, fault.kind.endsWith('-up') ? fault : { kind: 'none' });
    server.on('data', (chunk) => {
      this.down += chunk.length;
    });
    this.#flow(server, client, fault.kind.endsWith('-down') ? fault : { kind: 'none' });
  }

  #flow(from: Socket, to: Socket, fault: Fault): void {
    let passed = 0;
    let done = false;
    from.on('data', (chunk) => {
      let bytes = chunk;
      if ('after' in fault && passed + chunk.length > fault.after) {
        bytes = chunk.subarray(0, Math.max(0, fault.after - passed));
        if (!done) this.#strike();
        done = true;
        if (fault.kind.startsWith('stall')) from.pause();
      }
      if ('at' in fault && passed <= fault.at && fault.at < passed + chunk.length) {
        bytes = Buffer.from(chunk);
        bytes[fault.at - passed] = (bytes[fault.at - passed] as number) ^ 0xff;
        this.#strike();
      }
      passed += chunk.length;
      if (!to.write(bytes) && !done) {
        from.pause();
        to.once('drain', () => from.resume());
      }
      if (done && fault.kind.startsWith('cut')) {
        from.destroy();
        to.destroy();
      }
    });
  }

  #strike(): void {
    this.struck += 1;
    this.times -= 1;
  }
}
