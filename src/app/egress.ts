import { fileURLToPath } from 'node:url';
import type { Config } from '../config.ts';
import type { Log } from '../core/contracts.ts';
import type { Counters } from '../core/counters.ts';
import type { Vault } from '../core/secrets.ts';
import { EgressProcess } from '../egress/process.ts';

/** The sandboxes' way out, by the settings. Its process is not started yet. */
export function createEgress(
  config: Config,
  env: Readonly<Record<string, string>>,
  vault: Vault,
  counters: Counters,
  log: Log,
): EgressProcess {
  const { egressAllow: allow, egressDeny: deny, egressDns: dns, port, publicUrl } = config;
  // Port 0 is known when the door is open.
  const doors = port === 0 ? [] : [{ port, hosts: [] as string[] }];
  if (publicUrl !== undefined) {
    const { protocol, hostname, port: given } = new URL(publicUrl);
    doors.push({ port: Number(given || (protocol === 'https:' ? 443 : 80)), hosts: [hostname] });
  }
  return new EgressProcess({
    program: fileURLToPath(new URL('../../cmd/egress.js', import.meta.url)),
    env,
    settings: { allow, deny, dns, doors },
    unseal: (sealed, context) => vault.open(sealed, context),
    counters,
    log,
  });
}
