import { isoTime } from '../core/recording.ts';
import type { Recording } from './info.ts';
import { type TimelineSession, timeline } from './timeline.ts';

/** One start of a recorder as a library shows it: what its files come to. Times are ISO 8601. */
export interface SessionInfo extends Omit<TimelineSession, 'segments'> {
  readonly sandboxId: string;
  /** How many files there are. */
  readonly segments: number;
  readonly metadata: Readonly<Record<string, string>>;
  /** Of the last file that has one: the first shows a desktop without its browser. Null while there is none. */
  readonly posterUrl: string | null;
  /** When the first of its files will be removed for its age; null where nothing is. */
  readonly removedAt: string | null;
}

/** All of the files given, which may be of many sandboxes, as sessions, the newest first. `keptMs` 0: for ever. */
export function sessionsOf(recordings: readonly Recording[], keptMs: number): SessionInfo[] {
  const bySandbox = new Map<string, Recording[]>();
  for (const recording of recordings) {
    const known = bySandbox.get(recording.sandboxId);
    if (known) known.push(recording);
    else bySandbox.set(recording.sandboxId, [recording]);
  }
  const all = [...bySandbox].flatMap(([sandboxId, files]) => {
    const bySession = new Map(files.map((file) => [file.sessionId, file]));
    return timeline(files).map(({ segments, ...session }): SessionInfo => {
      const first = segments.find(({ endedAt }) => endedAt !== null)?.endedAt;
      return {
        ...session,
        sandboxId,
        segments: segments.length,
        metadata: bySession.get(session.sessionId)?.metadata ?? {},
        posterUrl: segments.findLast(({ posterUrl }) => posterUrl !== null)?.posterUrl ?? null,
        removedAt: keptMs > 0 && first ? isoTime(Date.parse(first) + keptMs) : null,
      };
    });
  });
  return all.sort((a, b) => (a.startedAt < b.startedAt ? 1 : a.startedAt > b.startedAt ? -1 : 0));
}
