/** What may stand behind a flag. Each throws commander's InvalidArgumentError, a sentence about what is wanted instead. */
import { InvalidArgumentError, Option } from 'commander';

/** Seconds, or with a unit: `90`, `90s`, `30m`, `2h`, `1d`. */
export function seconds(text: string): number {
  const [, amount, unit = 's'] = /^(\d{1,9})([smhd]?)$/.exec(text) ?? [];
  if (amount === undefined) throw new InvalidArgumentError('It is seconds, or a time such as 30m or 2h.');
  return Number(amount) * ({ s: 1, m: 60, h: 3600, d: 86_400 }[unit || 's'] ?? 1);
}

export function whole(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('It is a whole number.');
  return Number(text);
}

export function decimal(text: string): number {
  if (!/^\d{1,9}(\.\d{1,9})?$/.test(text)) throw new InvalidArgumentError('It is a number such as 0.5.');
  return Number(text);
}

/** `1280x720` */
export function viewport(text: string): { width: number; height: number } {
  const [, width, height] = /^(\d{1,5})x(\d{1,5})$/.exec(text) ?? [];
  if (width === undefined) throw new InvalidArgumentError('It is a size such as 1280x720.');
  return { width: Number(width), height: Number(height) };
}

/** `key=value`, as often as wanted. */
export function entry(text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('It is key=value.');
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}

/** A moment that the service understands: ISO 8601. */
export function moment(text: string): string {
  const at = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(at)) throw new InvalidArgumentError('It is a time such as 2026-01-31 or 2026-01-31T08:00:00Z.');
  return new Date(at).toISOString();
}

/** An option that takes one of a few words. */
export function oneOf(flags: string, meaning: string, words: readonly string[]): Option {
  return new Option(flags, meaning).choices(words);
}
