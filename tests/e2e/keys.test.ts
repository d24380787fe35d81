import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import puppeteer from 'puppeteer-core';
import type { Sandbox } from '../../src/client/client.ts';
import { type Answer, type Call, call, expect } from './contract.ts';
import { LIMIT, type Service, startService, UNLIMITED, waitFor } from './service.ts';
import { socketOf, upgrade } from './sockets.ts';

const idsOf = (list: Answer): string[] => list.json.data.sandboxes.map((sandbox: Sandbox) => sandbox.sandboxId);

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
    service = await startService({
      env: { ...UNLIMITED, BERTH_API_KEYS: `a:${a},b:${b},ops:${ops}:admin,a:${eye}:viewer` },
    });
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
      'stopSandbox deleteSandbox startRecording stopRecording getDevToolsVersion listDevToolsTargets listTickets revokeTickets'.split(
        ' ',
      );
    for (const operation of operations) {
      assert.equal((await as('eye', 403, operation, { id: 'mine' })).json.code, 1003, operation);
    }
    await as('eye', 403, 'deleteRecording', { filename: recording });
    await as('eye', 403, 'deleteSandboxRecording', { id: 'mine', filename: recording });
    for (const path of ['ws/automation', 'ws/livestream', 'devtools/page/ABC']) {
      const url = `${socketOf(service.url)}/sandboxes/mine/${path}`;
      const status = await upgrade(url, { authorization: `Bearer ${KEYS.eye}` });
      assert.equal(status, path === 'ws/livestream' ? 101 : 403);
    }
    const headers = { authorization: `Bearer ${KEYS.eye}` };
    assert.equal((await fetch(`${service.url}/sandboxes/mine/json/new`, { method: 'PUT', headers })).status, 403);
    assert.equal(data.cdpUrl, undefined);
    const shown = [...tickets].slice(before);
    assert.ok(shown.length >= 2 && shown.includes(ticketOf(data.vncUrl)), 'a viewer may watch');
    for (const ticket of shown) {
      assert.equal(await upgrade(automation('mine', ticket)), 403);
      assert.equal((await call(service, 'getDevToolsVersion', { id: 'mine', query: `ticket=${ticket}` })).status, 403);
    }
  });

  it('hands out addresses that need nothing else: Puppeteer connects, the live view opens', async () => {
    const browser = await puppeteer.connect({ browserWSEndpoint: mine.cdpUrl ?? '' });
    assert.match(await browser.version(), /^Chrome\//);
    await browser.disconnect();
    const page = await fetch(mine.liveViewUrl ?? '');
    assert.equal(page.status, 200);
    assert.match(await page.text(), /^<!doctype html>/i);
    const asked = await fetch(mine.liveViewUrl ?? '', { headers: { accept: 'application/json' } });
    const { vncUrl } = ((await asked.json()) as { data: { vncUrl: string } }).data;
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
