import type { AttachKind } from '../core/presence.ts';
import type { TicketRole } from '../core/ticket.ts';

/** A WebSocket path of the public contract. */
export interface WebSocketRoute {
  readonly sandboxId: string;
  readonly kind: AttachKind;
  /** What a ticket must be for: one of these. */
  readonly roles: readonly TicketRole[];
  /** Path of a DevTools target; undefined for the browser itself. */
  readonly devtoolsPath?: string;
}

const SOCKETS = /^\/sandboxes\/([^/]+)\/ws\/(automation|livestream|liveview)\/?$/;
const TARGETS = /^\/sandboxes\/([^/]+)\/devtools\/(page|browser)\/([A-Za-z0-9-]{1,64})$/;

const CLIENTS: readonly TicketRole[] = ['automation'];
const VIEWERS: readonly TicketRole[] = ['control', 'view'];

/** The one table of WebSocket paths; undefined for every other path. */
export function webSocketRoute(path: string): WebSocketRoute | undefined {
  const socket = SOCKETS.exec(path);
  if (socket) {
    const viewer = socket[2] !== 'automation';
    return {
      sandboxId: socket[1] as string,
      kind: viewer ? 'viewer' : 'client',
      roles: viewer ? VIEWERS : CLIENTS,
    };
  }
  const target = TARGETS.exec(path);
  if (!target) return undefined;
  const route = { sandboxId: target[1] as string, kind: 'client', roles: CLIENTS } as const;
  // A sandbox has one browser, so any browser id means that one: clients keep the id of a browser that was restarted.
  return target[2] === 'browser' ? route : { ...route, devtoolsPath: `/devtools/page/${target[3]}` };
}
