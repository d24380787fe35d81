import type { SandboxInfo } from './live.ts';
import type { Segment } from './recording.ts';
import { hasEnded, type RecorderStatus } from './sandbox.ts';

/** Everything that can happen to a sandbox and its recordings, as `GET /events` names it; openapi.yaml lists the same. */
export const EVENT_TYPES = [
  'sandbox.creating',
  'sandbox.adopted',
  'sandbox.ready',
  'sandbox.ended',
  'client.joined',
  'client.left',
  'viewer.joined',
  'viewer.left',
  'viewer.control',
  'browser.down',
  'browser.restarted',
  'recording.started',
  'recording.stopped',
  'recorder.paused',
  'recorder.failed',
  'recording.closed',
  'recording.removed',
] as const;

/** One of {@link EVENT_TYPES}. */
export type EventType = (typeof EVENT_TYPES)[number];

/** What an event says beside its type; names are those of a sandbox in the API. */
export interface EventDetails {
  /** Connected now, after this join or leave. */
  readonly clients?: number;
  readonly viewers?: number;
  /** Who has exclusive control now; absent when it has become free. */
  readonly viewerId?: string;
  readonly browserRestarts?: number;
  /** Of the recording: everything before `_seg` in its files' names. */
  readonly sessionId?: string;
  readonly error?: string;
  /** Of a file of a recording: why it was closed or removed. */
  readonly filename?: string;
  readonly reason?: string;
  readonly status?: 'TERMINATED' | 'FAILED';
  readonly endedReason?: string;
  /** It ended without ever having been READY. */
  readonly beforeReady?: true;
  readonly startStages?: Readonly<Record<string, number>>;
  /** Milliseconds from the request to READY, as the service saw it. */
  readonly startMs?: number;
}

/** One thing that happened. `id` is unique and grows, also across starts of the service; `at` is Unix milliseconds. */
export interface SandboxEvent extends EventDetails {
  readonly id: string;
  readonly at: number;
  readonly type: EventType;
  readonly sandboxId: string;
  /** The tenant; empty when nobody remembers. */
  readonly owner: string;
}

/** A recording that is gone, as it is told to whoever listens. */
export interface RemovedRecording {
  readonly sandboxId: string;
  readonly filename: string;
  readonly owner: string | undefined;
  readonly reason: string;
}

type Change = EventDetails & { readonly type: EventType };

/** What is said inside a sandbox may be anything, so texts have a bound in characters, and stages one in number. */
const MAX_TEXT = 1000;
const MAX_STAGES = 20;

/** Remembers the last events of all sandboxes, in memory and bounded, and wakes whoever waits for the next one. */
export class Events {
  readonly #capacity: number;
  readonly #startedAt: number;
  readonly #now: () => number;
  /** The event of number n, the first being 1, lies at n - 1 modulo capacity. */
  readonly #ring: SandboxEvent[] = [];
  readonly #listeners = new Set<(event: SandboxEvent | undefined) => void>();
  #count = 0;
  #closed = false;

  /** Keeps `capacity` events (default 10,000), each about half a kilobyte and never more than a few. */
  constructor(capacity = 10_000, now: () => number = Date.now) {
    this.#capacity = capacity;
    this.#now = now;
    this.#startedAt = now();
  }

  /** Looks at one sandbox, from the beginning of its life in this service, and tells what has changed since it last looked. */
  watcher(): { saw(info: SandboxInfo): void } {
    let before: SandboxInfo | undefined;
    let bornAt: number | undefined;
    return {
      saw: (info) => {
        // One that has a status at first sight was made before us.
        if (!before && !info.status) bornAt = performance.now();
        const changes = changesBetween(before, info, bornAt === undefined ? undefined : performance.now() - bornAt);
        before = info;
        for (const change of changes) this.#add(info.spec.id, info.spec.owner, change);
      },
    };
  }

  /** A file of a recording is whole and will not change any more. */
  recordingClosed({ sandboxId, owner = '', sessionId, filename, reason }: Segment): void {
    this.#add(sandboxId, owner, { type: 'recording.closed', sessionId, filename, reason });
  }

  /** Exclusive control of a sandbox has gone to this viewer, or become free. */
  controlChanged(sandboxId: string, owner: string, viewerId: string | undefined): void {
    this.#add(sandboxId, owner, { type: 'viewer.control', ...(viewerId === undefined ? {} : { viewerId }) });
  }

  /** A recording was removed; its sandbox may be long forgotten. */
  recordingRemoved({ sandboxId, owner = '', filename, reason }: RemovedRecording): void {
    this.#add(sandboxId, owner, { type: 'recording.removed', filename, reason });
  }

  /**
   * The position of an event, to begin after it. Numbers begin anew with each start of the service, so an id of another
   * start, `0-0` for one, stands before the oldest that is remembered, and so does one that is forgotten. Without an id: the newest.
   */
  position(after: string | undefined): number {
    if (after === undefined) return this.#count;
    const [start, number] = after.split('-').map(Number);
    const given = start === this.#startedAt ? Math.min(number as number, this.#count) : 0;
    return Math.max(given, this.#count - this.#ring.length);
  }

  /** The first event after `position` that is wanted and still remembered, and its own position; without one, the newest position. */
  next(position: number, wanted: (event: SandboxEvent) => boolean): { event?: SandboxEvent; position: number } {
    for (let n = Math.max(position, this.#count - this.#ring.length) + 1; n <= this.#count; n++) {
      const event = this.#ring[(n - 1) % this.#capacity] as SandboxEvent;
      if (wanted(event)) return { event, position: n };
    }
    return { position: this.#count };
  }

  /** Whether events after this position have been forgotten since. */
  forgotten(position: number): boolean {
    return position < this.#count - this.#ring.length;
  }

  /** The id of an event, to be asked from later. */
  idAt(position: number): string {
    return `${this.#startedAt}-${position}`;
  }

  /** Calls back after each event, and once with nothing when there will be no more. Answers with how to stop that. */
  listen(listener: (event: SandboxEvent | undefined) => void): () => void {
    if (this.#closed) listener(undefined);
    else this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Listeners now, for those who look for leaks. */
  get listening(): number {
    return this.#listeners.size;
  }

  /** There will be no more events. */
  close(): void {
    this.#closed = true;
    for (const listener of this.#listeners) listener(undefined);
    this.#listeners.clear();
  }

  #add(sandboxId: string, owner: string, change: Change): void {
    this.#count += 1;
    const id = this.idAt(this.#count);
    const { type, ...details } = change;
    const event: SandboxEvent = { id, at: this.#now(), type, sandboxId, owner, ...details };
    this.#ring[(this.#count - 1) % this.#capacity] = event;
    for (const listener of this.#listeners) listener(event);
  }
}

/** What a status says that events speak of. */
interface Seen {
  readonly clients: number;
  readonly viewers: number;
  readonly recorder: RecorderStatus['state'];
  readonly sessionId: string;
  readonly recorderError: string;
  /** Names the browser that is up; empty while none is. */
  readonly browser: string;
  readonly browserRestarts: number;
}

/** Nobody is connected to what has not begun or has ended. */
const NOTHING: Seen = {
  clients: 0,
  viewers: 0,
  recorder: 'off',
  sessionId: '',
  recorderError: '',
  browser: '',
  browserRestarts: 0,
};

/** What happened between two looks at one sandbox, in the order in which it must have happened. */
function changesBetween(before: SandboxInfo | undefined, now: SandboxInfo, ageMs: number | undefined): Change[] {
  const over = hasEnded(now.state);
  if (!before && !over) return [now.status ? adopted(seen(now)) : { type: 'sandbox.creating' }];
  const was = before ? seen(before) : NOTHING;
  const is = over ? NOTHING : seen(now);
  const steady = before?.state === 'READY' && !over && now.status?.endingReason === undefined;
  const changes: Change[] = recordingChanges(was, is);
  if (before?.state === 'CREATING' && now.state === 'READY') changes.push(ready(now, ageMs));
  if (steady && was.browser !== is.browser) {
    if (was.browser !== '') changes.push({ type: 'browser.down' });
    if (is.browser !== '') changes.push({ type: 'browser.restarted', browserRestarts: is.browserRestarts });
  }
  const { clients, viewers } = is;
  if (clients !== was.clients) changes.push({ type: clients > was.clients ? 'client.joined' : 'client.left', clients });
  if (viewers !== was.viewers) changes.push({ type: viewers > was.viewers ? 'viewer.joined' : 'viewer.left', viewers });
  if (over && !(before && hasEnded(before.state))) changes.push(ended(before, now));
  return changes;
}

/** Found by a service that started after it. */
function adopted({ clients, viewers, sessionId }: Seen): Change {
  return { type: 'sandbox.adopted', clients, viewers, ...(sessionId ? { sessionId } : {}) };
}

function recordingChanges(was: Seen, is: Seen): Change[] {
  const changes: Change[] = [];
  if (was.recorder === is.recorder && was.sessionId === is.sessionId) return changes;
  const { sessionId } = is;
  if (is.recorder === 'paused' || is.recorder === 'failed') {
    return [{ type: `recorder.${is.recorder}`, sessionId, error: is.recorderError }];
  }
  if (was.recorder === 'recording') changes.push({ type: 'recording.stopped', sessionId: was.sessionId });
  if (is.recorder === 'recording') changes.push({ type: 'recording.started', sessionId });
  return changes;
}

function ready(info: SandboxInfo, startMs: number | undefined): Change {
  const stages = Object.entries(info.status?.stages ?? {}).filter(([, ms]) => Number.isFinite(ms));
  const startStages = Object.fromEntries(stages.slice(0, MAX_STAGES).map(([name, ms]) => [text(name), ms]));
  return { type: 'sandbox.ready', startStages, ...(startMs === undefined ? {} : { startMs: Math.round(startMs) }) };
}

function ended(before: SandboxInfo | undefined, now: SandboxInfo): Change {
  return {
    type: 'sandbox.ended',
    status: now.state === 'FAILED' ? 'FAILED' : 'TERMINATED',
    endedReason: text(now.ended?.endedReason),
    ...(before?.state === 'CREATING' ? { beforeReady: true } : {}),
  };
}

/** A program in the sandbox said it, so nothing is taken for granted of its shape. */
function seen({ status }: SandboxInfo): Seen {
  if (!status) return NOTHING;
  const { recorder, devtools } = status as Partial<typeof status>;
  const state = recorder?.state;
  return {
    clients: count(status.clients),
    viewers: count(status.viewers),
    recorder: state === 'recording' || state === 'paused' || state === 'failed' ? state : 'off',
    sessionId: text(recorder?.sessionId),
    recorderError: text(recorder?.error),
    browser: devtools ? `${devtools.port}${devtools.browserPath}` : '',
    browserRestarts: count(status.browserRestarts),
  };
}

function count(value: unknown): number {
  return Number.isSafeInteger(value) ? (value as number) : 0;
}

function text(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, MAX_TEXT) : '';
}
