import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { driverContract } from './driver.ts';
import { containersOn, DockerDriver, dockerOptions, dockerSkip } from './engine.ts';

const skip = await dockerSkip();

if (skip) {
  describe('the docker driver', () => {
    it('passes the contract', { skip }, () => {});
  });
} else {
  driverContract('docker', async () => {
    const options = dockerOptions();
    const driver = new DockerDriver(options);
    return {
      driver,
      again: () => new DockerDriver(options),
      async leftovers() {
        const folders = existsSync(options.runDir) ? readdirSync(options.runDir) : [];
        return [...(await containersOn(options.network)), ...folders];
      },
      async clean() {
        for (const found of await driver.list()) await driver.stop(found.spec.id);
        await driver.close();
        rmSync(join(options.runDir, '..'), { recursive: true, force: true });
      },
    };
  });
}
