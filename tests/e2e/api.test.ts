import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Agent, request } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';
import type { Sandbox } from '../../src/client/client.ts';
import { type Answer, asked, call, contract, expect } from './contract.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { openSocket, socketOf, upgrade } from './sockets.ts';

const idsOf = (list: Answer): string[] => list.json.data.sandboxes.map((sandbox: Sandbox) => sandbox.sandboxId);

describe('the API of a service without keys', { timeout: 3 * LIMIT.timeout }, () => {
  let service: Service;
  let sandbox: Sandbox;
  before(async () => {
    service = await startService();
  });
  after(async () => {
    await service.end();
  });

  it('is healthy, ready, and shows its own contract', async () => {
    await expect(service, 200, 'getHealth');
    await expect(service, 200, 'getReadiness');
    assert.equal((await expect(service, 200, 'getOpenapi')).text, Buffer.from(contract.text).toString('latin1'));
    assert.deepEqual((await expect(service, 200, 'listEvents')).json.data.events, []);
    assert.match((await expect(service, 200, 'getMetrics')).text, /^berth_sandboxes\{state="READY"\} 0$/m);
    assert.deepEqual((await expect(service, 200, 'listSandboxes')).json.data, {
      sandboxes: [],
      total: 0,
      page: 1,
      pageSize: 20,
    });
  });

  it('answers HEAD, and the next request on the same connection', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const ask = (method: string, path: string): Promise<[number | undefined, string | undefined, string]> =>
      new Promise((resolve, reject) => {
        const req = request(`${service.url}${path}`, { method, agent }, (res) => {
          let body = '';
          res.on('data', (chunk) => (body += chunk));
          res.once('end', () => resolve([res.statusCode, res.headers['content-length'], body]));
        });
        req.once('error', reject).end();
      });
    try {
      for (const path of ['/health', '/openapi.yaml', '/nothing']) {
        const [status, length, body] = await ask('GET', path);
        assert.deepEqual(await ask('HEAD', path), [status, length, '']);
        assert.equal((await ask('GET', path))[2].length, body.length);
      }
    } finally {
      agent.destroy();
    }
  });

  it('makes a sandbox as it was asked to', async () => {
    const body = {
      templateName: 'default',
      sandboxId: 'Tour_1',
      sandboxIdleTimeoutSeconds: 600,
      maxLifetimeSeconds: 1200,
      recording: 'manual',
      recordingFps: 5,
      recordingSegmentSeconds: 30,
      viewport: { width: 800, height: 600 },
      metadata: { team: 'red', round: '1' },
    };
    sandbox = (await expect(service, 201, 'createSandbox', { body })).json.data;
    const { sandboxId, templateName, viewport, metadata, sandboxIdleTimeoutSeconds, maxLifetimeSeconds } = sandbox;
    const { recordingFps: _, recordingSegmentSeconds: __, recording: mode, ...echoed } = body;
    assert.deepEqual(
      { sandboxId, templateName, viewport, metadata, sandboxIdleTimeoutSeconds, maxLifetimeSeconds },
      echoed,
    );
    assert.deepEqual(sandbox.recording, { mode, state: 'off' });
    assert.equal(sandbox.status, 'READY');
    assert.deepEqual([sandbox.clients, sandbox.viewers, sandbox.browserRestarts], [0, 0, 0]);
    for (const stage of ['xvfb', 'vnc', 'browser', 'ready']) assert.ok((sandbox.startStages[stage] ?? -1) >= 0, stage);
    assert.equal(Date.parse(sandbox.expiresAt) - Date.parse(sandbox.createdAt) >= 1_199_000, true);
    assert.ok(Date.parse(sandbox.idleDeadline ?? '') <= Date.parse(sandbox.expiresAt));
    const { host } = new URL(service.url);
    assert.equal(sandbox.cdpUrl, `ws://${host}/sandboxes/Tour_1/ws/automation`);
    assert.equal(sandbox.vncUrl, `ws://${host}/sandboxes/Tour_1/ws/livestream`);
    assert.equal(sandbox.liveViewUrl, `http://${host}/sandboxes/Tour_1/live`);
    assert.equal(sandbox.endedAt, undefined);
  });

  it('shows it, its health, its page and its browser', async () => {
    const id = sandbox.sandboxId;
    assert.equal((await expect(service, 200, 'getSandbox', { id })).json.data.createdAt, sandbox.createdAt);
    assert.deepEqual((await expect(service, 200, 'getSandboxHealth', { id })).json, { status: 'ok' });
    assert.match((await expect(service, 200, 'getLivePage', { id })).text, /^<!doctype html>/i);
    const version = (await expect(service, 200, 'getDevToolsVersion', { id })).json;
    assert.match(version.Browser, /^Chrome\//);
    assert.equal(version.webSocketDebuggerUrl, sandbox.cdpUrl);
    const [target] = (await expect(service, 200, 'listDevToolsTargets', { id })).json;
    assert.equal(target.type, 'page');
    assert.equal(target.webSocketDebuggerUrl, `${socketOf(service.url)}/sandboxes/${id}/devtools/page/${target.id}`);
    assert.match(
      target.devtoolsFrontendUrl,
      new RegExp(`^${service.url}/sandboxes/${id}/inspector/[^/]+/inspector.html\\?ws`),
    );
    assert.ok((await expect(service, 200, 'getDevToolsProtocol', { id })).json.domains.length > 30);
    assert.equal(await upgrade(target.webSocketDebuggerUrl), 101);
  });

  it('shows its screen, whatever is on it', async () => {
    const id = sandbox.sandboxId;
    const jpeg = async (query = ''): Promise<number> => {
      const { text, headers } = await expect(service, 200, 'getScreenshot', { id, query });
      assert.equal(headers.get('content-type'), 'image/jpeg');
      assert.ok(text.startsWith('\xff\xd8\xff') && text.endsWith('\xff\xd9'), 'a JPEG, whole');
      return text.length;
    };
    assert.ok((await jpeg('width=320')) < 100_000);
    await expect(service, 400, 'getScreenshot', { id, query: 'width=5' });
    const browser = await puppeteer.connect({ browserWSEndpoint: sandbox.cdpUrl ?? '', defaultViewport: null });
    const page = (await browser.pages())[0] ?? assert.fail('no page');
    await page.setContent('<style>*{margin:0}</style><canvas width="1280" height="720"></canvas>');
    // Noise, which no compression makes small.
    await page.evaluate(`{
      const context = document.querySelector('canvas').getContext('2d');
      const image = context.createImageData(1280, 720);
      for (let i = 0; i < image.data.length; i += 65536) crypto.getRandomValues(image.data.subarray(i, i + 65536));
      for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
      context.putImageData(image, 0, 0);
    }`);
    await waitFor(
      async () => (await jpeg('width=1279')) > 200_000 || (await jpeg('width=1280')) > 200_000,
      'the noise to be on the screen',
    );
    await page.goto('about:blank');
    await browser.disconnect();
  });

  it('shows what else there is: templates, sessions, how the service stands, its pages', async () => {
    const { templates } = (await expect(service, 200, 'listTemplates')).json.data;
    assert.equal(templates[0].templateName, 'default');
    await expect(service, 200, 'listSessions');
    const stats = (await expect(service, 200, 'getStats')).json.data;
    assert.deepEqual([stats.maxSandboxes, Array.isArray(stats.samples)], [20, true]);
    for (const operation of ['getDocs', 'getConsole']) {
      assert.match((await expect(service, 200, operation)).text, /^<!doctype html>/i, operation);
    }
  });

  it('records it, lists what it recorded, hands it out and deletes it', async () => {
    const id = sandbox.sandboxId;
    for (let i = 0; i < 2; i++) {
      const started = (await expect(service, 200, 'startRecording', { id })).json.data;
      assert.equal(started.recording.state, 'recording');
      const again = (await expect(service, 200, 'startRecording', { id })).json.data;
      assert.equal(again.recording.sessionId, started.recording.sessionId, 'a second start changes nothing');
      const written = async (): Promise<boolean> => {
        const { recordings } = (await expect(service, 200, 'listSandboxRecordings', { id })).json;
        return recordings[0]?.status === 'recording' && recordings[0].size > 0;
      };
      await waitFor(written, 'the recording to be written');
      assert.equal((await expect(service, 200, 'stopRecording', { id })).json.data.recording.state, 'off');
      await expect(service, 200, 'stopRecording', { id });
      await sleep(1100); // sessions are named by the second
    }
    const all = (await expect(service, 200, 'listRecordings')).json;
    assert.deepEqual([all.total, all.page, all.pageSize], [2, 1, 20]);
    assert.deepEqual((await expect(service, 200, 'listSandboxRecordings', { id })).json, all);
    const [newer, older] = all.recordings;
    assert.ok(newer.createdAt > older.createdAt, 'newest first');
    assert.equal(newer.status, 'completed');
    assert.match(newer.filename, /^vnc_Tour_1_\d{8}_\d{6}_seg000\.mkv$/);
    const { filename } = newer;
    const file = await expect(service, 200, 'getRecording', { filename });
    assert.equal(file.text.length, newer.size);
    assert.ok(file.text.startsWith('\x1a\x45\xdf\xa3'), 'Matroska');
    const digest = (text: string): string => createHash('sha256').update(text, 'latin1').digest('hex');
    assert.equal(digest((await expect(service, 200, 'getSandboxRecording', { id, filename })).text), digest(file.text));
    const [earlier, later] = (await expect(service, 200, 'getTimeline', { id })).json.recordings;
    assert.deepEqual([earlier.sessionId, later.sessionId], [older.sessionId, newer.sessionId]);
    assert.ok(newer.playable && newer.frames > 0 && newer.durationSeconds > 0);
    assert.deepEqual([later.durationSeconds, later.size], [newer.durationSeconds, newer.size]);
    for (const [poster, exported] of [
      ['getPoster', 'exportRecording'],
      ['getSandboxPoster', 'exportSandboxRecording'],
    ] as const) {
      assert.ok((await expect(service, 200, poster, { id, filename })).text.startsWith('\xff\xd8'), 'JPEG');
      const { text } = await expect(service, 200, exported, { id, filename: newer.sessionId });
      assert.ok(text.startsWith('\x1a\x45\xdf\xa3'), 'Matroska');
      await expect(service, 400, exported, { id, filename: newer.sessionId, query: 'format=avi' });
    }
    for (const operation of ['getSandboxPoster', 'exportSandboxRecording'])
      await expect(service, 404, operation, {
        id: 'other',
        filename: operation === 'getSandboxPoster' ? filename : newer.sessionId,
      });
    assert.deepEqual((await expect(service, 200, 'listDownloads', { id })).json.data, { downloads: [] });
    for (const verb of ['get', 'delete']) await expect(service, 404, `${verb}Download`, { id, filename });
    await expect(service, 404, 'getSandboxRecording', { id: 'other', filename });
    await expect(service, 404, 'deleteSandboxRecording', { id: 'other', filename });
    const gone = (await expect(service, 200, 'deleteSandboxRecording', { id, filename })).json;
    assert.deepEqual(gone, { message: 'Recording file deleted successfully', filename });
    await expect(service, 404, 'getRecording', { filename });
    await expect(service, 200, 'deleteRecording', { filename: older.filename });
    await expect(service, 404, 'deleteRecording', { filename: older.filename });
    assert.equal((await expect(service, 200, 'listRecordings')).json.total, 0);
    assert.equal((await call(service, 'getRecording', { filename: 'x.mp4' })).status, 400);
  });

  it('answers at once when it is not to wait, and lets clients wait instead', async () => {
    const body = { sandboxId: 'later', metadata: { team: 'blue', round: '1' } };
    const { data } = (await expect(service, 202, 'createSandbox', { query: 'wait=false', body })).json;
    assert.equal(data.status, 'CREATING');
    const early = await call(service, 'getSandboxHealth', { id: 'later' });
    assert.ok(early.status === 503 ? early.json.code === 2004 : early.status === 200, early.text);
    const browser = await puppeteer.connect({ browserWSEndpoint: data.cdpUrl });
    assert.match(await browser.version(), /^Chrome\//);
    await browser.disconnect();
    assert.equal((await expect(service, 200, 'getSandbox', { id: 'later' })).json.data.status, 'READY');
  });

  it('ends sandboxes, as often as it is told to, and remembers them', async () => {
    const { data: stopped } = (await expect(service, 200, 'stopSandbox', { id: 'later' })).json;
    assert.equal(stopped.status, 'TERMINATED');
    assert.equal(stopped.endedReason, 'deleted');
    assert.ok(Date.parse(stopped.endedAt) >= Date.parse(stopped.createdAt));
    for (const field of ['cdpUrl', 'vncUrl', 'liveViewUrl', 'idleDeadline'])
      assert.equal(field in stopped, false, field);
    for (const operation of ['stopSandbox', 'deleteSandbox', 'getSandbox']) {
      assert.deepEqual((await expect(service, 200, operation, { id: 'later' })).json.data, stopped);
    }
    const health = await expect(service, 410, 'getSandboxHealth', { id: 'later' });
    assert.match(health.json.message, /later has ended: deleted/);
    await expect(service, 410, 'getDevToolsVersion', { id: 'later' });
    await expect(service, 410, 'startRecording', { id: 'later' });
    await expect(service, 410, 'getLivePage', { id: 'later' });
  });

  it('lists live and remembered ones: newest first, by state, by metadata, in pages', async () => {
    const list = async (query: string): Promise<string[]> =>
      idsOf(await expect(service, 200, 'listSandboxes', { query }));
    assert.deepEqual(await list(''), ['later', 'Tour_1']);
    assert.deepEqual(await list('status=READY'), ['Tour_1']);
    assert.deepEqual(await list('status=TERMINATED'), ['later']);
    assert.deepEqual(await list('status=FAILED'), []);
    assert.deepEqual(await list('metadata.team=blue'), ['later']);
    assert.deepEqual(await list('metadata.round=1'), ['later', 'Tour_1']);
    assert.deepEqual(await list('metadata.round=1&metadata.team=red'), ['Tour_1']);
    assert.deepEqual(await list('metadata.team=red&status=TERMINATED'), []);
    assert.deepEqual(await list('metadata.nobody='), []);
    assert.deepEqual(await list('metadata.constructor=x'), []);
    const second = (await expect(service, 200, 'listSandboxes', { query: 'page=2&page_size=1' })).json.data;
    assert.deepEqual([second.sandboxes[0].sandboxId, second.total, second.page, second.pageSize], ['Tour_1', 2, 2, 1]);
    assert.deepEqual(await list('page=3&page_size=1'), []);
  });

  it('changes a sandbox, shows its tabs and closes one', async () => {
    const id = 'Tour_1';
    const changed = await expect(service, 200, 'changeSandbox', { id, body: { metadata: { round: null } } });
    assert.equal('round' in changed.json.data.metadata, false);
    await expect(service, 200, 'changeSandbox', { id, body: { metadata: { round: '1' } } });
    const { pages } = (await expect(service, 200, 'listPages', { id })).json.data;
    assert.deepEqual([pages[0].url, pages[0].health], ['about:blank', 'ok']);
    await expect(service, 404, 'closePage', { id, page: 'none' });
    const added = await fetch(`${service.url}/sandboxes/${id}/json/new?about:blank`, { method: 'PUT' });
    await expect(service, 204, 'closePage', { id, page: ((await added.json()) as { id: string }).id });
    for (const operation of ['changeSandbox', 'listPages', 'closePage']) {
      const body = operation === 'changeSandbox' ? { body: { maxLifetimeSeconds: 60 } } : {};
      await expect(service, 410, operation, { id: 'later', page: 'none', ...body });
    }
  });

  it('tells who watches, hands control over and ends who is not to watch any more', async () => {
    const id = 'Tour_1';
    const exclusive = await expect(service, 200, 'changeSandbox', { id, body: { control: 'exclusive' } });
    assert.equal(exclusive.json.data.control, 'exclusive');
    const watch = (viewer: string) =>
      openSocket(`${socketOf(service.url)}/sandboxes/${id}/ws/livestream?viewer=${viewer}`);
    const [one, two] = [await watch('one'), await watch('two')];
    const gone = new Promise((resolve) => two.once('close', resolve));
    const who = ({ json }: Answer): string[] =>
      json.data.viewers.map((viewer: { viewerId: string; controls: boolean }) => viewer.viewerId + viewer.controls);
    assert.deepEqual(who(await expect(service, 200, 'listViewers', { id })), ['onetrue', 'twofalse']);
    assert.deepEqual(who(await expect(service, 200, 'giveControl', { id, viewerId: 'two' })), ['onefalse', 'twotrue']);
    assert.deepEqual(who(await expect(service, 200, 'releaseControl', { id, viewerId: 'two' })), [
      'onefalse',
      'twofalse',
    ]);
    assert.deepEqual(who(await expect(service, 200, 'kickViewer', { id, viewerId: 'two' })), ['onefalse']);
    assert.equal(await gone, 1008);
    one.terminate();
    // Else their leaving would be news to a later case.
    await waitFor(
      async () => who(await expect(service, 200, 'listViewers', { id })).length === 0,
      'the viewers to be gone',
    );
    for (const operation of ['giveControl', 'releaseControl', 'kickViewer']) {
      await expect(service, 404, operation, { id, viewerId: 'none' });
      await expect(service, 410, operation, { id: 'later', viewerId: 'none' });
    }
    await expect(service, 410, 'listViewers', { id: 'later' });
    await expect(service, 400, 'changeSandbox', { id, body: { control: 'mine' } });
  });

  it('tells what happened to them', async () => {
    const { events, next } = (await expect(service, 200, 'listSandboxEvents', { id: 'later' })).json.data;
    assert.equal(events.at(-1).type, 'sandbox.ended');
    assert.deepEqual((await expect(service, 200, 'listEvents', { query: `after=${next}` })).json.data.events, []);
  });

  it('takes the id of one that ended for a new one', async () => {
    const { data } = (await expect(service, 201, 'createSandbox', { body: { sandboxId: 'later' } })).json;
    assert.deepEqual(data.metadata, {});
    assert.equal((await expect(service, 200, 'listSandboxes')).json.data.total, 2);
    await expect(service, 200, 'deleteSandbox', { id: 'later' });
    await expect(service, 200, 'deleteSandbox', { id: 'Tour_1' });
  });

  it('makes, lists and takes back tickets, says who asks, and keeps a log of it', async () => {
    await expect(service, 201, 'createSandbox', { body: { sandboxId: 'ticketed' } });
    const id = 'ticketed';
    const { data } = (await expect(service, 201, 'createTicket', { id, body: { role: 'view' } })).json;
    assert.match(data.url, /\/ws\/livestream\?ticket=/);
    const listed = (await expect(service, 200, 'listTickets', { id })).json.data.tickets;
    assert.deepEqual(
      listed.map(({ ticketId }: { ticketId: string }) => ticketId),
      [data.ticketId],
    );
    await expect(service, 204, 'revokeTicket', { id, ticketId: data.ticketId });
    await expect(service, 404, 'revokeTicket', { id, ticketId: data.ticketId });
    await expect(service, 204, 'revokeTickets', { id });
    for (const body of [{}, { role: 'admin' }, { role: 'view', ttlSeconds: 0 }, { role: 'view', oneTime: 'yes' }]) {
      await expect(service, 400, 'createTicket', { id, body });
    }
    await expect(service, 200, 'deleteSandbox', { id });
    await expect(service, 410, 'createTicket', { id, body: { role: 'view' } });
    assert.deepEqual((await expect(service, 200, 'getSession')).json.data, {
      tenant: 'default',
      role: 'admin',
      open: true,
    });
    await expect(service, 200, 'beginSession');
    await expect(service, 204, 'endSession');
    const { entries } = (await expect(service, 200, 'listAudit', { query: `sandboxId=${id}` })).json.data;
    assert.deepEqual(
      entries.map(({ action }: { action: string }) => action),
      ['sandbox.stop', 'ticket.revoke', 'ticket.revoke', 'ticket.create', 'sandbox.create'],
    );
    await expect(service, 400, 'listAudit', { query: 'since=yesterday' });
  });

  it('was asked everything that openapi.yaml promises', () => {
    for (const id of contract.operations.keys()) assert.ok(asked.has(id), id);
  });
});
