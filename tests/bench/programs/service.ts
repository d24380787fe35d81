/**
 * Berth's gateway, API and recordings in one process, as they are in the service. Only sandboxes are faked: each is there, whatever
 * its id, and its browser and screen are on ports that were given. No driver, no runtime, no registry.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Api } from '../../../src/api/server.ts';
import { createRecordings } from '../../../src/app/recordings.ts';
import { loadConfig } from '../../../src/config.ts';
import type { Way } from '../../../src/core/contracts.ts';
import { Control, type Onlooker } from '../../../src/core/control.ts';
import { Counters } from '../../../src/core/counters.ts';
import { Events } from '../../../src/core/events.ts';
import { keepNewSpaceSmall } from '../../../src/core/heap.ts';
import { Presence } from '../../../src/core/presence.ts';
import type { Sandboxes } from '../../../src/core/sandboxes.ts';
import { openFront } from '../../../src/gateway/front.ts';
import { DiskDownloads } from '../../../src/storage/downloads.ts';
import { noAudit, noTickets, openAccess } from '../../unit/doors.ts';
import { args, serve } from './answer.ts';

keepNewSpaceSmall();
const [dataDir, cdpPort, vncPort] = args as [string, number, number];
const config = loadConfig({ PATH: process.env.PATH, BERTH_DATA_DIR: dataDir, BERTH_RUN_DIR: '/nowhere' });
const log = { info() {}, warn: console.error, error: console.error };
const wayTo = (port: number): Way => ({ endpoint: { host: '127.0.0.1', port }, prefix: '' });
const presences = new Map<string, Presence>();
const presenceOf = (id: string): Presence => {
  const presence = presences.get(id) ?? new Presence(id, () => {});
  presences.set(id, presence);
  return presence;
};
const sandboxes = {
  find: () => ({ spec: {} }),
  attach: async (id: string) =>
    presenceOf(id).join('client', wayTo(cdpPort), `/devtools/browser/${id}`, () => 'restart'),
  watch: async (id: string, who: Onlooker) =>
    new Control('collaborative', () => {}).join(
      who,
      presenceOf(id).join('viewer', wayTo(vncPort), '', () => 'restart'),
    ),
} as unknown as Sandboxes;

const access = openAccess();
const counters = new Counters();
const events = new Events();
const { recordings, start } = await createRecordings(
  config,
  () => undefined,
  async () => {},
  { events, counters, log },
);
await start();
const apiSocket = join(dataDir, 'api');
const api = new Api(
  {
    access,
    sandboxes,
    recordings,
    downloads: new DiskDownloads(join(dataDir, 'downloads')),
    events,
    counters,
    audit: noAudit,
    tickets: noTickets,
    ready: async () => ({ archive: undefined }),
    openapiYaml: readFileSync(new URL('../../../../openapi.yaml', import.meta.url), 'utf8'),
    publicUrl: undefined,
    novncDir: '',
    log,
  },
  apiSocket,
);
await api.listen();
const gateway = await openFront('auto', { access, sandboxes, apiSocket, counters, audit: noAudit, log });
serve({ port: await gateway.listen('127.0.0.1', 0) });
