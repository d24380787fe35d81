import { randomBytes } from 'node:crypto';
import { Access } from '../../src/core/access.ts';
import type { Audit, TicketMemory } from '../../src/core/contracts.ts';
import { KeyRing } from '../../src/core/keys.ts';

/** For tests that are not about the audit log. */
export const noAudit: Audit = { record() {}, find: async () => [], close: async () => {} };

/** For tests that are not about tickets: remembers none. */
export const noTickets: TicketMemory = {
  list: () => [],
  add: async () => {},
  use: async () => true,
  isUsed: () => false,
  revoke: async () => false,
  isRevoked: () => false,
  revokeAll: async () => {},
  revokedUntil: () => undefined,
  close: async () => {},
};

/** The door of a service without keys. */
export function openAccess(): Access {
  return new Access({ keys: new KeyRing([]), masterKey: randomBytes(32), tickets: noTickets });
}
