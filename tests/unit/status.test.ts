import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { SandboxStatus } from '../../src/core/sandbox.ts';
import { isStatus } from '../../src/core/status.ts';
import { openRuntimeLink } from '../../src/runtime/link.ts';

const STATUS: SandboxStatus = {
  state: 'READY',
  readyAt: 1,
  changes: { idleTimeoutSeconds: 5, activity: 'any', metadata: { a: 'b' } },
  idleDeadline: null,
  expiresAt: 2,
  clients: 0,
  viewers: 0,
  recorder: { state: 'recording', sessionId: 's', segment: 0 },
  browserRestarts: 0,
  devtools: { port: 1, browserPath: '/devtools/browser/x' },
  vncSocket: '/v',
  stages: { xvfb: 3 },
};

/** What a runtime might say that somebody else has taken over. */
const NONSENSE: readonly unknown[] = [
  null,
  [],
  'READY',
  {},
  ...[
    { state: 'toString' },
    { state: undefined },
    { expiresAt: '2' },
    { expiresAt: 1e300 },
    { readyAt: -1 },
    { clients: null },
    { idleDeadline: undefined },
    { endedReason: 'because' },
    { endingReason: 7 },
    { endedReason: `failed: ${'x'.repeat(2000)}` },
    { recorder: null },
    { recorder: { state: 'on' } },
    { recorder: { state: 'off', error: {} } },
    { devtools: { port: '1', browserPath: '/' } },
    { devtools: { port: 1 } },
    { vncSocket: 5 },
    { browserEnding: false },
    { pooled: 'yes' },
    { stages: null },
    { stages: { xvfb: 'soon' } },
    { changes: null },
    { changes: { owner: 'me' } },
    { changes: { metadata: { a: 1 } } },
    { changes: { idleTimeoutSeconds: '5' } },
  ].map((wrong) => ({ ...STATUS, ...wrong })),
];

describe('a status', () => {
  it('is taken as a runtime writes it', () => {
    assert.ok(isStatus(JSON.parse(JSON.stringify(STATUS))));
    assert.ok(isStatus({ ...STATUS, state: 'FAILED', endedAt: 3, endedReason: 'failed: x\ny', devtools: undefined }));
    assert.ok(isStatus({ ...STATUS, state: 'CREATING', readyAt: undefined, changes: {}, stages: {} }));
  });

  for (const wrong of NONSENSE) {
    const shown = JSON.stringify(wrong).slice(0, 60);
    it(`is not ${shown}`, () => assert.equal(isStatus(wrong), false));
  }

  it('that is none ends the connection, not the service', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bt-link-'));
    const path = join(folder, 's');
    let line = '';
    const server = createServer();
    server.on('upgrade', (_req, socket) => {
      socket.on('error', () => socket.destroy()).on('end', () => socket.destroy());
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: berth-control\r\n\r\n');
      socket.write(`${line}\n`);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const address = { endpoint: { path }, secret: 's', direct: false };
    const open = () => {
      let closed = (): void => {};
      const onClosed = new Promise<void>((resolve) => {
        closed = resolve;
      });
      const link = openRuntimeLink(address, { onStatus: () => {}, onClosed: closed }, AbortSignal.timeout(5000));
      return { link, onClosed };
    };
    try {
      for (const event of [
        null,
        5,
        {},
        { type: 'status' },
        ...NONSENSE.map((status) => ({ type: 'status', status })),
      ]) {
        line = JSON.stringify(event);
        await assert.rejects(open().link, /closed the control connection/, line);
      }
      line = JSON.stringify({ type: 'status', status: STATUS });
      const { link, onClosed } = open();
      assert.deepEqual((await link).status, STATUS);
      (await link).close();
      await onClosed;
    } finally {
      server.close();
      rmSync(folder, { recursive: true });
    }
  });
});
