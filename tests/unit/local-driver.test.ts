import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { LocalDriver } from '../../src/drivers/local.ts';
import { EgressBook } from '../contract/egress-book.ts';

const dir = mkdtempSync(join(tmpdir(), 'berth-local-'));
// As root each sandbox is a user of its own, who has to get to its folder.
chmodSync(dir, 0o711);
after(() => rmSync(dir, { recursive: true, force: true }));

/** Starts sandboxes that find ever more free file descriptors when they come to their runtime, from none on. */
const PROGRAM = `
import fs from 'node:fs';
import { LocalDriver } from '${new URL('../../src/drivers/local.js', import.meta.url).href}';
import { DEFAULTS } from '${new URL('../../src/core/sandbox.js', import.meta.url).href}';
const driver = new LocalDriver({
  runDir: '${dir}/run', dataDir: '${dir}/data', runtimeProgram: '${dir}/none.js', chromium: '/bin/true',
  masterKey: Buffer.alloc(32), startTimeoutSeconds: 5, downloadsMb: 1, env: { PATH: process.env.PATH }, warn() {},
  egress: { async open() {}, async close() {} },
});
const spec = { id: 'x', owner: '', templateName: 'default', createdAt: 1, ...DEFAULTS, metadata: {} };
const why = new Set();
for (let free = 0; free < 8; free++) {
  const taken = [];
  // Asked just before the runtime is started.
  const throwIfAborted = () => {
    try {
      for (;;) taken.push(fs.openSync('/dev/null'));
    } catch {}
    for (const fd of taken.splice(0, free)) fs.closeSync(fd);
    queueMicrotask(() => taken.forEach((fd) => fs.closeSync(fd)));
  };
  const signal = { throwIfAborted, addEventListener() {}, removeEventListener() {} };
  await driver.start(spec, signal).catch((err) => why.add(err.message));
}
console.log([...why].join('\\n'));
`;

describe('the local driver', () => {
  it('fails a start, and not the service, when file descriptors run out', { timeout: 30_000 }, async () => {
    const line = ['-c', 'ulimit -n 200; exec "$0" --input-type=module -e "$1"', process.execPath, PROGRAM];
    const { stdout } = await promisify(execFile)('bash', line);
    assert.match(stdout, /spawn.*EMFILE/);
  });

  it('finds sandboxes beside words of an end and of a claim that a loss of power has cut off', async () => {
    const [runDir, dataDir] = [join(dir, 'run2'), join(dir, 'data2')];
    const driver = new LocalDriver({
      runDir,
      dataDir,
      runtimeProgram: '',
      chromium: undefined,
      masterKey: Buffer.alloc(32),
      startTimeoutSeconds: 1,
      downloadsMb: 1,
      egress: new EgressBook(),
      env: { PATH: '' },
      warn() {},
    });
    const box = join(runDir, '0123456789ab');
    mkdirSync(box, { recursive: true });
    writeFileSync(join(box, 'runtime.json'), JSON.stringify({ spec: { id: 'y' } }));
    writeFileSync(join(box, 'claim.json'), '');
    mkdirSync(join(dataDir, 'ended'), { recursive: true });
    writeFileSync(join(dataDir, 'ended', 'x.json'), '');
    const found = await driver.list();
    assert.deepEqual([found.map(({ spec }) => spec.id), readdirSync(join(dataDir, 'ended'))], [['y'], []]);
    assert.equal(await driver.autopsy('x'), undefined);
  });
});
