import type { SegmentName } from '../core/recording.ts';

/** What the order of recordings depends on. */
export interface Placed extends Pick<SegmentName, 'filename' | 'segment'> {
  /** Unix milliseconds. */
  readonly startedAt: number;
}

/** Newest first; negative when `a` comes before `b`, and 0 only for the same recording. */
export function newestFirst(a: Placed, b: Placed): number {
  return (
    b.startedAt - a.startedAt ||
    b.segment - a.segment ||
    // Two sandboxes may write in the same millisecond; pages need an order that is the same each time.
    (a.filename < b.filename ? -1 : Number(a.filename > b.filename))
  );
}

/** A list that is newest first at all times. Adding and removing move what lies behind, which for 100,000 takes microseconds. */
export class Newest<T extends Placed> {
  #items: T[] = [];

  /** Live: copy it before you change the list while you go through it. */
  get items(): readonly T[] {
    return this.#items;
  }

  /** Adds many at once, sorting once. */
  fill(items: Iterable<T>): void {
    this.#items = [...this.#items, ...items].sort(newestFirst);
  }

  /** In the place of the one that has the same name and start, if there is one. */
  put(item: T): void {
    const at = this.#placeOf(item);
    this.#items.splice(at, this.#items[at]?.filename === item.filename ? 1 : 0, item);
  }

  delete(item: Placed): void {
    const at = this.#placeOf(item);
    if (this.#items[at]?.filename === item.filename) this.#items.splice(at, 1);
  }

  /** The first place that does not come before the item. */
  #placeOf(item: Placed): number {
    let low = 0;
    let high = this.#items.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (newestFirst(this.#items[middle] as T, item) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
