import { describe, it } from 'node:test';
import { dockerSkip } from '../../contract/engine.ts';

/** Runs a file of tests/e2e once more, as it stands, with every sandbox in a container. */
export async function again(name: string, load: () => Promise<unknown>): Promise<void> {
  const skip = await dockerSkip();
  if (skip) {
    describe(`${name} on the Docker driver`, () => {
      it('passes', { skip }, () => {});
    });
    return;
  }
  // Read by tests/e2e/drivers.ts, which the file brings along.
  process.env.BERTH_TEST_DRIVER = 'docker';
  await load();
}
