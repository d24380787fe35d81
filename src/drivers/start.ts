import type { Driver, RuntimeAddress } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';

/** A start as {@link Driver} promises it: what `steps` throw becomes START_FAILED, and nothing is left behind. */
export async function startOrUndo(
  driver: Pick<Driver, 'stop'>,
  id: string,
  steps: () => Promise<RuntimeAddress>,
): Promise<RuntimeAddress> {
  // Whatever an earlier sandbox of this id left, should the service have been killed while it removed that.
  await driver.stop(id);
  try {
    return await steps();
  } catch (err) {
    await driver.stop(id);
    if (err instanceof AppError) throw err;
    const why = err instanceof Error ? err.message : String(err);
    throw new AppError('START_FAILED', `The sandbox did not start: ${why}`, {}, err);
  }
}
