import { isoTime } from '../core/recording.ts';
import { info, isClosed, isPlayable, type Recording, type RecordingInfo } from './info.ts';

/** One file of a recording, in the order in which it was written. Times are ISO 8601. */
export interface TimelineSegment
  extends Pick<
    RecordingInfo,
    'filename' | 'segment' | 'startedAt' | 'endedAt' | 'durationSeconds' | 'size' | 'status' | 'downloadUrl'
  > {
  /** From the beginning of the session, pauses included; never before the end of the segment before it. */
  readonly offsetSeconds: number;
  /** Null while there is nothing that could be shown. */
  readonly posterUrl: string | null;
}

/** One start of the recorder. */
export interface TimelineSession {
  readonly sessionId: string;
  readonly status: RecordingInfo['status'];
  readonly startedAt: string;
  /** Null while one of its files has not been looked into. */
  readonly endedAt: string | null;
  /** What there is to play, without pauses and without what is being written. */
  readonly durationSeconds: number;
  readonly size: number;
  readonly segments: TimelineSegment[];
}

/** All sessions of a sandbox, the first one first; what was deleted is left out. */
export function timeline(recordings: readonly Recording[]): TimelineSession[] {
  const sessions = new Map<string, Recording[]>();
  for (const recording of recordings) {
    const known = sessions.get(recording.sessionId);
    if (known) known.push(recording);
    else sessions.set(recording.sessionId, [recording]);
  }
  const inOrder = [...sessions.values()].map((files) => files.sort((a, b) => a.segment - b.segment));
  return inOrder.sort((a, b) => startOf(a) - startOf(b)).map(session);
}

function startOf(files: readonly Recording[]): number {
  return files[0]?.startedAt ?? 0;
}

function session(files: readonly Recording[]): TimelineSession {
  const startedAt = startOf(files);
  let endMs = 0;
  let playedMs = 0;
  const segments = files.map((file): TimelineSegment => {
    // A clock that was set back must not put a file before the one that it follows.
    const offsetMs = Math.max(file.startedAt - startedAt, endMs);
    const durationMs = isClosed(file) ? file.durationMs : 0;
    endMs = offsetMs + durationMs;
    playedMs += durationMs;
    const { filename, segment, startedAt: began, endedAt, durationSeconds, size, status, downloadUrl } = info(file);
    const posterUrl = isClosed(file) && isPlayable(file) ? `${downloadUrl}/poster` : null;
    const times = { startedAt: began, endedAt, offsetSeconds: offsetMs / 1000, durationSeconds };
    return { filename, segment, ...times, size, status, downloadUrl, posterUrl };
  });
  return {
    sessionId: files[0]?.sessionId ?? '',
    status: segments.some((one) => one.status === 'recording') ? 'recording' : 'completed',
    startedAt: isoTime(startedAt),
    endedAt: files.every(isClosed) ? isoTime(startedAt + endMs) : null,
    durationSeconds: playedMs / 1000,
    size: files.reduce((sum, { size }) => sum + size, 0),
    segments,
  };
}
