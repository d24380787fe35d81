/** Every operation of openapi.yaml, and every WebSocket, tried with every kind of credential. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Sandbox } from '../../src/client/client.ts';
import { type Answer, type Call, call, contract } from './contract.ts';
import { LIMIT, type Service, startService, UNLIMITED, waitFor } from './service.ts';
import { socketOf, upgrade } from './sockets.ts';

const KEYS = {
  viewer: 'key-viewer-1679091c5a880f',
  user: 'key-user-8f14e45fceea167a',
  stranger: 'key-stranger-c9f0f895fb98',
  admin: 'key-admin-45c48cce2e2d7fb',
  unknown: 'key-nobody-knows-d3d94468',
};
const TICKETS = ['automation', 'control', 'view'] as const;
type Who = keyof typeof KEYS | 'nobody' | (typeof TICKETS)[number] | 'ticket of another';
const EVERYBODY: readonly Who[] = ['nobody', ...(Object.keys(KEYS) as Who[]), ...TICKETS, 'ticket of another'];

type Outcome = 'allowed' | 401 | 403 | 404;

/** Who may, of those who are known; of everybody else see {@link expected}. */
interface Rule {
  readonly viewer: 'allowed' | 403;
  /** Of a user with another's sandbox, or of any user where only admins may. */
  readonly user?: 403;
  readonly tickets?: readonly (typeof TICKETS)[number][];
  /** Names no sandbox or recording, so it is each tenant's own affair. */
  readonly nobodys?: true;
}

const LOOK: Rule = { viewer: 'allowed' };
const CHANGE: Rule = { viewer: 403 };
const ADMIN: Rule = { viewer: 403, user: 403 };
const PUBLIC = ['getHealth', 'getReadiness', 'getOpenapi', 'getDocs', 'getConsole'];

/** Operations that are not simply a look (GET) or a change (everything else) by somebody of the sandbox's tenant. */
const RULES: Readonly<Record<string, Rule>> = {
  listSandboxes: { ...LOOK, nobodys: true },
  createSandbox: { ...CHANGE, nobodys: true },
  listRecordings: { ...LOOK, nobodys: true },
  listEvents: { ...LOOK, nobodys: true },
  getSession: { ...LOOK, nobodys: true },
  beginSession: { ...LOOK, nobodys: true },
  endSession: { ...LOOK, nobodys: true },
  listSessions: { ...LOOK, nobodys: true },
  listTemplates: { ...LOOK, nobodys: true },
  getMetrics: ADMIN,
  getStats: ADMIN,
  listAudit: ADMIN,
  // They answer with what drives the browser, or say who may.
  getDevToolsVersion: { ...CHANGE, tickets: ['automation'] },
  listDevToolsTargets: { ...CHANGE, tickets: ['automation'] },
  getDevToolsProtocol: { ...CHANGE, tickets: ['automation'] },
  listTickets: CHANGE,
  getLivePage: { ...LOOK, tickets: ['control', 'view'] },
  listViewers: { ...LOOK, tickets: ['control'] },
  giveControl: { ...CHANGE, tickets: ['control'] },
  releaseControl: { ...CHANGE, tickets: ['control'] },
};

/** Last, since nothing is left to try afterwards. */
const ENDS = [
  'deleteSandboxRecording',
  'deleteRecording',
  'revokeTicket',
  'revokeTickets',
  'stopSandbox',
  'deleteSandbox',
];

function expected(rule: Rule, takesTickets: boolean, who: Who): Outcome {
  if (who === 'nobody' || who === 'unknown') return 401;
  if (who === 'admin') return 'allowed';
  if (who === 'viewer') return rule.viewer;
  if (who === 'user') return rule.user ?? 'allowed';
  if (who === 'stranger') return rule.user ?? (rule.nobodys ? 'allowed' : 404);
  if (!takesTickets) return 401;
  return who !== 'ticket of another' && rule.tickets?.includes(who) ? 'allowed' : 403;
}

describe('every operation with every credential', { timeout: 3 * LIMIT.timeout }, () => {
  let service: Service;
  let recording: string;
  /** Of another session: two operations delete one each. */
  let second: string;
  const tickets = new Map<Who, string>();

  before(async () => {
    const { viewer, user, stranger, admin } = KEYS;
    const keys = `a:${viewer}:viewer,a:${user},b:${stranger},ops:${admin}:admin`;
    service = await startService({ env: { ...UNLIMITED, BERTH_API_KEYS: keys } });
    const created = (sandboxId: string): Promise<Answer> =>
      call(service, 'createSandbox', { key: user, body: { sandboxId, recording: 'always' } });
    assert.deepEqual(
      (await Promise.all([created('mine'), created('other')])).map(({ status }) => status),
      [201, 201],
    );
    const list = async (): Promise<string | undefined> =>
      (await call(service, 'listSandboxRecordings', { key: user, id: 'mine' })).json.recordings[0]?.filename;
    await waitFor(async () => (await list()) !== undefined, 'the recording to begin');
    recording = (await list()) as string;
    assert.equal((await call(service, 'stopRecording', { key: user, id: 'mine' })).status, 200);
    assert.equal((await call(service, 'startRecording', { key: user, id: 'mine' })).status, 200);
    await waitFor(async () => (await list()) !== recording, 'the second recording to begin');
    second = (await list()) as string;
    const picture = { key: user, id: 'mine', filename: recording };
    await waitFor(async () => (await call(service, 'getSandboxPoster', picture)).status === 200, 'the poster');
    for (const role of TICKETS) tickets.set(role, await ticketFor('mine', role));
  });
  after(() => service.end());

  const ticketFor = async (id: string, role: string): Promise<string> =>
    (await call(service, 'createTicket', { key: KEYS.user, id, body: { role } })).json.data.ticket;

  async function credential(who: Who, role: string): Promise<Call> {
    if (who === 'nobody') return {};
    if (who in KEYS) return { key: KEYS[who as keyof typeof KEYS] };
    const ticket = who === 'ticket of another' ? await ticketFor('other', role) : tickets.get(who);
    return { query: `ticket=${ticket}` };
  }

  function outcome(answer: Answer): Outcome {
    if (answer.status === 401 || answer.status === 403) return answer.status;
    const notThere = [2001, 3002].includes(answer.json?.code);
    return notThere ? 404 : 'allowed';
  }

  const operations = [...contract.operations.keys()].filter((id) => !ENDS.includes(id));
  for (const id of [...operations, ...ENDS]) {
    it(id, async () => {
      const { method, path } = contract.operations.get(id) ?? assert.fail();
      const rule = RULES[id] ?? (method === 'get' ? LOOK : CHANGE);
      // Where tickets count, one that does not fit is FORBIDDEN; elsewhere nothing was presented at all.
      const takesTickets = rule.tickets !== undefined;
      const filename = path.includes('{sessionId}')
        ? recording.replace(/_seg.*/, '')
        : id === 'deleteRecording'
          ? second
          : recording;
      const names = { id: 'mine', filename, page: 'ABC', ticketId: 'none', viewerId: 'none' };
      // Those who may come last: they end what the others are to be refused.
      const order = [...EVERYBODY].sort((x, y) => Number(mayDo(x)) - Number(mayDo(y)));
      function mayDo(who: Who): boolean {
        return expected(rule, takesTickets, who) === 'allowed';
      }
      let gone = false;
      for (const who of order) {
        const given = await credential(who, rule.tickets?.[0] ?? 'automation');
        const answer = await call(service, id, {
          ...names,
          ...given,
          ...(bodyOf(id) ? { body: bodyOf(id) as object } : {}),
        });
        const wanted = PUBLIC.includes(id) ? 'allowed' : expected(rule, takesTickets, who);
        if (gone) {
          assert.equal(answer.json?.code, 3002, 'it was deleted by the one before');
          continue;
        }
        gone = /^delete.*Recording$/.test(id) && wanted === 'allowed';
        assert.equal(outcome(answer), wanted, `${id} by ${who}: ${answer.status} ${answer.text.slice(0, 300)}`);
      }
    });
  }

  /** Such that it changes nothing that matters here when it is allowed. */
  function bodyOf(id: string): object | undefined {
    if (id === 'createSandbox') return { templateName: 'no-such-template' };
    if (id === 'createTicket') return { role: 'view', ttlSeconds: 1 };
    return method(id) === 'patch' ? { metadata: {} } : undefined;
  }
  const method = (id: string): string | undefined => contract.operations.get(id)?.method;
});

describe('every WebSocket with every credential', LIMIT, () => {
  let service: Service;
  before(async () => {
    const { viewer, user, stranger, admin } = KEYS;
    const keys = `a:${viewer}:viewer,a:${user},b:${stranger},ops:${admin}:admin`;
    service = await startService({ env: { ...UNLIMITED, BERTH_API_KEYS: keys } });
    for (const sandboxId of ['mine', 'other']) {
      const { status } = await call(service, 'createSandbox', { key: KEYS.user, body: { sandboxId } });
      assert.equal(status, 201);
    }
  });
  after(() => service.end());

  const SOCKETS: readonly (readonly [path: string, Rule])[] = [
    ['ws/automation', { viewer: 403, tickets: ['automation'] }],
    ['devtools/browser/ABC', { viewer: 403, tickets: ['automation'] }],
    ['devtools/page/ABC', { viewer: 403, tickets: ['automation'] }],
    ['ws/livestream', { viewer: 'allowed', tickets: ['control', 'view'] }],
    ['ws/liveview', { viewer: 'allowed', tickets: ['control', 'view'] }],
  ];
  for (const [path, rule] of SOCKETS) {
    it(path, async () => {
      const [target] = (await call(service, 'listDevToolsTargets', { key: KEYS.user, id: 'mine' })).json;
      const page = path.replace('page/ABC', `page/${target.id}`);
      for (const who of EVERYBODY) {
        const role = rule.tickets?.[0] ?? 'automation';
        const id = who === 'ticket of another' ? 'other' : 'mine';
        const asked = who in KEYS || who === 'nobody' ? undefined : { role: id === 'other' ? role : who };
        const made = asked && (await call(service, 'createTicket', { key: KEYS.user, id, body: asked }));
        const query = made ? `?ticket=${made.json.data.ticket}` : '';
        const headers = who in KEYS ? { 'x-api-key': KEYS[who as keyof typeof KEYS] } : {};
        const status = await upgrade(
          `${socketOf(service.url)}/sandboxes/mine/${page}${query}`,
          headers as Record<string, string>,
        );
        const wanted = expected(rule, true, who);
        const got = status === 101 ? 'allowed' : status;
        assert.equal(got, wanted, `${path} by ${who}`);
      }
      const { data } = (await call(service, 'getSandbox', { key: KEYS.user, id: 'mine' })).json as { data: Sandbox };
      assert.equal(data.status, 'READY');
    });
  }
});
