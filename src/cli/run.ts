/** `berth run`: a sandbox for one program, from before its start until after its end, however it ends. */
import { randomUUID } from 'node:crypto';
import { access, constants, stat } from 'node:fs/promises';
import { extname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BerthClient, BerthError, type Sandbox } from '../client/client.ts';
import { createInput, type SandboxFlags } from './create.ts';
import { EXIT, Failure, failureOf, misuse } from './failure.ts';
import { Interrupted, type Io } from './io.ts';
import { findOnPath } from './open.ts';
import { size } from './output.ts';
import { exportTo, formatOf } from './recordings.ts';
import { Script } from './script.ts';
import { type CommonFlags, openSession, type Session } from './session.ts';
import { placeFor } from './transfer.ts';

/** How long a service that does not answer is asked to end the sandbox, in milliseconds; it may be on its way back. */
const FAREWELL_MS = 10_000;
const RETRY_MS = 500;
/** What is left of that for somebody who presses Ctrl-C meanwhile. */
const LAST_WORD_MS = 1_000;

interface RunFlags extends CommonFlags, SandboxFlags {
  /** Path of a file, or of a folder for files of their own names. */
  readonly saveRecording?: string;
}

/** Resolves with the script's exit code, or with ours where it ended well and we did not. */
export async function run(io: Io, script: string, args: readonly string[], flags: RunFlags): Promise<number> {
  const command = await commandOf(script, args, io.env.PATH);
  if (flags.saveRecording !== undefined) await assertPlace(flags.saveRecording);
  const session = await openSession(io, flags);
  const input = await createInput(io, flags);
  if (flags.saveRecording !== undefined && flags.recording === undefined) input.recording = 'always';
  // Ours to choose, so that it can be ended although nobody has told us what it is called.
  const chosen = flags.id === undefined && input.sandboxId === undefined;
  const id = input.sandboxId ?? randomUUID();
  // Signals end the script, and then we tidy up: that must not be cut short by the same signal.
  const client = new BerthClient(session.url, session.apiKey);

  const sandbox = await start(session, client, { ...input, sandboxId: id }, chosen);
  const program = new Script(io, command, environment(io, session.url, sandbox), session.note);
  const code = await program.ended;
  const saveTo = program.forced ? undefined : flags.saveRecording;
  const failure = await finish({ ...session, client }, id, saveTo).then(
    () => undefined,
    (err: unknown) => failureOf(err, session.url),
  );
  if (failure) session.note(failure.message);
  return code || (failure?.exitCode ?? EXIT.ok);
}

/** The sandbox, READY. Whoever interrupts this leaves none behind. */
async function start(
  session: Session,
  client: BerthClient,
  input: Parameters<BerthClient['create']>[0] & { sandboxId: string },
  chosen: boolean,
): Promise<Sandbox> {
  const { io } = session;
  const id = input.sandboxId;
  const created = client.create(input, chosen ? { signal: io.signal } : {});
  try {
    const sandbox = await session.during('starting a sandbox', () => created);
    if (io.signal.aborted) throw io.signal.reason;
    if (sandbox.cdpUrl === undefined)
      throw new Failure(EXIT.denied, 'This key may look but not drive a sandbox; take one of the role user or admin.');
    return sandbox;
  } catch (err) {
    // An answer that refuses means that there is no sandbox of ours; of the name that somebody chose there may be another.
    if (!(err instanceof BerthError)) {
      const patience = io.signal.aborted ? FAREWELL_MS : 0;
      await end(client, id, session, patience).catch((late: Failure) => patience > 0 && session.note(late.message));
    }
    throw io.signal.aborted ? io.signal.reason : err;
  }
}

function environment({ env }: Io, url: string, { sandboxId, cdpUrl, liveViewUrl }: Sandbox): Record<string, string> {
  const own = Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return {
    ...Object.fromEntries(own),
    BERTH_URL: url,
    BERTH_SANDBOX_ID: sandboxId,
    BERTH_CDP_URL: cdpUrl ?? '',
    BERTH_LIVE_URL: liveViewUrl ?? '',
    // Python keeps what it prints into a pipe to itself until it has 8 KiB of it.
    PYTHONUNBUFFERED: env.PYTHONUNBUFFERED || '1',
  };
}

/** What has to be done after the script, in the order of its importance: the sandbox goes, then its film is fetched. */
async function finish(session: Session, id: string, saveTo: string | undefined): Promise<void> {
  const { client, io } = session;
  const hurry = new AbortController();
  const off = io.onSignal((signal) => hurry.abort(new Interrupted(signal)));
  try {
    const ending = end(client, id, session);
    // Asked once, the service does it with or without us.
    const enough = aborted(hurry.signal).then(() => sleep(LAST_WORD_MS, undefined, { ref: false }));
    await session.during('ending the sandbox', () => Promise.race([ending, enough]));
    hurry.signal.throwIfAborted();
    if (saveTo !== undefined) await save({ ...session, io: { ...io, signal: hurry.signal } }, id, saveTo);
  } finally {
    off();
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

/** Ends it, whatever that takes; one that is gone already is as good. Throws a {@link Failure} when nobody answers. */
async function end(client: BerthClient, id: string, { url }: Session, patience = FAREWELL_MS): Promise<void> {
  const deadline = Date.now() + patience;
  for (;;) {
    try {
      await client.delete(id);
      return;
    } catch (err) {
      if (err instanceof BerthError && (err.status === 404 || err.status === 410)) return;
      const failure = failureOf(err, url);
      if (failure.exitCode !== EXIT.unreachable || Date.now() >= deadline)
        throw new Failure(
          failure.exitCode,
          `The sandbox ${id} could not be ended and ends by its own clocks: ${failure.message}`,
          err,
        );
    }
    await sleep(RETRY_MS);
  }
}

async function assertPlace(saveTo: string): Promise<void> {
  const found = await stat(saveTo).catch(() => undefined);
  if (!found?.isDirectory() && !saveTo.endsWith('/') && formatOf(saveTo) === undefined)
    throw misuse(`--save-recording: ${saveTo} has to end in .mkv or .mp4, or be a folder.`);
  const target = await placeFor(saveTo, 'name');
  const folder = found?.isDirectory() ? saveTo : target.replace(/[^/]*$/, '') || '.';
  await access(folder, constants.W_OK).catch(() => {
    throw misuse(`--save-recording: ${folder} cannot be written to.`);
  });
}

/** Each session one file; the second of one name is called `name-2`. */
async function save(session: Session, id: string, saveTo: string): Promise<void> {
  const sessions = await session.client.timeline(id);
  if (sessions.length === 0) throw new Failure(EXIT.failed, `Nothing was recorded of ${id}.`);
  for (const [index, { sessionId }] of sessions.entries()) {
    const format = formatOf(saveTo) ?? 'mkv';
    const named = index === 0 ? saveTo : saveTo.replace(/(\.mkv|\.mp4)$/i, `-${index + 1}$1`);
    const target = await placeFor(named, `${sessionId}.${format}`);
    const bytes = await exportTo(session, sessionId, format, target);
    session.note(`recording saved: ${target} (${size(bytes)})`);
  }
}

/** The line that runs it: an interpreter by its ending, else itself. Throws a {@link Failure} where that cannot work. */
async function commandOf(
  script: string,
  args: readonly string[],
  path: string | undefined,
): Promise<[string, ...string[]]> {
  const ending = extname(script);
  const found = await stat(script).catch(() => undefined);
  const interpreted = /^\.([cm]?[jt]s|py)$/.test(ending);
  if (!found && (interpreted || script.includes('/'))) throw misuse(`There is no file ${script}.`);
  if (found?.isDirectory()) throw misuse(`${script} is a folder.`);
  if (/^\.[cm]?js$/.test(ending)) return [process.execPath, script, ...args];
  if (/^\.[cm]?ts$/.test(ending)) return [process.execPath, ...typesFlag(script), script, ...args];
  if (ending === '.py') {
    const python = findOnPath('python3', path);
    if (python === undefined) throw misuse(`There is no python3 on PATH to run ${script}.`);
    return [python, script, ...args];
  }
  if (!script.includes('/')) {
    const program = findOnPath(script, path);
    if (program !== undefined) return [program, ...args];
    if (!found) throw misuse(`There is no ${script}, neither here nor on PATH.`);
  }
  const file = script.includes('/') ? script : `./${script}`;
  await access(file, constants.X_OK).catch(() => {
    throw misuse(`${file} is no program; chmod +x ${file} makes it one.`);
  });
  return [file, ...args];
}

/** Node runs TypeScript by itself since 22.18, on request since 22.6. */
function typesFlag(script: string): string[] {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > 23 || (major === 23 && minor >= 6) || (major === 22 && minor >= 18)) return [];
  if (major === 23 || (major === 22 && minor >= 6)) return ['--experimental-strip-types'];
  throw misuse(
    `${script} is TypeScript, which Node runs from 22.6 on, and this is ${process.version}; compile it first.`,
  );
}
