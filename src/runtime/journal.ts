import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Navigation, SegmentReason } from '../core/recording.ts';

/** How a segment ended, or where a tab went. */
export type JournalEntry =
  | { readonly segment: number; readonly reason: SegmentReason; readonly dropped: number }
  | Navigation;

/** Adds a line to `<session>.jsonl`, which lies beside the session's files. A full disk loses it: recordings play without. */
export function writeJournal(folder: string, session: string, entry: JournalEntry): void {
  try {
    appendFileSync(join(folder, `${session}.jsonl`), `${JSON.stringify(entry)}\n`, { mode: 0o600 });
  } catch (err) {
    // A segment without its line counts as interrupted, and is none the worse for it.
    console.error('could not write the journal of the recording', err);
  }
}
