import type { EgressInput, EgressRefusal } from '../core/egress.ts';

/** What holds for all sandboxes, as the service tells its egress process. */
export interface EgressSettings {
  /** Hosts, addresses and CIDRs of private space that are open. */
  readonly allow: readonly string[];
  readonly deny: readonly string[];
  /** DNS servers; none: as the machine does. */
  readonly dns: readonly string[];
  /** Where Berth itself is served. */
  readonly doors: readonly { readonly port: number; readonly hosts: readonly string[] }[];
}

/** What the service says. `id` comes back in the answer. */
export type EgressRequest =
  | { readonly type: 'settings'; readonly settings: EgressSettings }
  /** With the proxy's credentials, which is why nothing of this goes over a command line or environment. */
  | { readonly type: 'open'; readonly id: number; readonly socket: string; readonly egress: EgressInput }
  | { readonly type: 'close'; readonly id: number; readonly socket: string };

/** What has happened since the last report. */
export interface EgressCounts {
  readonly denied: Readonly<Record<EgressRefusal, number>>;
  /** Bytes of finished connections: from sandboxes, and to them. */
  readonly sent: number;
  readonly received: number;
}

/** What the egress process says. */
export type EgressReport =
  | { readonly type: 'done'; readonly id: number; readonly error?: string }
  | ({ readonly type: 'counts' } & EgressCounts);
