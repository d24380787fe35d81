import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { Driver } from '../../src/core/contracts.ts';
import { Removals } from '../../src/core/removals.ts';

it('asks again for each sandbox, also behind one that resists', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const asked: string[] = [];
  const stop = async (id: string): Promise<void> => {
    asked.push(id);
    if (id === 'stuck') throw new Error('it does not go away');
  };
  const removals = new Removals({ stop } as unknown as Driver, (id) => id === 'live');
  for (const id of ['stuck', 'free', 'live']) removals.add(id);
  for (let i = 0; i < 2; i++) {
    t.mock.timers.tick(5000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual(asked, ['stuck', 'free', 'stuck']);
  removals.close();
});
