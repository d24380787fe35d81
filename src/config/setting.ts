/** One row of the table. `parse` throws the rest of the sentence that begins with the setting's name. */
export interface Setting<T = unknown> {
  /** The environment variable. */
  readonly name: string;
  /** The text that stands for an unset or empty variable. */
  readonly default: string;
  /** How the default reads in the table where `default` itself says too little. */
  readonly defaultShown?: string;
  /** What it is, its unit and bounds, and what it can do to whoever sets it wrong: a sentence each, in Markdown. */
  readonly meaning: string;
  readonly danger: string;
  readonly parse: (text: string) => T;
}

/** A whole number within bounds. */
export function parseInteger(text: string, min: number, max: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new Error(`must be a whole number from ${min} to ${max}, not ${JSON.stringify(text)}`);
}

/** One of these words, as it is written. */
export function parseWord<T extends string>(text: string, words: readonly T[]): T {
  const word = words.find((candidate) => candidate === text);
  if (word !== undefined) return word;
  throw new Error(`must be one of ${words.join(', ')}, not ${JSON.stringify(text)}`);
}

/** `true` or `false`. */
export function parseFlag(text: string): boolean {
  return parseWord(text, ['true', 'false'] as const) === 'true';
}

/** An http or https address without a slash at its end; empty is undefined. The text is not repeated in the failure: it may hold a password. */
export function parseAddress(text: string, example: string): string | undefined {
  if (text === '') return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'http:' && url?.protocol !== 'https:') {
    throw new Error(`must be an http or https address, such as ${example}`);
  }
  if (url.username || url.password || /[?#]/.test(text))
    throw new Error('must have no user, password, query or fragment');
  return url.href.replace(/\/+$/, '');
}
