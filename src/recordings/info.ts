import { isoTime, type SegmentReason } from '../core/recording.ts';
import type { Entry } from './index.ts';
import type { Unread } from './library.ts';

/**
 * One recording: first the BrowserTool's fields, field by field, then ours. What only a look into the file can tell is null
 * while it is being written, and for a moment after. Times are ISO 8601.
 */
export interface RecordingInfo {
  readonly filename: string;
  readonly sessionId: string;
  readonly segment: number;
  /** Bytes written so far. */
  readonly size: number;
  readonly createdAt: string;
  readonly format: 'mkv';
  readonly downloadUrl: string;
  readonly recordingType: 'vnc';
  readonly status: 'recording' | 'completed';
  readonly sandboxId: string;
  readonly startedAt: string;
  readonly endedAt: string | null;
  readonly durationSeconds: number | null;
  readonly frames: number | null;
  readonly droppedFrames: number | null;
  readonly reason: SegmentReason | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly storage: 'disk' | 'archive';
  readonly playable: boolean | null;
}

/** A recording that is closed or is not. */
export type Recording = Entry | Unread;

/** Whether it is closed, and its facts are known. */
export function isClosed(recording: Recording): recording is Entry {
  return 'reason' in recording;
}

/** Whether there is anything in it to play. */
export function isPlayable({ headerBytes, frames }: Entry): boolean {
  return headerBytes > 0 && frames > 0;
}

/** As the API shows it. */
export function info(recording: Recording): RecordingInfo {
  const { filename, sessionId, segment, size, sandboxId, startedAt, metadata } = recording;
  return {
    filename,
    sessionId,
    segment,
    size,
    createdAt: isoTime(startedAt),
    format: 'mkv',
    downloadUrl: `/recordings/${filename}`,
    recordingType: 'vnc',
    status: statusOf(recording),
    sandboxId,
    startedAt: isoTime(startedAt),
    ...found(recording),
    metadata,
  };
}

/** recording: it is being written. */
export function statusOf(recording: Recording): RecordingInfo['status'] {
  return !isClosed(recording) && recording.isWritten ? 'recording' : 'completed';
}

function found(recording: Recording) {
  if (!isClosed(recording)) {
    const unknown = { endedAt: null, durationSeconds: null, frames: null, droppedFrames: null, reason: null };
    return { ...unknown, storage: 'disk', playable: null } as const;
  }
  const { startedAt, durationMs, frames, dropped, reason, onDisk } = recording;
  return {
    endedAt: isoTime(startedAt + durationMs),
    durationSeconds: durationMs / 1000,
    frames,
    droppedFrames: dropped,
    reason,
    storage: onDisk ? 'disk' : 'archive',
    playable: isPlayable(recording),
  } as const;
}
