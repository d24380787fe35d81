import type { Io, Terminal } from './io.ts';

/** Words in colours, where there is somebody to see them. */
export interface Paint {
  green(text: string): string;
  yellow(text: string): string;
  red(text: string): string;
  dim(text: string): string;
  bold(text: string): string;
}

/** Colours only on a terminal, not where `NO_COLOR` (no-color.org) or `--no-color` asks for none. */
export function paintFor(io: Io, stream: Terminal, wanted: boolean): Paint {
  const on = wanted && stream.isTTY === true && !io.env.NO_COLOR && io.env.TERM !== 'dumb';
  const paint =
    (code: number, end: number) =>
    (text: string): string =>
      on ? `\u001b[${code}m${text}\u001b[${end}m` : text;
  return { green: paint(32, 39), yellow: paint(33, 39), red: paint(31, 39), dim: paint(2, 22), bold: paint(1, 22) };
}

/**
 * Text that others chose, made harmless for a terminal: metadata, titles and file names may hold escape sequences that move the
 * cursor, rename the window or answer on stdin.
 */
export function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, '\ufffd');
}

/** JSON for programs, and safe to look at: C1 controls and DEL are the ones that JSON.stringify lets through. */
export function json(value: unknown, indent?: number): string {
  return JSON.stringify(value, undefined, indent).replace(
    /[\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** Columns as wide as their widest cell, two spaces between them, and none at the end of a line. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  paint?: (cell: string, column: number) => string,
): string {
  const cells = [head, ...rows].map((row) => row.map(plain));
  const widths = head.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  return cells
    .map((row, index) => {
      const line = row.map((cell, column) => {
        const padding = ' '.repeat(column === row.length - 1 ? 0 : (widths[column] ?? 0) - cell.length);
        return `${index > 0 && paint ? paint(cell, column) : cell}${padding}`;
      });
      return `${line.join('  ').trimEnd()}\n`;
    })
    .join('');
}

/** `name: value` lines, the values below each other. */
export function fields(rows: readonly (readonly [name: string, value: string | undefined])[]): string {
  const given = rows.filter((row): row is readonly [string, string] => row[1] !== undefined && row[1] !== '');
  const width = Math.max(...given.map(([name]) => name.length)) + 1;
  return given.map(([name, value]) => `${`${name}:`.padEnd(width)} ${plain(value)}\n`).join('');
}

/** A span of time in its two largest units, such as `3m 20s`. */
export function duration(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const parts = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'm'],
    [seconds % 60, 's'],
  ] as const;
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return '0s';
  const shown = parts.slice(first, first + 2).filter(([count]) => count > 0);
  return shown.map(([count, unit]) => `${count}${unit}`).join(' ');
}

/** How much, such as `1.4 MB`. */
export function size(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let amount = bytes;
  let unit = 0;
  while (amount >= 1000 && unit < units.length - 1) {
    amount /= 1000;
    unit++;
  }
  return `${unit === 0 || amount >= 100 ? Math.round(amount) : amount.toFixed(1)} ${units[unit]}`;
}
