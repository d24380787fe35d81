import { AppError } from './errors.ts';

/** How long a picture of a screen counts as new, in milliseconds: many people may look at one list. */
const FRESH_MS = 3000;
/** Each takes a tenth of a second of one core, so a list of hundreds must not take them all at once. */
const AT_ONCE = 2;
/** Most that may wait for their turn; the next one is refused. */
const MAX_WAITING = 64;

/** Pictures of screens: taken two at a time, shared by all who ask within three seconds, and then forgotten. */
export class Screenshots {
  readonly #kept = new Map<string, Promise<Buffer>>();
  readonly #waiting: (() => void)[] = [];
  #busy = 0;

  /** `key` says of what. Throws NO_CAPACITY when too many wait, and what `take` throws. */
  get(key: string, take: () => Promise<Buffer>): Promise<Buffer> {
    const before = this.#kept.get(key);
    if (before) return before;
    const picture = this.#inTurn(take);
    this.#kept.set(key, picture);
    const forget = (): void => void this.#kept.delete(key);
    picture.then(() => setTimeout(forget, FRESH_MS).unref(), forget);
    return picture;
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#busy >= AT_ONCE) {
      if (this.#waiting.length >= MAX_WAITING)
        throw new AppError('NO_CAPACITY', `${MAX_WAITING} pictures of screens are waited for already.`, {
          'Retry-After': '2',
        });
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else this.#busy += 1;
    try {
      return await work();
    } finally {
      // The place is handed on, or is free.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#busy -= 1;
    }
  }
}
