import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AppError } from '../../src/core/errors.ts';
import { Screenshots } from '../../src/core/screenshots.ts';

/** A camera that takes a picture when it is told to. */
function camera() {
  const waiting: (() => void)[] = [];
  let taken = 0;
  return {
    waiting,
    get taken() {
      return taken;
    },
    take: (): Promise<Buffer> =>
      new Promise((resolve) => {
        taken += 1;
        waiting.push(() => resolve(Buffer.from('picture')));
      }),
  };
}

describe('Pictures of screens', () => {
  it('are shared by all who ask for the same one.', async () => {
    const { waiting, take } = camera();
    const screenshots = new Screenshots();
    const all = Promise.all([screenshots.get('a', take), screenshots.get('a', take)]);
    assert.equal(waiting.length, 1);
    waiting[0]?.();
    const [one, other] = await all;
    assert.equal(one, other);
    assert.equal(await screenshots.get('a', take), one, 'also for a moment after');
  });

  it('are taken two at a time, in turn, and too many are refused.', async () => {
    const photographer = camera();
    const screenshots = new Screenshots();
    const all = Array.from({ length: 66 }, (_, i) => screenshots.get(String(i), photographer.take));
    assert.equal(photographer.taken, 2);
    await assert.rejects(
      screenshots.get('one more', photographer.take),
      (err) => err instanceof AppError && err.errorName === 'NO_CAPACITY' && err.headers['Retry-After'] !== undefined,
    );
    for (let done = 0; done < 66; done++) {
      photographer.waiting[done]?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal((await Promise.all(all)).length, 66);
  });

  it('that fail are forgotten at once.', async () => {
    const screenshots = new Screenshots();
    await assert.rejects(
      screenshots.get('a', () => Promise.reject(new Error('no screen'))),
      /no screen/,
    );
    assert.equal((await screenshots.get('a', async () => Buffer.from('x'))).toString(), 'x');
  });
});
