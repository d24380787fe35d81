/** The settings of limits for each tenant, each sandbox and each address. 0 sets none. */
import { parseInteger, type Setting } from './setting.ts';

export interface LimitsConfig {
  readonly tenantSandboxes: number;
  readonly tenantCreatesPerMinute: number;
  readonly tenantTicketsPerMinute: number;
  readonly sandboxClients: number;
  readonly addressFailuresPerMinute: number;
  readonly addressRequestsPerMinute: number;
  readonly addressUpgradesPerMinute: number;
  /** Under way at once. */
  readonly addressUpgrades: number;
  /** New ones within twelve seconds. */
  readonly addressConnections: number;
}

const MOST = 999_999_999;
const upTo = (most: number) => (text: string) => parseInteger(text, 0, most);

/** Rows of the table of settings. */
export const limitsSettings: { readonly [K in keyof LimitsConfig]: Setting<LimitsConfig[K]> } = {
  tenantSandboxes: {
    name: 'BERTH_TENANT_SANDBOXES',
    default: '0',
    meaning: 'Sandboxes of one tenant at the same time; 0: as many as there may be.',
    danger: 'Without it one tenant can have all of `BERTH_MAX_SANDBOXES`.',
    parse: upTo(1000),
  },
  tenantCreatesPerMinute: {
    name: 'BERTH_TENANT_CREATES_PER_MINUTE',
    default: '300',
    meaning: 'Creates of one tenant, refused ones included, in a minute and at once; 0: no limit.',
    danger: 'Too few, and a batch job waits.',
    parse: upTo(MOST),
  },
  tenantTicketsPerMinute: {
    name: 'BERTH_TENANT_TICKETS_PER_MINUTE',
    default: '600',
    meaning: 'Tickets that one tenant may ask for in a minute and at once; 0: no limit.',
    danger: 'Each is remembered until it expires.',
    parse: upTo(MOST),
  },
  sandboxClients: {
    name: 'BERTH_SANDBOX_CLIENTS',
    default: '200',
    meaning: 'Clients and viewers of one sandbox at once; 0: no limit.',
    danger: 'Each viewer gets the whole screen, so hundreds cost a processor and the network.',
    parse: upTo(MOST),
  },
  addressFailuresPerMinute: {
    name: 'BERTH_ADDRESS_FAILURES_PER_MINUTE',
    default: '20',
    meaning:
      'Wrong keys and forged tickets from one address in a minute; then 429 whatever comes with it. 0: no limit.',
    danger: 'All who share the address wait with whoever guesses.',
    parse: upTo(MOST),
  },
  addressRequestsPerMinute: {
    name: 'BERTH_ADDRESS_REQUESTS_PER_MINUTE',
    default: '12000',
    meaning: 'HTTP requests from one address in a minute and at once; 0: no limit.',
    danger: 'An office behind one address has one allowance; so has everybody behind a proxy that is not trusted.',
    parse: upTo(MOST),
  },
  addressUpgradesPerMinute: {
    name: 'BERTH_ADDRESS_UPGRADES_PER_MINUTE',
    default: '6000',
    meaning: 'WebSockets that one address may open in a minute and at once; 0: no limit.',
    danger: 'As for requests.',
    parse: upTo(MOST),
  },
  addressUpgrades: {
    name: 'BERTH_ADDRESS_UPGRADES',
    default: '256',
    meaning: 'WebSockets of one address that are being opened, their sandbox not connected yet, at once; 0: no limit.',
    danger: 'Each may wait 40 s and holds memory.',
    parse: upTo(MOST),
  },
  addressConnections: {
    name: 'BERTH_ADDRESS_CONNECTIONS',
    default: '16384',
    meaning:
      'New TCP connections of one address within 12 s, which is how long one that sends no request is kept; 0: no limit. Not for trusted proxies.',
    danger: 'Keep it below the open files that the service may have.',
    parse: upTo(MOST),
  },
};
