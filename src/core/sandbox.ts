import type { EgressSpec } from './egress.ts';

/** CREATING: being started. READY: Chromium and the VNC server both answered. TERMINATED: ended on purpose. FAILED: ended by a fault. */
export type SandboxState = 'CREATING' | 'READY' | 'TERMINATED' | 'FAILED';

const MOVES: Readonly<Record<SandboxState, readonly SandboxState[]>> = {
  CREATING: ['READY', 'TERMINATED', 'FAILED'],
  READY: ['TERMINATED', 'FAILED'],
  TERMINATED: [],
  FAILED: [],
};

/** Whether a sandbox may go from one state to the other. The ended states are final. */
export function mayMove(from: SandboxState, to: SandboxState): boolean {
  return MOVES[from].includes(to);
}

/** Whether the state is final. */
export function hasEnded(state: SandboxState): boolean {
  return MOVES[state].length === 0;
}

/** off: never. manual: when a client asks with `?recording=true` or the recordings API. always: from the first frame on screen. */
export type RecordingMode = 'off' | 'manual' | 'always';

/** x264 at a constant rate factor of 32, 26 or 20. */
export type RecordingQuality = 'low' | 'medium' | 'high';

/**
 * What a client's `Browser.close` does, which is what Puppeteer's `browser.close()` sends. restart: the browser ends and a
 * fresh one takes its place. terminate: the sandbox ends. keep: only that client's connection ends, tabs stay.
 */
export type BrowserClose = 'restart' | 'terminate' | 'keep';

/** What keeps the idle timeout from striking. any: messages of automation clients and attached viewers. automation: the former alone. */
export type ActivityKind = 'any' | 'automation';

/** collaborative: every viewer who may control does, at once. exclusive: one does, the others look. */
export type ControlMode = 'collaborative' | 'exclusive';

/** What may change about a sandbox after its creation. */
export type SandboxChange = Partial<
  Pick<SandboxSpec, 'idleTimeoutSeconds' | 'maxLifetimeSeconds' | 'activity' | 'control' | 'metadata'>
>;

/** Everything that is said about a sandbox when it is created. Times are seconds; `createdAt` is Unix milliseconds. */
export interface SandboxSpec {
  readonly id: string;
  readonly owner: string;
  readonly templateName: string;
  readonly createdAt: number;
  readonly idleTimeoutSeconds: number;
  readonly maxLifetimeSeconds: number;
  readonly connectTimeoutSeconds: number;
  readonly recording: RecordingMode;
  readonly recordingFps: number;
  /** Of the desktop's width and height; 0.1 to 1. */
  readonly recordingScale: number;
  readonly recordingQuality: RecordingQuality;
  /** Whether the mouse pointer is in the picture. */
  readonly recordingCursor: boolean;
  readonly recordingSegmentSeconds: number;
  readonly viewport: { readonly width: number; readonly height: number };
  readonly onBrowserClose: BrowserClose;
  readonly activity: ActivityKind;
  /** Absent in those made before there was a choice: collaborative. */
  readonly control?: ControlMode;
  readonly metadata: Readonly<Record<string, string>>;
  /** What it may reach; absent: whatever the operator leaves open. */
  readonly egress?: EgressSpec;
  /** Of a create with an `Idempotency-Key`. It lies with the sandbox, so that a service that was restarted knows it again. */
  readonly idempotency?: Idempotency;
  /** Started ahead of demand and nobody's yet: names what it was made of, so that one made of something else is not handed out. */
  readonly pooled?: string;
}

/** Hashes that tell a repeated create from a new one: of tenant and key, and of what was asked for. */
export interface Idempotency {
  readonly key: string;
  readonly body: string;
}

/** Why a sandbox ended; `failed: …` carries the sentence of the fault. */
export type EndedReason =
  | 'idle_timeout'
  | 'connect_timeout'
  | 'max_lifetime'
  | 'deleted'
  | 'browser_closed'
  | 'service_stopped'
  | `failed: ${string}`;

/**
 * The recorder as the runtime sees it. paused: the disk is full, it goes on when there is room. failed: ffmpeg died again
 * and again. `sessionId` names the files: everything before `_seg`.
 */
export interface RecorderStatus {
  readonly state: 'off' | 'recording' | 'paused' | 'failed';
  readonly sessionId?: string;
  /** Number of the segment that is being written. */
  readonly segment?: number;
  readonly error?: string;
}

/** What a runtime says about its sandbox, at `/status` and on the control connection after each change. Times are Unix milliseconds. */
export interface SandboxStatus {
  readonly state: SandboxState;
  readonly readyAt?: number;
  readonly endedAt?: number;
  readonly endedReason?: EndedReason;
  /** Set as soon as the end has begun, so that clients hear the reason before their browser goes. */
  readonly endingReason?: EndedReason;
  /** What was changed since the creation. */
  readonly changes: SandboxChange;
  /** It was started ahead of demand and has not been claimed. */
  readonly pooled?: true;
  /** When the idle timeout strikes if nothing happens; null while a viewer is attached or before READY. */
  readonly idleDeadline: number | null;
  readonly expiresAt: number;
  readonly clients: number;
  readonly viewers: number;
  readonly recorder: RecorderStatus;
  readonly browserRestarts: number;
  /** Where Chromium's DevTools listen inside the sandbox; absent while no browser is up. */
  readonly devtools?: { readonly port: number; readonly browserPath: string };
  /** Why the browser is being ended while its sandbox goes on, so that clients hear it before their connections break. */
  readonly browserEnding?: string;
  /** TigerVNC's unix socket inside the sandbox. */
  readonly vncSocket?: string;
  /** Milliseconds from the runtime's start to each stage, for the answer to "what was slow". */
  readonly stages: Readonly<Record<string, number>>;
}

/** One tab of a sandbox's browser. unresponsive: its script lets nothing through. crashed: it has no process. */
export interface PageInfo {
  /** DevTools' target id. */
  readonly id: string;
  readonly title: string;
  readonly url: string;
  readonly health: 'ok' | 'unresponsive' | 'crashed';
}

/** The memory of a sandbox that is gone. */
export interface EndedSandbox {
  readonly spec: SandboxSpec;
  readonly state: 'TERMINATED' | 'FAILED';
  readonly readyAt?: number;
  readonly endedAt: number;
  readonly endedReason: EndedReason;
}

/** Sandbox ids name folders, files and routes, so they are letters, digits, `-` and `_`, 1 to 64 long, and start with a letter or digit. */
export const SANDBOX_ID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;

/**
 * Defaults and bounds of a sandbox, in seconds unless said otherwise. 1800 s idle and 21600 s lifetime are the
 * BrowserTool template's own defaults; the upper bound of seven days keeps every timer below Node's 2^31 ms.
 */
export const DEFAULTS = {
  idleTimeoutSeconds: 1800,
  maxLifetimeSeconds: 21_600,
  connectTimeoutSeconds: 300,
  recording: 'manual',
  recordingFps: 10,
  recordingScale: 1,
  recordingQuality: 'medium',
  recordingCursor: true,
  recordingSegmentSeconds: 60,
  onBrowserClose: 'restart',
  activity: 'any',
  control: 'collaborative',
  viewport: { width: 1280, height: 720 },
} as const;
