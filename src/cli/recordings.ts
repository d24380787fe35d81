/** `berth recordings ls`, `get`, `export` and `rm`. */
import type { BerthClient, Recording, RecordingFilter } from '../client/client.ts';
import { EXIT, Failure, failureOf, misuse } from './failure.ts';
import type { Io } from './io.ts';
import { duration, size, table } from './output.ts';
import { type CommonFlags, confirm, openSession, type Session } from './session.ts';
import { placeFor, receive } from './transfer.ts';

interface ListFlags extends CommonFlags, RecordingFilter {
  readonly sandbox?: string;
}

export async function listRecordings(io: Io, flags: ListFlags): Promise<void> {
  const session = await openSession(io, flags);
  const found = await all(session.client.allRecordings(flags.sandbox, filterOf(flags)));
  session.print(found, () => {
    if (found.length > 0) return recordingTable(found);
    session.note('no such recording; berth create --record records a sandbox.');
    return '';
  });
}

function filterOf({ since, until, status, metadata }: RecordingFilter): RecordingFilter {
  return {
    ...(since ? { since } : {}),
    ...(until ? { until } : {}),
    ...(status ? { status } : {}),
    ...(metadata ? { metadata } : {}),
  };
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

function recordingTable(recordings: readonly Recording[]): string {
  const rows = recordings.map((recording) => [
    recording.filename,
    recording.status,
    recording.startedAt,
    recording.durationSeconds === null ? '-' : duration(recording.durationSeconds * 1000),
    size(recording.size),
    recording.storage,
    recording.reason ?? '-',
  ]);
  return table(['RECORDING', 'STATUS', 'BEGAN', 'LENGTH', 'SIZE', 'STORED', 'ENDED'], rows);
}

/** One segment as a file; `-` is stdout. */
export async function getRecording(
  io: Io,
  filename: string,
  file: string | undefined,
  flags: CommonFlags,
): Promise<void> {
  const target = file === '-' ? '-' : await placeFor(file, filename);
  if (target === '-' && io.stdout.isTTY) throw misuse('A film is nothing for a terminal; name a file.');
  const session = await openSession(io, flags);
  const bytes = await session.during('asking for it', async (progress) =>
    receive(io, target, await session.client.transfer(filename), progress),
  );
  tell(session, target, bytes);
}

interface ExportFlags extends CommonFlags {
  readonly format?: 'mkv' | 'mp4';
}

/** A session as one file. `what` may also be one of its segments, or a sandbox, of which the newest session is meant. */
export async function exportRecording(
  io: Io,
  what: string,
  file: string | undefined,
  flags: ExportFlags,
): Promise<void> {
  const format = flags.format ?? formatOf(file) ?? 'mkv';
  const session = await openSession(io, flags);
  const sessionId = await sessionOf(session.client, what);
  const target = file === '-' ? '-' : await placeFor(file, `${sessionId}.${format}`);
  if (target === '-' && io.stdout.isTTY) throw misuse('A film is nothing for a terminal; name a file.');
  tell(session, target, await exportTo(session, sessionId, format, target));
}

/** Writes a session into a file, with a bar where somebody looks. */
export function exportTo(session: Session, sessionId: string, format: 'mkv' | 'mp4', target: string): Promise<number> {
  return session.during(`exporting ${sessionId}`, async (progress) =>
    receive(session.io, target, await session.client.transferExport(sessionId, format), progress),
  );
}

/** The container that a file's name asks for. */
export function formatOf(file: string | undefined): 'mkv' | 'mp4' | undefined {
  const ending = /\.(mkv|mp4)$/i.exec(file ?? '')?.[1]?.toLowerCase();
  return ending as 'mkv' | 'mp4' | undefined;
}

async function sessionOf(client: BerthClient, what: string): Promise<string> {
  if (/^vnc_.+_\d{8}_\d{6}/.test(what)) return what.replace(/_seg\d+(\.mkv)?$/, '');
  const sessions = await client.timeline(what);
  const newest = sessions.at(-1);
  if (!newest) throw new Failure(EXIT.notFound, `Nothing was recorded of ${what}.`);
  return newest.sessionId;
}

function tell(session: Session, file: string, bytes: number): void {
  if (file !== '-') session.print({ file, bytes }, () => `${file} (${size(bytes)})\n`);
}

interface RemoveFlags extends CommonFlags, RecordingFilter {
  readonly sandbox?: string;
  readonly all?: true;
  readonly yes?: true;
}

/** Deletes named segments, or with `--all` or `--sandbox` those that the filters find. */
export async function removeRecordings(io: Io, filenames: readonly string[], flags: RemoveFlags): Promise<void> {
  const byFilter = flags.all || flags.sandbox !== undefined;
  if (byFilter ? filenames.length > 0 : filenames.length === 0)
    throw misuse('Name recordings, or --sandbox or --all for those that the filters find.');
  const session = await openSession(io, flags);
  const { client } = session;
  const wanted = byFilter
    ? (await all(client.allRecordings(flags.sandbox, filterOf(flags)))).map(({ filename }) => filename)
    : [...new Set(filenames)];
  if (byFilter && wanted.length > 0 && !flags.yes) await assertMeant(io, wanted.length);
  const removed: string[] = [];
  const codes = new Set<number>();
  for (const filename of wanted) {
    try {
      await client.deleteRecording(filename);
      removed.push(filename);
      if (!session.json) io.stdout.write(`${filename}\n`);
    } catch (err) {
      io.signal.throwIfAborted();
      const failure = failureOf(err, session.url);
      codes.add(failure.exitCode);
      session.note(`${filename}: ${failure.message}`);
    }
  }
  if (session.json) session.print(removed, () => '');
  const [code = EXIT.failed] = codes;
  const count = `${wanted.length - removed.length} of ${wanted.length}`;
  if (codes.size > 0) throw new Failure(codes.size === 1 ? code : EXIT.failed, `${count} could not be deleted.`);
}

async function assertMeant(io: Io, count: number): Promise<void> {
  const what = `${count} recording${count === 1 ? '' : 's'}`;
  if (!io.stdinIsTTY) throw misuse(`This would delete ${what}, and there is nobody to ask: say --yes.`);
  if (!(await confirm(io, `Delete ${what} for good?`))) throw new Failure(EXIT.failed, 'Nothing was deleted.');
}
