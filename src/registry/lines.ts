import { appendFile, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

/** One file of JSON lines, written one after another. A torn last line (kill -9, full disk) costs that line alone. */
export class LineFile {
  readonly #file: string;
  #count = 0;
  #writing: Promise<void> = Promise.resolve();

  private constructor(file: string) {
    this.#file = file;
  }

  /** With what the file holds, oldest first; lines that are not JSON are left out. One that is not there is empty. */
  static async open(file: string): Promise<{ readonly lines: LineFile; readonly values: unknown[] }> {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    const text = await readFile(file, 'utf8').catch((err: NodeJS.ErrnoException) => {
      if (err.code === 'ENOENT') return '';
      throw err;
    });
    const lines = new LineFile(file);
    const values = parseLines(text);
    lines.#count = values.length;
    // Else the next line would run into a torn one.
    if (text !== '' && !text.endsWith('\n')) await appendFile(file, '\n');
    return { lines, values };
  }

  /** Lines in the file. */
  get count(): number {
    return this.#count;
  }

  /**
   * Resolves when it is written. A failure is this caller's, and the next line is tried all the same. With `aside` the file
   * is moved there first, and the line is the first of a new one.
   */
  append(value: unknown, aside?: string): Promise<void> {
    return this.#inTurn(async () => {
      if (aside !== undefined) await rename(this.#file, aside);
      if (aside !== undefined) this.#count = 0;
      await appendFile(this.#file, `${JSON.stringify(value)}\n`, { mode: 0o600 });
      this.#count += 1;
    });
  }

  /** Replaces the file by what `values` answers when it is this call's turn. */
  rewrite(values: () => readonly unknown[]): Promise<void> {
    return this.#inTurn(async () => {
      const lines = values().map((value) => `${JSON.stringify(value)}\n`);
      await writeFile(`${this.#file}.tmp`, lines.join(''), { mode: 0o600 });
      await rename(`${this.#file}.tmp`, this.#file);
      this.#count = lines.length;
    });
  }

  /** Resolves when all that was asked for is written or has failed. */
  async close(): Promise<void> {
    await this.#writing;
  }

  #inTurn(write: () => Promise<void>): Promise<void> {
    const turn = this.#writing.then(write);
    this.#writing = turn.catch(() => {});
    return turn;
  }
}

/** The values of those lines that hold one. */
export function parseLines(text: string): unknown[] {
  return text.split('\n').flatMap((line) => {
    if (line === '') return [];
    try {
      return [JSON.parse(line) as unknown];
    } catch {
      return []; // a torn line
    }
  });
}
