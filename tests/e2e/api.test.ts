import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Agent, request } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';
import WebSocket from 'ws';
import type { Sandbox } from '../../src/client/client.ts';
import { type Answer, asked, type Call, call, contract, expect } from './contract.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';

/** 101, or the status that refused the upgrade. An opened socket is closed again. */
function upgrade(url: string, headers: Readonly<Record<string, string>> = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url, { headers, perMessageDeflate: false, handshakeTimeout: LIMIT.timeout });
    ws.once('error', reject);
    ws.once('unexpected-response', (_req, res) => {
      res.resume();
      resolve(res.statusCode ?? 0);
    });
    ws.once('open', () => {
      ws.once('close', () => resolve(101));
      ws.close();
    });
  });
}

const socketOf = (url: string): string => url.replace(/^http/, 'ws');
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
    assert.ok((await expect(service, 200, 'getLivePage', { id })).text.includes(JSON.stringify(sandbox.vncUrl)));
    const version = (await expect(service, 200, 'getDevToolsVersion', { id })).json;
    assert.match(version.Browser, /^Chrome\//);
    assert.equal(version.webSocketDebuggerUrl, sandbox.cdpUrl);
    const [target] = (await expect(service, 200, 'listDevToolsTargets', { id })).json;
    assert.equal(target.type, 'page');
    assert.equal(target.webSocketDebuggerUrl, `${socketOf(service.url)}/sandboxes/${id}/devtools/page/${target.id}`);
    assert.equal(target.devtoolsFrontendUrl, undefined);
    assert.ok((await expect(service, 200, 'getDevToolsProtocol', { id })).json.domains.length > 30);
    assert.equal(await upgrade(target.webSocketDebuggerUrl), 101);
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

  it('was asked everything that openapi.yaml promises', () => {
    for (const id of contract.operations.keys()) assert.ok(asked.has(id), id);
  });
});

describe('a service with keys', { timeout: 3 * LIMIT.timeout }, () => {
  const KEYS = { a: 'key-a-8f14e45fceea', b: 'key-b-c9f0f895fb98', ops: 'key-ops-45c48cce2e', eye: 'key-eye-d3d94468' };
  /** Every ticket that an answer carried. */
  const tickets = new Set<string>();
  let service: Service;
  let mine: Sandbox;
  let other: Sandbox;
  let recording: string;

  /** As {@link call}, noting the tickets. */
  async function as(who: keyof typeof KEYS | '', status: number, operation: string, given: Call = {}): Promise<Answer> {
    const answer = await call(service, operation, { ...given, ...(who ? { key: KEYS[who] } : {}) });
    assert.equal(answer.status, status, `${operation} as ${who}: ${answer.text.slice(0, 500)}`);
    for (const [, ticket] of answer.text.matchAll(/ticket=([\w.%-]+)/g)) tickets.add(ticket as string);
    return answer;
  }
  const ticketOf = (url: string | undefined): string =>
    new URL(url ?? '').searchParams.get('ticket') ?? assert.fail(`no ticket in ${url}`);
  const automation = (id: string, ticket: string): string =>
    `${socketOf(service.url)}/sandboxes/${id}/ws/automation?ticket=${ticket}`;

  before(async () => {
    const { a, b, ops, eye } = KEYS;
    service = await startService({ env: { BERTH_API_KEYS: `a:${a},b:${b},ops:${ops}:admin,a:${eye}:viewer` } });
    const made = await Promise.all([
      as('a', 201, 'createSandbox', { body: { sandboxId: 'mine', recording: 'always' } }),
      as('a', 201, 'createSandbox', { body: { sandboxId: 'other' } }),
    ]);
    [mine, other] = made.map((answer) => answer.json.data) as [Sandbox, Sandbox];
    const first = async (): Promise<string | undefined> =>
      (await as('a', 200, 'listRecordings')).json.recordings[0]?.filename;
    await waitFor(async () => (await first()) !== undefined, 'the recording to begin');
    recording = (await first()) as string;
  });
  after(async () => {
    await service.end();
  });

  it('lets nobody in without one, but to its health and its contract', async () => {
    for (const [operation, given] of Object.entries<Call>({
      listSandboxes: {},
      createSandbox: {},
      getSandbox: { id: 'mine' },
      deleteSandbox: { id: 'mine' },
      getLivePage: { id: 'mine' },
      getDevToolsVersion: { id: 'mine' },
      listEvents: {},
      listSandboxEvents: { id: 'mine' },
      getMetrics: {},
      listRecordings: {},
      getRecording: { filename: recording },
      deleteRecording: { filename: recording },
    })) {
      assert.equal((await as('', 401, operation, given)).json.code, 1002);
      assert.equal((await expect(service, 401, operation, { ...given, key: 'key-x-0000000000000' })).json.code, 1002);
    }
    for (const path of ['ws/automation', 'ws/livestream', 'devtools/page/ABC']) {
      assert.equal(await upgrade(`${socketOf(service.url)}/sandboxes/mine/${path}`), 401);
      assert.equal(await upgrade(`${socketOf(service.url)}/sandboxes/nope/${path}`), 401, 'nor a word of what exists');
    }
    for (const operation of ['getHealth', 'getReadiness', 'getOpenapi']) await as('', 200, operation);
  });

  it('takes a key in every form that the field sends it in', async () => {
    const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;
    const forms: Record<string, string>[] = [
      { authorization: `Bearer ${KEYS.a}` },
      { authorization: `bearer ${KEYS.a}` },
      { authorization: basic(`token:${KEYS.a}`) },
      { authorization: basic(`${KEYS.a}:`) },
      { 'x-api-key': KEYS.a },
      { 'agentrun-access-token': KEYS.a },
    ];
    for (const headers of forms) {
      assert.equal((await fetch(`${service.url}/sandboxes`, { headers })).status, 200, JSON.stringify(headers));
      assert.equal(await upgrade(`${socketOf(service.url)}/sandboxes/mine/ws/automation`, headers), 101);
    }
    for (const name of ['token', 'api_key', 'apiKey']) {
      assert.equal((await fetch(`${service.url}/sandboxes?${name}=${KEYS.a}`)).status, 200, name);
      assert.equal(await upgrade(`${socketOf(service.url)}/sandboxes/mine/ws/livestream?${name}=${KEYS.a}`), 101);
    }
  });

  it('shows a tenant nothing of another: not its sandboxes, not its recordings, not its sockets', async () => {
    assert.equal((await as('b', 200, 'listSandboxes')).json.data.total, 0);
    assert.equal((await as('b', 200, 'listRecordings')).json.total, 0);
    const operations = 'getSandbox stopSandbox deleteSandbox getSandboxHealth getLivePage getDevToolsVersion'.split(
      ' ',
    );
    for (const operation of operations) {
      const answer = await as('b', 404, operation, { id: 'mine' });
      assert.equal(answer.json.code, 2001);
      const unknown = await as('b', 404, operation, { id: 'nope' });
      assert.equal(answer.json.message, unknown.json.message.replace('nope', 'mine'));
    }
    assert.deepEqual((await as('b', 200, 'listEvents')).json.data.events, []);
    await as('b', 404, 'listSandboxEvents', { id: 'mine' });
    await as('b', 404, 'startRecording', { id: 'mine' });
    for (const operation of ['listSandboxRecordings', 'getTimeline']) await as('b', 404, operation, { id: 'mine' });
    const session = recording.replace(/_seg.*/, '');
    await as('b', 404, 'exportRecording', { filename: session });
    await as('b', 404, 'exportSandboxRecording', { id: 'mine', filename: session });
    for (const operation of ['getRecording', 'getPoster', 'deleteRecording'])
      await as('b', 404, operation, { filename: recording });
    for (const operation of ['getSandboxRecording', 'getSandboxPoster', 'deleteSandboxRecording']) {
      await as('b', 404, operation, { id: 'mine', filename: recording });
    }
    for (const path of ['ws/automation', 'ws/livestream', 'devtools/page/ABC']) {
      const url = `${socketOf(service.url)}/sandboxes/mine/${path}`;
      assert.equal(await upgrade(url, { authorization: `Bearer ${KEYS.b}` }), 404);
    }
    await as('b', 409, 'createSandbox', { body: { sandboxId: 'mine' } });
    assert.equal((await as('a', 200, 'getSandbox', { id: 'mine' })).json.data.status, 'READY');
  });

  it('shows everything to an admin', async () => {
    assert.deepEqual(idsOf(await as('ops', 200, 'listSandboxes')).sort(), ['mine', 'other']);
    await as('ops', 200, 'getRecording', { filename: recording });
    await as('ops', 200, 'getMetrics');
    for (const who of ['a', 'eye'] as const) assert.equal((await as(who, 403, 'getMetrics')).json.code, 1003);
    const url = `${socketOf(service.url)}/sandboxes/mine/ws/automation`;
    assert.equal(await upgrade(url, { authorization: `Bearer ${KEYS.ops}` }), 101);
  });

  it('lets a viewer look and change nothing, neither itself nor with a ticket out of an answer', async () => {
    const before = tickets.size;
    assert.deepEqual(idsOf(await as('eye', 200, 'listSandboxes')).sort(), ['mine', 'other']);
    const { data } = (await as('eye', 200, 'getSandbox', { id: 'mine' })).json;
    assert.equal(data.status, 'READY');
    await as('eye', 200, 'getSandboxHealth', { id: 'mine' });
    await as('eye', 200, 'getRecording', { filename: recording });
    await as('eye', 403, 'createSandbox');
    const operations =
      'stopSandbox deleteSandbox startRecording stopRecording getDevToolsVersion listDevToolsTargets getLivePage'.split(
        ' ',
      );
    for (const operation of operations) {
      assert.equal((await as('eye', 403, operation, { id: 'mine' })).json.code, 1003, operation);
    }
    await as('eye', 403, 'deleteRecording', { filename: recording });
    await as('eye', 403, 'deleteSandboxRecording', { id: 'mine', filename: recording });
    for (const path of ['ws/automation', 'ws/livestream', 'devtools/page/ABC']) {
      const url = `${socketOf(service.url)}/sandboxes/mine/${path}`;
      assert.equal(await upgrade(url, { authorization: `Bearer ${KEYS.eye}` }), 403);
    }
    const headers = { authorization: `Bearer ${KEYS.eye}` };
    assert.equal((await fetch(`${service.url}/sandboxes/mine/json/new`, { method: 'PUT', headers })).status, 403);
    assert.deepEqual([data.cdpUrl, data.vncUrl, data.liveViewUrl], [undefined, undefined, undefined]);
    assert.equal(tickets.size, before, 'no answer to a viewer carried a ticket');
  });

  it('hands out addresses that need nothing else: Puppeteer connects, the live view opens', async () => {
    const browser = await puppeteer.connect({ browserWSEndpoint: mine.cdpUrl ?? '' });
    assert.match(await browser.version(), /^Chrome\//);
    await browser.disconnect();
    const page = await fetch(mine.liveViewUrl ?? '');
    assert.equal(page.status, 200);
    const html = await page.text();
    const vncUrl = /RFB\(.*"(ws:[^"]+)"/.exec(html)?.[1] ?? assert.fail('no address in the page');
    tickets.add(ticketOf(vncUrl));
    assert.equal(await upgrade(vncUrl), 101);
    assert.equal((await fetch(new URL('/novnc/core/rfb.js', service.url))).status, 200);
    const { webSocketDebuggerUrl } = (await as('a', 200, 'getDevToolsVersion', { id: 'mine' })).json;
    const again = await puppeteer.connect({ browserWSEndpoint: webSocketDebuggerUrl });
    tickets.add(ticketOf(webSocketDebuggerUrl));
    await again.disconnect();
    const [target] = (await as('a', 200, 'listDevToolsTargets', { id: 'mine' })).json;
    tickets.add(ticketOf(target.webSocketDebuggerUrl));
    assert.equal(await upgrade(target.webSocketDebuggerUrl), 101);
  });

  it('opens with a ticket what it is for and nothing else', async () => {
    const [cdp, vnc] = [ticketOf(mine.cdpUrl), ticketOf(mine.vncUrl)];
    const sandbox = `${service.url}/sandboxes/mine`;
    assert.equal((await fetch(`${sandbox}/json/version?ticket=${cdp}`)).status, 200);
    assert.equal(await upgrade(automation('other', cdp)), 403);
    assert.equal(await upgrade(automation('nope', cdp)), 403);
    assert.equal(await upgrade(automation('mine', vnc)), 403);
    assert.equal(await upgrade(`${socketOf(sandbox)}/ws/livestream?ticket=${cdp}`), 403);
    assert.equal((await fetch(`${sandbox}/live?ticket=${cdp}`)).status, 403);
    assert.equal((await fetch(`${sandbox}/json/version?ticket=${vnc}`)).status, 403);
    for (const path of ['', '/mine', '/mine/health', '/mine/recordings']) {
      assert.equal((await fetch(`${service.url}/sandboxes${path}?ticket=${cdp}`)).status, 401, path);
    }
    assert.equal((await fetch(`${service.url}/recordings/${recording}?ticket=${cdp}`)).status, 401);
    assert.equal((await fetch(`${sandbox}?ticket=${cdp}`, { method: 'DELETE' })).status, 401);
    const [payload = '', signature = ''] = cdp.split('.');
    const other = Buffer.from(payload, 'base64url').toString().replace('mine', 'other');
    const forged = `${Buffer.from(other).toString('base64url')}.${signature}`;
    for (const bad of [forged, payload, `${payload}.`, `.${signature}`, '', 'x', `${payload}.${'A'.repeat(43)}`]) {
      assert.equal(await upgrade(automation('other', bad)), 401, bad);
      assert.equal((await fetch(`${service.url}/sandboxes/mine/live?ticket=${bad}`)).status, 401, bad);
    }
  });

  it('has its keys and tickets in no line of its log', async () => {
    await as('a', 200, 'deleteSandbox', { id: 'mine' });
    assert.equal(await upgrade(mine.cdpUrl ?? ''), 410);
    assert.equal((await fetch(other.liveViewUrl ?? '')).status, 200);
    assert.ok(tickets.size > 5);
    const log = service.log();
    assert.match(log, /"path":"\/sandboxes\/mine\/json\/version"/);
    const payloads = [...tickets].map((ticket) => ticket.split('.')[0] as string);
    for (const secret of [...Object.values(KEYS), ...tickets, ...payloads]) {
      assert.ok(!log.includes(secret), `${secret} in ${log.split('\n').find((line) => line.includes(secret))}`);
    }
  });
});
