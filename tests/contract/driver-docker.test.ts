import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { driverContract } from './driver.ts';
import { EgressBook } from './egress-book.ts';
import { containersIn, DockerDriver, dockerOptions, dockerSkip } from './engine.ts';

const skip = await dockerSkip();

if (skip) {
  describe('the docker driver', () => {
    it('passes the contract', { skip }, () => {});
  });
} else {
  driverContract('docker', async () => {
    const egress = new EgressBook();
    const options = dockerOptions({ egress });
    const driver = new DockerDriver(options);
    return {
      driver,
      egress,
      again: () => new DockerDriver(options),
      async leftovers() {
        const folders = existsSync(options.runDir) ? readdirSync(options.runDir) : [];
        return [...(await containersIn(options.runDir)), ...folders];
      },
      async clean() {
        for (const found of await driver.list()) await driver.stop(found.spec.id);
        rmSync(join(options.runDir, '..'), { recursive: true, force: true });
      },
    };
  });
}
