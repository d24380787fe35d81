import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Readiness } from '../../src/api/meta.ts';
import { Api } from '../../src/api/server.ts';
import type { Downloads } from '../../src/core/contracts.ts';
import { Counters } from '../../src/core/counters.ts';
import { AppError } from '../../src/core/errors.ts';
import { Events } from '../../src/core/events.ts';
import type { Sandboxes } from '../../src/core/sandboxes.ts';
import { Gateway } from '../../src/gateway/server.ts';
import type { Recordings } from '../../src/recordings/recordings.ts';
import { noAudit, noTickets, openAccess } from './doors.ts';

describe('an archive in the answers of the service', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bt-'));
  let readiness: () => Promise<Readiness>;
  let api: Api;
  let gateway: Gateway;
  let url: string;

  before(async () => {
    const apiSocket = join(folder, 'api');
    const log = { info() {}, warn() {}, error() {} };
    const sandboxes = { live: () => [], pool: { ready: new Map(), claims: new Map() } } as unknown as Sandboxes;
    const access = openAccess();
    const counters = new Counters();
    const options = {
      access,
      sandboxes,
      recordings: {} as Recordings,
      downloads: {} as Downloads,
      events: new Events(10),
      counters,
      audit: noAudit,
      tickets: noTickets,
      ready: () => readiness(),
      uploads: () => ({ pending: 3, pendingBytes: 4000, oldestPendingSeconds: 12.5, uploads: 7, failures: 2 }),
      openapiYaml: readFileSync(new URL('../../../openapi.yaml', import.meta.url), 'utf8'),
      publicUrl: undefined,
      novncDir: folder,
      log,
    };
    api = new Api(options, apiSocket);
    gateway = new Gateway({ access, sandboxes, apiSocket, counters, audit: noAudit, log });
    await api.listen();
    url = `http://127.0.0.1:${await gateway.listen('127.0.0.1', 0)}`;
  });
  after(async () => {
    gateway.close();
    await api.close();
    rmSync(folder, { recursive: true });
  });

  it('does not make /readyz refuse when it is away, but shows', async () => {
    const answers: [Readiness['archive'], object][] = [
      [undefined, { status: 'ok' }],
      ['ok', { status: 'ok', archive: 'ok' }],
      ['unreachable', { status: 'degraded', archive: 'unreachable' }],
    ];
    for (const [archive, body] of answers) {
      readiness = async () => ({ archive });
      const answer = await fetch(`${url}/readyz`);
      assert.equal(answer.status, 200);
      assert.deepEqual(await answer.json(), body);
    }
    readiness = () => Promise.reject(new AppError('START_FAILED', 'Xvfb is missing.'));
    assert.equal((await fetch(`${url}/readyz`)).status, 503);
  });

  it('is in the metrics', async () => {
    const text = await (await fetch(`${url}/metrics`)).text();
    for (const line of [
      'berth_recordings_upload_pending 3',
      'berth_recordings_upload_pending_bytes 4000',
      'berth_recordings_upload_oldest_seconds 12.5',
      'berth_recordings_uploads_total{outcome="uploaded"} 7',
      'berth_recordings_uploads_total{outcome="failed"} 2',
    ])
      assert.ok(text.split('\n').includes(line), line);
  });
});
