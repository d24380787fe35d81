/**
 * Names of recording segments: `vnc_<sandboxId>_<YYYYMMDD>_<HHMMSS>_seg<NNN>.mkv` (the BrowserTool's own scheme).
 * The part before `_seg` is the session: one start of the recorder.
 */
const NAME = /^(vnc_([A-Za-z0-9][A-Za-z0-9_-]{0,63})_\d{8}_\d{6})_seg(\d{3,6})\.mkv$/;

/** A name of a segment and its parts; `segment` counts from 0 within its session. */
export interface SegmentName {
  readonly filename: string;
  readonly sandboxId: string;
  readonly sessionId: string;
  readonly segment: number;
}

/** The parts of a segment's name, or undefined when it is not one. The only way from user input to a path. */
export function parseSegmentName(filename: string): SegmentName | undefined {
  const match = NAME.exec(filename);
  if (!match) return undefined;
  return { filename, sessionId: match[1] as string, sandboxId: match[2] as string, segment: Number(match[3]) };
}

/** The inverse of {@link parseSegmentName}; ffmpeg writes it as `_seg%03d.mkv`. */
export function segmentFile(sessionId: string, segment: number): string {
  return `${sessionId}_seg${String(segment).padStart(3, '0')}.mkv`;
}

/** The sandbox of a session, or undefined when it is not the name of one. */
export function sandboxOfSession(sessionId: string): string | undefined {
  return parseSegmentName(segmentFile(sessionId, 0))?.sandboxId;
}

/**
 * Why a segment ends where it does. full: it had its seconds, the next one follows. stopped: the recorder was asked to end,
 * or the sandbox ended. cut: it was deleted while it was written, the next one follows. disk_full: there was no room for
 * more. died: ffmpeg died, or was ended because it said nothing. interrupted: whoever wrote it was gone without a word.
 */
export const SEGMENT_REASONS = ['full', 'stopped', 'cut', 'disk_full', 'died', 'interrupted'] as const;
/** One of {@link SEGMENT_REASONS}. */
export type SegmentReason = (typeof SEGMENT_REASONS)[number];

/** What the bytes of a segment say, up to the last whole frame. */
export interface MediaFacts {
  readonly durationMs: number;
  readonly frames: number;
  /** Bytes before the first cluster: EBML header, track. 0 when not even those are whole, and then nothing plays. */
  readonly headerBytes: number;
  readonly clusters: number;
  /** Bytes of all whole frames, with their own headers and without those of the clusters they lie in. */
  readonly frameBytes: number;
}

/** A closed segment: it is not written to any more, so all of this is final. Times are Unix milliseconds. */
export interface Segment extends SegmentName, MediaFacts {
  readonly size: number;
  readonly startedAt: number;
  /** Whose it is: the tenant of its sandbox; undefined when nobody remembers, and then it is the admin's. */
  readonly owner?: string;
  /** The sandbox's, as it was when the segment was closed. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly reason: SegmentReason;
  /** Frames that the recorder had no time to take; null when nobody could say. */
  readonly dropped: number | null;
}

/** Where a tab went while it was recorded. `at` is Unix milliseconds. */
export interface Navigation {
  readonly at: number;
  /** As {@link shownAddress} makes it. */
  readonly url: string;
}

/** Of one session; more are not kept, so that a page that never stops leaves room in the journal for the ends of segments. */
export const MAX_NAVIGATIONS = 1000;
const MAX_ADDRESS = 300;

/** An address without what may be secret in it (user, query, fragment), in at most 300 characters; of one without a host only its scheme. */
export function shownAddress(address: string): string {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  return url === undefined ? '' : withoutSecrets(url).slice(0, MAX_ADDRESS);
}

function withoutSecrets({ protocol, host, pathname }: URL): string {
  if (host || protocol === 'file:') return `${protocol}//${host}${pathname}`;
  return protocol === 'about:' ? protocol + pathname : protocol;
}

/** The session name for a recorder started at `at`, in local time as the BrowserTool names them. */
export function sessionName(sandboxId: string, at: Date): string {
  const date = `${at.getFullYear()}${two(at.getMonth() + 1)}${two(at.getDate())}`;
  return `vnc_${sandboxId}_${date}_${two(at.getHours())}${two(at.getMinutes())}${two(at.getSeconds())}`;
}

/** ISO 8601 in local time with its offset, such as `2025-11-16T10:30:22.123+08:00`. */
export function isoTime(unixMs: number): string {
  const at = new Date(unixMs);
  const minutes = -at.getTimezoneOffset();
  const offset = `${minutes < 0 ? '-' : '+'}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
  return new Date(unixMs + minutes * 60_000).toISOString().replace('Z', offset);
}

function two(n: number): string {
  return String(n).padStart(2, '0');
}
