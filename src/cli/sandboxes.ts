/** `berth ls`, `get` and `rm`. */
import { BerthError, type Sandbox } from '../client/client.ts';
import { EXIT, Failure, failureOf, misuse } from './failure.ts';
import type { Io } from './io.ts';
import { duration, fields, type Paint, table } from './output.ts';
import { type CommonFlags, confirm, openSession, type Session } from './session.ts';

/** Deletions under way at once; each may take as long as its recorder needs. */
const AT_ONCE = 8;

interface ListFlags extends CommonFlags {
  readonly status?: Sandbox['status'];
  readonly all?: true;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** Those that live, or with `--all` those that are remembered, too. */
export async function list(io: Io, flags: ListFlags): Promise<void> {
  const session = await openSession(io, flags);
  const { status, metadata } = flags;
  const filter = { ...(status ? { status } : {}), ...(metadata ? { metadata } : {}) };
  const found: Sandbox[] = [];
  for await (const sandbox of session.client.sandboxes(filter)) {
    if (flags.all || status || isAlive(sandbox)) found.push(sandbox);
  }
  session.print(found, () => {
    if (found.length > 0) return sandboxTable(found, session.paint);
    session.note(flags.all || status ? 'no such sandbox.' : 'no sandbox is running; berth create starts one.');
    return '';
  });
}

export async function get(io: Io, id: string, flags: CommonFlags): Promise<void> {
  const session = await openSession(io, flags);
  const sandbox = await session.client.get(id);
  session.print(sandbox, () => sandboxText(sandbox, session.paint));
}

interface RemoveFlags extends CommonFlags {
  readonly all?: true;
  readonly yes?: true;
  readonly recordings?: true;
}

/** Ends sandboxes; each that cannot be is told, and the others go all the same. */
export async function remove(io: Io, ids: readonly string[], flags: RemoveFlags): Promise<void> {
  if (flags.all ? ids.length > 0 : ids.length === 0)
    throw misuse('Name sandboxes, or --all for those that are running.');
  const session = await openSession(io, flags);
  const wanted = flags.all ? await runningIds(session) : [...new Set(ids)];
  if (flags.all && wanted.length > 0 && !flags.yes) await assertMeant(io, wanted, flags.recordings === true);
  const failures: unknown[] = [];
  const ended: Sandbox[] = [];
  const removeOne = async (id: string): Promise<void> => {
    try {
      const sandbox = await session.client.delete(id, { recordings: flags.recordings === true });
      ended.push(sandbox);
      if (!session.json) io.stdout.write(`${sandbox.sandboxId}\n`);
    } catch (err) {
      io.signal.throwIfAborted();
      // One that ended by itself while we asked is what --all wanted.
      if (flags.all && err instanceof BerthError && err.status === 404) return;
      if (wanted.length === 1) throw err;
      failures.push(err);
      session.note(failureOf(err, session.url).message);
    }
  };
  const queue = [...wanted];
  const worker = async (): Promise<void> => {
    for (let id = queue.shift(); id !== undefined; id = queue.shift()) await removeOne(id);
  };
  await session.during('ending', () => Promise.all(Array.from({ length: AT_ONCE }, worker)));
  if (session.json) session.print(ended, () => '');
  if (failures.length === 0) return;
  const codes = new Set(failures.map((err) => failureOf(err, session.url).exitCode));
  const [only] = codes;
  throw new Failure(
    codes.size === 1 && only !== undefined ? only : EXIT.failed,
    `${failures.length} of ${wanted.length} could not be ended.`,
  );
}

async function runningIds({ client }: Session): Promise<string[]> {
  const ids: string[] = [];
  for await (const sandbox of client.sandboxes()) if (isAlive(sandbox)) ids.push(sandbox.sandboxId);
  return ids;
}

async function assertMeant(io: Io, ids: readonly string[], recordings: boolean): Promise<void> {
  const what = `${ids.length} sandbox${ids.length === 1 ? '' : 'es'}${recordings ? ' and their recordings' : ''}`;
  if (!io.stdinIsTTY) throw misuse(`This would end ${what}, and there is nobody to ask: say --yes.`);
  if (!(await confirm(io, `End ${what}?`))) throw new Failure(EXIT.failed, 'Nothing was ended.');
}

function isAlive({ status }: Sandbox): boolean {
  return status === 'CREATING' || status === 'READY';
}

function painted(status: string, paint: Paint): string {
  if (status === 'READY') return paint.green(status);
  if (status === 'CREATING') return paint.yellow(status);
  return status === 'FAILED' ? paint.red(status) : paint.dim(status);
}

/** When the first of its clocks strikes, as far as that is known. */
function endsIn({ expiresAt, idleDeadline, status }: Sandbox, now: number): string {
  if (status !== 'READY') return '-';
  const next = Math.min(
    Date.parse(expiresAt),
    idleDeadline === undefined ? Number.POSITIVE_INFINITY : Date.parse(idleDeadline),
  );
  return duration(next - now);
}

function sandboxTable(sandboxes: readonly Sandbox[], paint: Paint): string {
  const now = Date.now();
  const rows = sandboxes.map((sandbox) => [
    sandbox.sandboxId,
    sandbox.status,
    sandbox.templateName,
    duration(now - Date.parse(sandbox.createdAt)),
    endsIn(sandbox, now),
    String(sandbox.clients),
    String(sandbox.viewers),
    sandbox.recording.state,
    sandbox.endedReason ?? entries(sandbox.metadata),
  ]);
  const head = ['SANDBOX', 'STATUS', 'TEMPLATE', 'AGE', 'ENDS IN', 'CLIENTS', 'VIEWERS', 'RECORDING', 'NOTES'];
  return table(head, rows, (cell, column) => (column === 1 ? painted(cell, paint) : cell));
}

function entries(metadata: Readonly<Record<string, string>>): string {
  return Object.entries(metadata)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ');
}

/** All there is to say about one. */
export function sandboxText(sandbox: Sandbox, paint: Paint): string {
  const now = Date.now();
  const { recording, viewport, status } = sandbox;
  const alive = isAlive(sandbox);
  const inTime = (at: string): string => `${at} (in ${duration(Date.parse(at) - now)})`;
  const text = fields([
    ['Sandbox', sandbox.sandboxId],
    ['Status', status],
    ['Template', sandbox.templateName],
    ['Created', `${sandbox.createdAt} (${duration(now - Date.parse(sandbox.createdAt))} ago)`],
    ['Ended', sandbox.endedAt],
    ['Reason', sandbox.endedReason],
    ['Expires', alive ? inTime(sandbox.expiresAt) : undefined],
    ['Idle until', sandbox.idleDeadline === undefined ? undefined : inTime(sandbox.idleDeadline)],
    ['Clients', alive ? `${sandbox.clients} driving, ${sandbox.viewers} watching` : undefined],
    [
      'Recording',
      `${recording.mode}, now ${recording.state}${recording.error === undefined ? '' : `: ${recording.error}`}`,
    ],
    ['Screen', `${viewport.width}x${viewport.height}`],
    ['Metadata', entries(sandbox.metadata)],
    ['CDP', sandbox.cdpUrl],
    ['VNC', sandbox.vncUrl],
    ['Live view', sandbox.liveViewUrl],
  ]);
  return text.replace(status, painted(status, paint));
}
