import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, get, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Counters } from '../../src/core/counters.ts';
import type { Sandboxes } from '../../src/core/sandboxes.ts';
import { Gateway } from '../../src/gateway/server.ts';
import { Turns } from '../../src/gateway/turns.ts';
import { noAudit, openAccess } from './doors.ts';

const MIB = 1024 * 1024;

describe('Turns', () => {
  it('lets all go on, in order, a few in a turn', async () => {
    const turns = new Turns();
    const order: number[] = [];
    let most = 0;
    await new Promise<void>((resolve) => {
      for (let i = 0; i < 10; i++) turns.wait(() => order.push(i));
      let before = 0;
      const look = (): void => {
        most = Math.max(most, order.length - before);
        before = order.length;
        if (before === 10) resolve();
        else setImmediate(look);
      };
      look();
    });
    assert.deepEqual(order, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.ok(most <= 2, `${most} in one turn`);
  });
});

describe('downloads through the gateway', { timeout: 60_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'bt-'));
  const counters = new Counters();
  const file = randomBytes(4 * MIB);
  let api: Server;
  let gateway: Gateway;
  let port: number;

  before(async () => {
    const apiSocket = join(folder, 'api');
    api = createServer((req, res) => {
      if (req.url === '/sized') res.setHeader('content-length', file.length);
      res.end(file);
    });
    await new Promise<void>((resolve) => api.listen(apiSocket, resolve));
    const log = { info() {}, warn() {}, error() {} };
    const access = openAccess();
    gateway = new Gateway({ access, sandboxes: {} as Sandboxes, apiSocket, counters, audit: noAudit, log });
    port = await gateway.listen('127.0.0.1', 0);
  });
  after(async () => {
    gateway.close();
    await new Promise((resolve) => api.close(resolve));
    rmSync(folder, { recursive: true });
  });

  const download = (path: string): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      get({ host: '127.0.0.1', port, path, agent: false }, (answer) => {
        const parts: Buffer[] = [];
        answer.on('data', (part: Buffer) => parts.push(part)).once('error', reject);
        answer.once('end', () => resolve(Buffer.concat(parts)));
      }).once('error', reject);
    });

  // The first parts of answers without a length may all come in one turn.
  for (const [path, limit] of [
    ['/sized', MIB],
    ['/chunked', 4 * MIB],
  ] as const) {
    it(`are whole, and pass in small portions however many there are: ${path}`, async () => {
      let most = 0;
      let passed = counters.bytes.http.out;
      let ended = false;
      const look = (): void => {
        most = Math.max(most, counters.bytes.http.out - passed);
        passed = counters.bytes.http.out;
        if (!ended) setImmediate(look);
      };
      look();
      const all = await Promise.all(Array.from({ length: 50 }, () => download(path)));
      ended = true;
      for (const one of all) assert.ok(one.equals(file), 'the file is whole');
      assert.ok(most < limit, `${most} bytes in one turn of the event loop`);
    });
  }
});
