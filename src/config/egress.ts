/** The settings of the sandboxes' way out: what the operator opens and closes for all of them. */
import { isIP } from 'node:net';
import { EgressList } from '../core/egress.ts';
import type { Setting } from './setting.ts';

/** Lists of hosts, `*.hosts`, addresses and CIDRs. */
export interface EgressConfig {
  /** Private space that is open. */
  readonly egressAllow: readonly string[];
  /** Closed, whatever else is said. */
  readonly egressDeny: readonly string[];
  /** DNS servers, with or without a port; none: as the machine does. */
  readonly egressDns: readonly string[];
}

/** Rows of the table of settings. */
export const egressSettings: { readonly [K in keyof EgressConfig]: Setting<EgressConfig[K]> } = {
  egressAllow: {
    name: 'BERTH_EGRESS_ALLOW',
    default: '',
    defaultShown: 'none',
    meaning:
      'Comma-separated hosts, `*.hosts`, addresses and CIDRs that sandboxes may reach although they are private, such as `10.1.0.0/16,wiki.example.com`.',
    danger: "Pages of strangers get there, too. Berth's own port stays closed.",
    parse: parseList,
  },
  egressDeny: {
    name: 'BERTH_EGRESS_DENY',
    default: '',
    defaultShown: 'none',
    meaning: 'The same, of what no sandbox may reach; it wins over everything.',
    danger: 'A host that is closed by name may be open by its address.',
    parse: parseList,
  },
  egressDns: {
    name: 'BERTH_EGRESS_DNS',
    default: '',
    defaultShown: "the machine's own, with its hosts file",
    meaning:
      'Comma-separated addresses of DNS servers that resolve the names for sandboxes, such as `9.9.9.9,[2620:fe::fe]:53`.',
    danger: 'They learn which sites are visited.',
    parse: parseServers,
  },
};

function entriesOf(text: string): string[] {
  return text
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '');
}

function parseList(text: string): readonly string[] {
  const entries = entriesOf(text);
  for (const entry of entries) {
    try {
      new EgressList([entry]);
    } catch (err) {
      throw new Error(`has an entry that is wrong: ${(err as Error).message}`);
    }
  }
  return Object.freeze(entries);
}

function parseServers(text: string): readonly string[] {
  const servers = entriesOf(text);
  for (const server of servers) {
    const [, six, four = ''] = /^(?:\[([^\]]+)\](?::\d{1,5})?|([^:]+)(?::\d{1,5})?)$/.exec(server) ?? [];
    if (isIP(server) === 0 && isIP(six ?? four) === 0) {
      throw new Error(`must be addresses with or without a port, and ${JSON.stringify(server)} is none`);
    }
  }
  return Object.freeze(servers);
}
