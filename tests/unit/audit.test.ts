import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import type { AuditQuery } from '../../src/core/contracts.ts';
import { FileAudit } from '../../src/registry/audit.ts';

const folder = mkdtempSync(join(tmpdir(), 'bt-audit-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const errors: object[] = [];
const log = { info() {}, warn() {}, error: (fields: object) => void errors.push(fields) };
let folders = 0;
const newFile = (): string => join(folder, String(folders++), 'audit.jsonl');

describe('the audit log', () => {
  it('has the newest first and finds by each field', async () => {
    let now = 1000;
    const audit = await FileAudit.open(newFile(), log, () => now);
    audit.record({ action: 'sandbox.create', requestId: 'r1', tenant: 'a', keyId: 'k1', sandboxId: 's1' });
    audit.record({ action: 'client.connect', requestId: 'r2', ticketId: 't1', sandboxId: 's1', address: '10.0.0.1' });
    now = 2000;
    audit.record({ action: 'sandbox.stop', requestId: 'r3', tenant: 'b', sandboxId: 's2' });
    const found = async (query: Partial<AuditQuery> = {}): Promise<string> => {
      await audit.close(); // what was recorded has been written
      return (await audit.find({ limit: 10, ...query })).map(({ requestId }) => requestId).join();
    };
    assert.equal(await found(), 'r3,r2,r1');
    assert.equal(await found({ limit: 2 }), 'r3,r2');
    assert.equal(await found({ action: 'client.connect' }), 'r2');
    assert.equal(await found({ tenant: 'a' }), 'r1');
    assert.equal(await found({ keyId: 'k1' }), 'r1');
    assert.equal(await found({ sandboxId: 's1' }), 'r2,r1');
    assert.equal(await found({ since: 2000 }), 'r3');
    assert.equal(await found({ until: 2000 }), 'r2,r1');
    const [, second] = await audit.find({ limit: 10 });
    assert.equal(await found({ before: second?.id ?? '' }), 'r1');
  });

  it('is only ever added to, by restarts too, and keeps its ids in order when the clock goes back', async () => {
    const file = newFile();
    const first = await FileAudit.open(file, log, () => 5000);
    first.record({ action: 'sandbox.create', requestId: 'r1' });
    await first.close();
    const before = readFileSync(file, 'utf8');
    appendFileSync(file, '{"id":"torn');
    const second = await FileAudit.open(file, log, () => 4000);
    second.record({ action: 'sandbox.stop', requestId: 'r2' });
    await second.close();
    assert.ok(readFileSync(file, 'utf8').startsWith(before));
    assert.deepEqual(
      (await second.find({ limit: 10 })).map(({ id }) => id),
      ['5000-1', '5000-0'],
    );
    assert.equal(statSync(file).mode & 0o777, 0o600);
  });

  it('begins a new file when one is large, loses nothing and still finds', async () => {
    const file = newFile();
    const audit = await FileAudit.open(file, log);
    const why = 'x'.repeat(1000);
    for (let i = 0; i < 9000; i++) audit.record({ action: 'access.refused', requestId: `r${i}`, detail: { why } });
    await audit.close();
    const files = readdirSync(join(file, '..'));
    assert.equal(files.length, 2);
    const lines = files.flatMap((name) =>
      readFileSync(join(file, '..', name), 'utf8')
        .trim()
        .split('\n'),
    );
    assert.equal(lines.length, 9000);
    assert.equal((await audit.find({ limit: 1, until: Date.now() + 1000 }))[0]?.requestId, 'r8999');
    const all = await audit.find({ limit: 10_000 });
    assert.deepEqual([all.length, all.at(-1)?.requestId], [9000, 'r0']);
  });

  it("tells the service's own log what it could not write", async () => {
    const file = newFile();
    const audit = await FileAudit.open(file, log);
    rmSync(join(file, '..'), { recursive: true });
    audit.record({ action: 'sandbox.create', requestId: 'lost' });
    await audit.close();
    await new Promise((resolve) => setImmediate(resolve));
    assert.match(JSON.stringify(errors), /"requestId":"lost"/);
  });
});
