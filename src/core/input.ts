import { assertEgress, type EgressInput, sealedEgress } from './egress.ts';
import { AppError } from './errors.ts';
import {
  type ActivityKind,
  type BrowserClose,
  type ControlMode,
  DEFAULTS,
  type Idempotency,
  type RecordingMode,
  type RecordingQuality,
  type SandboxSpec,
} from './sandbox.ts';

/** What a caller may ask for at creation; shapes and bounds are checked against openapi.yaml before it comes here. Seconds. */
export interface CreateInput {
  readonly templateName?: string;
  readonly sandboxId?: string;
  readonly sandboxIdleTimeoutSeconds?: number;
  readonly maxLifetimeSeconds?: number;
  readonly connectTimeoutSeconds?: number;
  readonly onBrowserClose?: BrowserClose;
  readonly activity?: ActivityKind;
  readonly control?: ControlMode;
  readonly recording?: RecordingMode;
  readonly recordingFps?: number;
  readonly recordingScale?: number;
  readonly recordingQuality?: RecordingQuality;
  readonly recordingCursor?: boolean;
  readonly recordingSegmentSeconds?: number;
  readonly viewport?: { readonly width: number; readonly height: number };
  readonly metadata?: Readonly<Record<string, string>>;
  readonly egress?: EgressInput;
}

/** What a caller may change; null removes a key of the metadata (RFC 7396). Seconds. */
export interface ChangeInput {
  readonly sandboxIdleTimeoutSeconds?: number;
  readonly maxLifetimeSeconds?: number;
  readonly activity?: ActivityKind;
  readonly control?: ControlMode;
  readonly metadata?: Readonly<Record<string, string | null>>;
}

/** Keys that the metadata of one sandbox may have. */
const MAX_METADATA = 32;

/** Defaults that a template gives to the fields a caller left out. */
export type Template = Omit<CreateInput, 'templateName' | 'sandboxId'>;

/** What a {@link SandboxSpec} is made of. */
interface SpecParts {
  readonly id: string;
  readonly owner: string;
  readonly templateName: string;
  readonly template: Template;
  readonly input: CreateInput;
  /** Makes what is secret fit to be written down. */
  readonly seal: (text: string, context: string) => string;
  readonly idempotency?: Idempotency;
}

/** What was asked for, else what the template says, else {@link DEFAULTS}. Throws INVALID_REQUEST. */
export function specOf({ id, owner, templateName, template, input, seal, idempotency }: SpecParts): SandboxSpec {
  const asked = { ...template, ...input };
  if (asked.egress) assertEgress(asked.egress);
  return {
    id,
    owner,
    templateName,
    createdAt: Date.now(),
    idleTimeoutSeconds: asked.sandboxIdleTimeoutSeconds ?? DEFAULTS.idleTimeoutSeconds,
    maxLifetimeSeconds: asked.maxLifetimeSeconds ?? DEFAULTS.maxLifetimeSeconds,
    connectTimeoutSeconds: asked.connectTimeoutSeconds ?? DEFAULTS.connectTimeoutSeconds,
    recording: asked.recording ?? DEFAULTS.recording,
    recordingFps: asked.recordingFps ?? DEFAULTS.recordingFps,
    recordingScale: asked.recordingScale ?? DEFAULTS.recordingScale,
    recordingQuality: asked.recordingQuality ?? DEFAULTS.recordingQuality,
    recordingCursor: asked.recordingCursor ?? DEFAULTS.recordingCursor,
    recordingSegmentSeconds: asked.recordingSegmentSeconds ?? DEFAULTS.recordingSegmentSeconds,
    viewport: asked.viewport ?? DEFAULTS.viewport,
    onBrowserClose: asked.onBrowserClose ?? DEFAULTS.onBrowserClose,
    activity: asked.activity ?? DEFAULTS.activity,
    control: asked.control ?? DEFAULTS.control,
    metadata: { ...template.metadata, ...input.metadata },
    ...(asked.egress ? { egress: sealedEgress(asked.egress, id, seal) } : {}),
    ...(idempotency ? { idempotency } : {}),
  };
}

/** What was asked for as a hash of it is kept: from that of a short password the password could be guessed. */
export function withoutCredentials(input: CreateInput): CreateInput {
  const { proxy, ...lists } = input.egress ?? {};
  return proxy ? { ...input, egress: { ...lists, proxy: { url: proxy.url } } } : input;
}

/** Metadata after a change. Throws INVALID_REQUEST when there would be too many keys. */
export function merged(
  before: Readonly<Record<string, string>>,
  patch: Readonly<Record<string, string | null>>,
): Record<string, string> {
  const all = Object.entries({ ...before, ...patch }).filter((entry): entry is [string, string] => entry[1] !== null);
  if (all.length > MAX_METADATA) {
    throw new AppError('INVALID_REQUEST', `metadata: must NOT have more than ${MAX_METADATA} properties`);
  }
  return Object.fromEntries(all);
}
