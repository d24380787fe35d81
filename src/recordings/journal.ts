import {
  MAX_NAVIGATIONS,
  type Navigation,
  SEGMENT_REASONS,
  type SegmentReason,
  shownAddress,
} from '../core/recording.ts';

/** What JavaScript can tell the date of (ECMA-262, 21.4.1.1). */
const LAST_TIME = 8.64e15;

/** What a recorder said about the end of one segment. */
export interface JournalLine {
  readonly reason: SegmentReason;
  /** Frames that it had no time to take; null when it did not say. */
  readonly dropped: number | null;
}

/**
 * Reads the lines `{"segment":3,"reason":"full","dropped":0}` of a journal, by segment; of two for one segment the last
 * counts. It comes from inside the sandbox: what is not of this form is as if it were not there.
 */
export function parseJournal(text: string): Map<number, JournalLine> {
  const found = new Map<number, JournalLine>();
  for (const line of text.split('\n')) {
    const read = parseLine(line);
    if (!read) continue;
    const { segment, reason, dropped } = read;
    if (!isCount(segment) || !SEGMENT_REASONS.includes(reason as SegmentReason)) continue;
    found.set(segment, { reason: reason as SegmentReason, dropped: isCount(dropped) ? dropped : null });
  }
  return found;
}

/** Reads the lines `{"at":1763289022123,"url":"https://example.com/"}` of a journal, in their order, as strictly. */
export function parseNavigations(text: string): Navigation[] {
  const found: Navigation[] = [];
  for (const line of text.split('\n')) {
    const { at, url } = parseLine(line) ?? {};
    if (!isCount(at) || at > LAST_TIME || typeof url !== 'string' || found.length === MAX_NAVIGATIONS) continue;
    const shown = shownAddress(url);
    if (shown) found.push({ at, url: shown });
  }
  return found;
}

function parseLine(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const read: unknown = JSON.parse(line);
    return typeof read === 'object' && read !== null ? (read as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
