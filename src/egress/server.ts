import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import {
  EGRESS_REFUSALS,
  type EgressInput,
  EgressList,
  type EgressRefusal,
  type OperatorRules,
  plain,
} from '../core/egress.ts';
import type { EgressCounts, EgressSettings } from './messages.ts';
import { Names } from './names.ts';
import { EgressProxy, Guest } from './proxy.ts';

/** Connections of one sandbox; Chromium has 128 to its proxy and some 255 WebSockets. More are hung up on. */
const MAX_CONNECTIONS = 512;
/** How long the machine's addresses are taken for what they were, in milliseconds. */
const OWN_FRESH_MS = 2000;

interface Door {
  guest: Guest;
  readonly server: Server;
  readonly sockets: Set<Socket>;
}

/** The ways out of all sandboxes of a service: a unix socket each, which tells whose traffic it is, and one proxy behind them. */
export class EgressServer {
  readonly #proxy: EgressProxy;
  readonly #doors = new Map<string, Door>();
  #denied = noneDenied();
  #sent = 0;
  #received = 0;

  constructor(settings: EgressSettings) {
    this.#proxy = new EgressProxy(rulesOf(settings), new Names(settings.dns), (refusal) => {
      this.#denied[refusal]++;
    });
  }

  /** Ends what is connected. */
  configure(settings: EgressSettings): void {
    this.#proxy.operator = rulesOf(settings);
    this.#proxy.names = new Names(settings.dns);
    for (const door of this.#doors.values()) this.#change(door, door.guest.egress);
  }

  /** Resolves when the socket listens. One that does gets other rules, and its connections end. */
  async open(path: string, egress: EgressInput): Promise<void> {
    const open = this.#doors.get(path);
    if (open) return this.#change(open, egress);
    const server = createServer({ allowHalfOpen: true }, (socket) => this.#take(door, socket));
    const door: Door = { guest: new Guest(this.#proxy.operator, egress), server, sockets: new Set() };
    server.maxConnections = MAX_CONNECTIONS;
    this.#doors.set(path, door);
    // Of an egress process that was killed.
    rmSync(path, { force: true });
    try {
      await new Promise<void>((listening, reject) => {
        server.once('error', reject);
        // In a container it is another user who comes; the folder keeps everybody else out.
        server.listen({ path, readableAll: true, writableAll: true }, listening);
      });
    } catch (err) {
      this.#doors.delete(path);
      throw err;
    }
  }

  /** Ends its connections too. One that is not there is fine. */
  close(path: string): void {
    const door = this.#doors.get(path);
    this.#doors.delete(path);
    door?.server.close();
    for (const socket of door?.sockets ?? []) socket.destroy();
    door?.guest.close();
  }

  /** What has happened since the last call. */
  counts(): EgressCounts {
    const counts = { denied: this.#denied, sent: this.#sent, received: this.#received };
    [this.#denied, this.#sent, this.#received] = [noneDenied(), 0, 0];
    return counts;
  }

  /** Connections were let through by the rules of before. */
  #change(door: Door, egress: EgressInput): void {
    for (const socket of door.sockets) socket.destroy();
    door.guest.close();
    door.guest = new Guest(this.#proxy.operator, egress);
  }

  #take(door: Door, socket: Socket): void {
    door.sockets.add(socket);
    socket.once('close', () => {
      door.sockets.delete(socket);
      this.#sent += socket.bytesRead;
      this.#received += socket.bytesWritten;
    });
    this.#proxy.take(socket, door.guest);
  }
}

function rulesOf({ allow, deny, doors }: EgressSettings): OperatorRules {
  let addresses = new Set<string>();
  let fresh = -OWN_FRESH_MS;
  const own = (): ReadonlySet<string> => {
    if (performance.now() - fresh < OWN_FRESH_MS) return addresses;
    fresh = performance.now();
    const all = Object.values(networkInterfaces()).flatMap((some) => some ?? []);
    addresses = new Set(all.map(({ address }) => plain(address)));
    return addresses;
  };
  return { allow: new EgressList(allow), deny: new EgressList(deny), doors, own };
}

function noneDenied(): Record<EgressRefusal, number> {
  return Object.fromEntries(EGRESS_REFUSALS.map((refusal) => [refusal, 0])) as Record<EgressRefusal, number>;
}
