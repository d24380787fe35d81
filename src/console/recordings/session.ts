import { useEffect, useState } from 'preact/hooks';
import type { RecordedSession, SandboxEvent } from '../../client/client.ts';
import { asFailure, ask, CODES, type Failure, http } from '../api.ts';
import { onEvent } from '../events.ts';
import { saidOf } from '../sandboxes/event-log.tsx';
import type { Piece } from './feed.ts';

/** While it is recorded: how often its files are looked at, in milliseconds. */
const LOOK_EVERY_MS = 2000;

/** A moment of a recording that somebody may want to jump to; seconds on its clock. */
export interface Mark {
  readonly id: string;
  readonly at: number;
  readonly type: SandboxEvent['type'] | 'navigation';
  readonly words: string;
}

export interface SessionView {
  readonly session: RecordedSession | undefined;
  readonly pieces: readonly Piece[];
  readonly marks: readonly Mark[];
  readonly failure: Failure | undefined;
  /** It was there, and is not any more. */
  readonly gone: boolean;
}

/** `vnc_<sandboxId>_<date>_<time>` */
export function sandboxOf(sessionId: string): string {
  return /^vnc_(.+)_\d{8}_\d{6}$/.exec(sessionId)?.[1] ?? '';
}

/** One recording, kept up to date while it is being made or deleted. */
export function useSession(sessionId: string): SessionView {
  const [session, setSession] = useState<RecordedSession>();
  const [events, setEvents] = useState<readonly SandboxEvent[]>([]);
  const [failure, setFailure] = useState<Failure>();
  const [gone, setGone] = useState(false);
  const sandboxId = sandboxOf(sessionId);
  const look = async (): Promise<void> => {
    const params = { path: { id: sandboxId } };
    try {
      const timeline = await ask(http.GET('/sandboxes/{id}/recordings/timeline', { params }));
      const found = timeline.recordings.find((one) => one.sessionId === sessionId);
      setGone(found === undefined);
      if (found) setSession(found);
      setFailure(undefined);
    } catch (err) {
      const failed = asFailure(err);
      if (failed.code === CODES.sandboxNotFound) setGone(true);
      else setFailure(failed);
    }
  };
  const grows = session?.status === 'recording' || session?.endedAt === null;
  useEffect(() => {
    void look();
    const stop = onEvent((event) => {
      if (event?.sandboxId === sandboxId || event === undefined) void look();
    });
    return stop;
  }, [sessionId]);
  useEffect(() => {
    if (!grows) return;
    const timer = setInterval(() => void look(), LOOK_EVERY_MS);
    return () => clearInterval(timer);
  }, [sessionId, grows]);
  useEffect(() => {
    const load = async (): Promise<void> => {
      const query = { after: '0-0', limit: 1000 };
      const page = await ask(http.GET('/sandboxes/{id}/events', { params: { path: { id: sandboxId }, query } }));
      if (typeof page === 'object') setEvents(page.data.events);
    };
    // What is not remembered has no marks; the recording plays all the same.
    load().catch(() => {});
    return onEvent((event) => {
      if (event?.sandboxId === sandboxId) setEvents((before) => [...before, event]);
    });
  }, [sandboxId]);
  const pieces = session ? piecesOf(session) : [];
  return { session, pieces, marks: session ? marksOf(session, pieces, events) : [], failure, gone };
}

/** The files one after the other: pauses and what was deleted are left out. */
export function piecesOf(session: RecordedSession): Piece[] {
  let start = 0;
  return session.segments.map(({ filename, durationSeconds, status }) => {
    const duration = durationSeconds === null ? undefined : durationSeconds * 1000;
    const piece = { filename, start, duration, grows: status === 'recording' };
    start += duration ?? 0;
    return piece;
  });
}

const MARKED: ReadonlySet<SandboxEvent['type']> = new Set([
  'client.joined',
  'client.left',
  'viewer.joined',
  'browser.down',
  'browser.restarted',
  'sandbox.ready',
] as const);

/** The events and navigations that happened while it was recorded, on its clock. */
export function marksOf(session: RecordedSession, pieces: readonly Piece[], events: readonly SandboxEvent[]): Mark[] {
  const once = new Map(events.filter(({ type }) => MARKED.has(type)).map((event) => [event.id, event]));
  const happened = [
    ...[...once.values()].map((event) => ({ id: event.id, at: event.at, type: event.type, words: saidOf(event) })),
    ...session.navigations.map(({ at, url }, i) => ({
      id: `navigation ${i}`,
      at,
      type: 'navigation' as const,
      words: `A tab went to ${url}`,
    })),
  ];
  const marks = happened.flatMap(({ at: time, ...mark }) => {
    const at = Date.parse(time);
    const i = session.segments.findLastIndex(({ startedAt }) => Date.parse(startedAt) <= at);
    const [segment, piece] = [session.segments[i], pieces[i]];
    if (!segment || !piece) return [];
    const within = at - Date.parse(segment.startedAt);
    // In a pause, or after its end: nothing to see.
    if (piece.duration !== undefined && within > piece.duration + 1000) return [];
    const seconds = (piece.start + Math.min(within, piece.duration ?? within)) / 1000;
    return [{ ...mark, at: seconds }];
  });
  return marks.sort((a, b) => a.at - b.at);
}
