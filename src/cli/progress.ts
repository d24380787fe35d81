import type { Terminal } from './io.ts';
import { duration, size } from './output.ts';

/** How often a line is drawn anew, in milliseconds. */
const EVERY_MS = 100;
const BAR_WIDTH = 24;

/** A line on a terminal that tells how far something is, and goes when it is done. Where there is no terminal it says nothing. */
export class Progress {
  readonly #terminal: Terminal;
  readonly #since = performance.now();
  readonly #timer: NodeJS.Timeout | undefined;
  #text: () => string;

  /** Counts the seconds behind `what`. */
  constructor(terminal: Terminal, what: string) {
    this.#terminal = terminal;
    this.#text = () => `${what} ${duration(performance.now() - this.#since)}`;
    if (terminal.isTTY) {
      this.#draw();
      this.#timer = setInterval(() => this.#draw(), EVERY_MS).unref();
    }
  }

  /** From now on a bar, and bytes a second; `done` answers the bytes so far. Without `bytes` there is no end to measure by. */
  transfer(what: string, done: () => number, bytes: number | undefined): void {
    this.#text = () => {
      const seconds = (performance.now() - this.#since) / 1000;
      const rate = seconds > 0.5 ? ` ${size(done() / seconds)}/s` : '';
      // An estimate may be exceeded; a bar may not.
      const part = bytes ? Math.min(1, done() / bytes) : undefined;
      if (part === undefined) return `${what} ${size(done())}${rate}`;
      const full = Math.round(part * BAR_WIDTH);
      const bar = `${'#'.repeat(full)}${'-'.repeat(BAR_WIDTH - full)}`;
      return `${what} [${bar}] ${Math.floor(part * 100)}% ${size(done())}${rate}`;
    };
  }

  /** Takes the line away. */
  end(): void {
    if (!this.#timer) return;
    clearInterval(this.#timer);
    this.#terminal.write('\r\u001b[K');
  }

  #draw(): void {
    // Longer than the line it would wrap, and the next drawing would not cover it.
    const width = Math.max(20, (this.#terminal.columns || 80) - 1);
    this.#terminal.write(`\r${this.#text().slice(0, width)}\u001b[K`);
  }
}
