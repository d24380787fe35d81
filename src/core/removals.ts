import type { Driver } from './contracts.ts';

/** How often the driver is asked again to remove what it could not remove, in milliseconds. */
const AGAIN_MS = 5000;

/** Ended sandboxes of which something is left, since their engine was away: asks the driver again until it works. */
export class Removals {
  readonly #driver: Driver;
  readonly #isLive: (id: string) => boolean;
  readonly #ids = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  /** A start of the same id removes what is there by itself, so an id that is live again is forgotten. */
  constructor(driver: Driver, isLive: (id: string) => boolean) {
    this.#driver = driver;
    this.#isLive = isLive;
  }

  add(id: string): void {
    this.#ids.add(id);
    this.#again();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #again(): void {
    clearTimeout(this.#timer);
    if (this.#ids.size === 0 || this.#closed) return;
    this.#timer = setTimeout(async () => {
      for (const id of this.#ids) {
        try {
          if (!this.#isLive(id)) await this.#driver.stop(id);
          this.#ids.delete(id);
        } catch {
          // The engine is still away, or this one resists; the others are not to wait for it.
        }
      }
      this.#again();
    }, AGAIN_MS);
    this.#timer.unref();
  }
}
