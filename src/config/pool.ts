import type { PoolSize } from '../core/demand.ts';
import { parseInteger } from './setting.ts';

/** Of one template. */
const MOST = 100;

/** `3`, or `default=2..8,wide=1`: how many sandboxes of each template wait. Templates of which none may wait are left out. */
export function parsePool(text: string): ReadonlyMap<string, PoolSize> {
  const sizes = new Map<string, PoolSize>();
  for (const entry of text.split(',')) {
    const [, name = 'default', range = ''] = /^(?:([A-Za-z0-9_-]+)=)?(.*)$/.exec(entry.trim()) ?? [];
    if (sizes.has(name)) throw new Error(`has two entries for the template ${name}`);
    const [least = '', most = least, ...more] = range.split('..');
    if (more.length > 0) throw new Error(`must be a number, or entries such as wide=1 or default=2..8, not ${text}`);
    const min = parseInteger(least, 0, MOST);
    sizes.set(name, { min, max: parseInteger(most, min, MOST) });
  }
  for (const [name, { max }] of sizes) if (max === 0) sizes.delete(name);
  return sizes;
}
