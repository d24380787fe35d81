/** Berth's gateway alone, as it is in the service, in front of what stands for a sandbox. */
import type { Endpoint, Way } from '../../../src/core/contracts.ts';
import { Counters } from '../../../src/core/counters.ts';
import { keepNewSpaceSmall } from '../../../src/core/heap.ts';
import { Presence } from '../../../src/core/presence.ts';
import type { Sandboxes } from '../../../src/core/sandboxes.ts';
import { type FrontName, openFront } from '../../../src/gateway/front.ts';
import { noAudit, openAccess } from '../../unit/doors.ts';
import { args, serve } from './answer.ts';

const [endpoint, browserPath, front] = args as [Endpoint, string, FrontName];
const way: Way = { endpoint, prefix: '' };
const presence = new Presence('bench', () => {});
const sandboxes = {
  find: () => ({ spec: {} }),
  attach: async () => presence.join('client', way, browserPath, () => 'restart'),
} as unknown as Sandboxes;
const access = openAccess();
keepNewSpaceSmall();
const log = { info() {}, warn: console.error, error: console.error };
const gateway = await openFront(front, {
  access,
  sandboxes,
  apiSocket: '/nowhere',
  counters: new Counters(),
  audit: noAudit,
  log,
});
serve({ port: await gateway.listen('127.0.0.1', 0) });
