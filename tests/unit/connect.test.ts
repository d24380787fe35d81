import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { WebSocketServer } from 'ws';
import { Counters } from '../../src/core/counters.ts';
import { AppError } from '../../src/core/errors.ts';
import type { Attachment } from '../../src/core/presence.ts';
import type { Sandboxes } from '../../src/core/sandboxes.ts';
import { connectSandbox, type GatewayOptions } from '../../src/gateway/connect.ts';
import { noAudit, openAccess } from './doors.ts';

/** A sandbox whose browsers are these, one after the other; each is had by those who do not want the one before it. */
function options(ports: readonly number[], asked: (string | undefined)[]): GatewayOptions {
  const attach = async (_id: string, _record: boolean, _signal: AbortSignal, not?: string) => {
    asked.push(not);
    const index = asked.length - 1;
    const port = ports[index];
    if (port === undefined) throw new AppError('SANDBOX_ENDED', 'it has ended');
    const way = { endpoint: { host: '127.0.0.1', port }, prefix: '' };
    return { way, browserPath: `/browser/${index}`, active() {}, detach() {} } as unknown as Attachment;
  };
  const sandboxes = { find: () => ({ spec: {} }), attach } as unknown as Sandboxes;
  const log = { info() {}, warn() {}, error() {} };
  return { access: openAccess(), sandboxes, apiSocket: '', counters: new Counters(), audit: noAudit, log };
}

const request = {
  requestId: 'r',
  path: '/sandboxes/x/ws/automation',
  query: new URLSearchParams(),
  headers: { host: 'localhost' },
  address: '127.0.0.1',
};
/** Nothing listens there. */
const DEAD = 1;

describe('A client that comes while browsers die', () => {
  it('gets the first one that lives, however many died before it', async () => {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
    await once(server, 'listening');
    try {
      const { port } = server.address() as AddressInfo;
      const asked: (string | undefined)[] = [];
      const connected = new Promise((resolve) => server.once('connection', (_socket, req) => resolve(req.url)));
      const bridge = await connectSandbox(options([DEAD, DEAD, port], asked), request, new AbortController().signal);
      assert.equal(await connected, '/browser/2');
      assert.deepEqual(asked, [undefined, '/browser/0', '/browser/1']);
      bridge.abandon();
    } finally {
      for (const client of server.clients) client.terminate();
      server.close();
    }
  });

  it('is told why there is none when the sandbox ends meanwhile', async () => {
    const asked: (string | undefined)[] = [];
    const refused = connectSandbox(options([DEAD, DEAD], asked), request, new AbortController().signal);
    await assert.rejects(refused, { errorName: 'SANDBOX_ENDED' });
    assert.equal(asked.length, 3);
  });
});
