/**
 * Large answers that may go on in one turn of the event loop. Each then reads one portion, of 128 KiB at most, so that a turn spends
 * well under a millisecond on them however many there are, and CDP does not wait for all of them.
 */
const PER_TURN = 2;

/** Lets large answers go on in turns, so that many of them together do not hold up what is small and urgent. */
export class Turns {
  readonly #waiting: (() => void)[] = [];
  #due = false;

  /** Calls this in one of the next turns of the event loop. */
  wait(goOn: () => void): void {
    this.#waiting.push(goOn);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#due || this.#waiting.length === 0) return;
    this.#due = true;
    setImmediate(() => {
      this.#due = false;
      for (const goOn of this.#waiting.splice(0, PER_TURN)) goOn();
      this.#schedule();
    });
  }
}
