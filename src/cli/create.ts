import { readFile } from 'node:fs/promises';
import { text as readAll } from 'node:stream/consumers';
import type { CreateSandbox, Sandbox } from '../client/client.ts';
import { misuse } from './failure.ts';
import type { Io } from './io.ts';
import { sandboxText } from './sandboxes.ts';
import { type CommonFlags, openSession } from './session.ts';

/** Flags of `create` that say what the sandbox is to be; `run` has them, too. */
export interface SandboxFlags {
  readonly template?: string;
  readonly id?: string;
  readonly idleTimeout?: number;
  readonly lifetime?: number;
  readonly connectTimeout?: number;
  readonly onBrowserClose?: CreateSandbox['onBrowserClose'];
  readonly activity?: CreateSandbox['activity'];
  readonly record?: true;
  readonly recording?: CreateSandbox['recording'];
  readonly recordFps?: number;
  readonly recordScale?: number;
  readonly recordQuality?: CreateSandbox['recordingQuality'];
  readonly recordSegment?: number;
  /** False with `--no-record-cursor`. */
  readonly recordCursor?: boolean;
  readonly viewport?: { readonly width: number; readonly height: number };
  readonly metadata?: Readonly<Record<string, string>>;
  /** Path of a file with fields as the API has them; flags come before it. */
  readonly body?: string;
}

interface CreateFlags extends CommonFlags, SandboxFlags {
  /** False with `--no-wait`. */
  readonly wait?: boolean;
  readonly idempotencyKey?: string;
}

/** `berth create` */
export async function create(io: Io, flags: CreateFlags): Promise<void> {
  const session = await openSession(io, flags);
  const input = await createInput(io, flags);
  const options = {
    ...(flags.wait === false ? { wait: false } : {}),
    ...(flags.idempotencyKey === undefined ? {} : { idempotencyKey: flags.idempotencyKey }),
  };
  const sandbox: Sandbox = await session.during('starting a sandbox', () => session.client.create(input, options));
  session.print(sandbox, () => sandboxText(sandbox, session.paint));
}

/** The body of the create: what the file has, and above it the flags. Fields that nobody named are the service's or its template's. */
export async function createInput(io: Io, flags: SandboxFlags): Promise<CreateSandbox> {
  const given: CreateSandbox = flags.body === undefined ? {} : await bodyOf(io, flags.body);
  const wanted = {
    templateName: flags.template,
    sandboxId: flags.id,
    sandboxIdleTimeoutSeconds: flags.idleTimeout,
    maxLifetimeSeconds: flags.lifetime,
    connectTimeoutSeconds: flags.connectTimeout,
    onBrowserClose: flags.onBrowserClose,
    activity: flags.activity,
    recording: flags.recording ?? (flags.record ? 'always' : undefined),
    recordingFps: flags.recordFps,
    recordingScale: flags.recordScale,
    recordingQuality: flags.recordQuality,
    recordingSegmentSeconds: flags.recordSegment,
    // The flag can only say no; without it the template decides.
    recordingCursor: flags.recordCursor === false ? false : undefined,
    viewport: flags.viewport,
    metadata: flags.metadata && { ...given.metadata, ...flags.metadata },
  };
  const set = Object.entries(wanted).filter(([, value]) => value !== undefined);
  return { ...given, ...(Object.fromEntries(set) as CreateSandbox) };
}

async function bodyOf(io: Io, file: string): Promise<CreateSandbox> {
  const where = file === '-' ? 'stdin' : file;
  const text = await (file === '-' ? readAll(io.stdin()) : readFile(file, 'utf8')).catch(
    (err: NodeJS.ErrnoException) => {
      throw misuse(`--body: ${where} cannot be read (${err.code}).`);
    },
  );
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Told below.
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw misuse(`--body: ${where} holds no JSON object with fields of POST /sandboxes.`);
  return value as CreateSandbox;
}
