/** The same numbers in every run with the same seed. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
    for (let i = 0; i < 10; i++) this.next();
  }

  /** 0 to 1, without 1. Mulberry32: neighbouring seeds give unlike numbers. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  chance(of: number): boolean {
    return this.next() < of;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  bytes(length: number): Buffer {
    const data = Buffer.alloc(length);
    for (let i = 0; i < length; i += 1 + this.below(4)) data[i] = this.below(256);
    return data;
  }

  /** Mostly short, and often at the edges of the three forms of a length. */
  length(): number {
    const kind = this.next();
    if (kind < 0.6) return this.below(200);
    if (kind < 0.8) return this.pick([0, 1, 124, 125, 126, 127, 128, 65_534, 65_535, 65_536, 65_537]);
    return Math.floor(this.next() ** 3 * 200_000);
  }

  text(length: number): Buffer {
    const characters = ['a', '{"id":', 'é', '€', '😀', '\u0000', '\u{10ffff}'];
    const word = Array.from({ length: 20 }, () => this.pick(characters)).join('');
    return Buffer.from(word.repeat(Math.ceil(length / 20)).slice(0, length));
  }
}
