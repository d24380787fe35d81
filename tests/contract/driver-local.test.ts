import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LocalDriver } from '../../src/drivers/local.ts';
import { pidsBelow } from '../e2e/drivers.ts';
import { driverContract } from './driver.ts';
import { EgressBook } from './egress-book.ts';

driverContract('local', async () => {
  const base = mkdtempSync(join(tmpdir(), 'bt-'));
  chmodSync(base, 0o711);
  const runDir = join(base, 'r');
  const dataDir = join(base, 'd');
  const egress = new EgressBook();
  const make = (): LocalDriver =>
    new LocalDriver({
      runDir,
      dataDir,
      runtimeProgram: fileURLToPath(new URL('../../cmd/runtime.js', import.meta.url)),
      chromium: '/usr/bin/chromium',
      masterKey: Buffer.alloc(32, 7),
      startTimeoutSeconds: 40,
      downloadsMb: 100,
      egress,
      env: { PATH: process.env.PATH ?? '' },
      warn: () => {},
    });
  const driver = make();
  return {
    driver,
    egress,
    again: make,
    async leftovers() {
      return [...pidsBelow(runDir).map((pid) => `process ${pid}`), ...readdirSync(runDir)];
    },
    async clean() {
      for (const found of await driver.list()) await driver.stop(found.spec.id);
      rmSync(base, { recursive: true, force: true });
    },
  };
});
