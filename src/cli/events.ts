import { setTimeout as sleep } from 'node:timers/promises';
import type { SandboxEvent } from '../client/client.ts';
import { EXIT, failureOf } from './failure.ts';
import type { Io } from './io.ts';
import { json, plain } from './output.ts';
import { type CommonFlags, openSession, type Session } from './session.ts';

/** Between two attempts to find a service again that went away, in milliseconds. */
const RETRY_MS = 1_000;
/** Of a stream, what was before: enough to see where one is. */
const CONTEXT = 10;

interface EventsFlags extends CommonFlags {
  readonly follow?: true;
  readonly last?: number;
  readonly after?: string;
}

/** Events that the service remembers, of all sandboxes or of one, and with `--follow` those to come. With `--json` one a line. */
export async function events(io: Io, id: string | undefined, flags: EventsFlags): Promise<void> {
  const session = await openSession(io, flags);
  const last = flags.last ?? (flags.follow && flags.after === undefined ? CONTEXT : undefined);
  const { remembered, next } = await read(session, id, flags.after ?? '0-0');
  for (const event of last === undefined
    ? remembered
    : remembered.slice(remembered.length - Math.min(last, remembered.length)))
    show(session, event);
  if (flags.follow) await follow(session, id, next);
}

async function read(
  { client }: Session,
  id: string | undefined,
  after: string,
): Promise<{ remembered: SandboxEvent[]; next: string }> {
  const remembered: SandboxEvent[] = [];
  for (let next = after; ; ) {
    const page = await client.eventsPage(id, next);
    remembered.push(...page.events);
    next = page.next;
    if (page.events.length === 0) return { remembered, next };
  }
}

/** Goes on after the last event when the service was away. Ends with the sandbox that is followed, else only when it is told to. */
async function follow(session: Session, id: string | undefined, from: string): Promise<void> {
  const { io, client, url } = session;
  let after = from;
  let away = false;
  for (;;) {
    try {
      for await (const event of client.events(id, { after, signal: io.unread })) {
        after = event.id;
        away = false;
        show(session, event);
      }
      // A stream of one sandbox ends with it. One of all ends with the service.
      if (id !== undefined) return;
    } catch (err) {
      io.signal.throwIfAborted();
      if (io.unread.aborted) return;
      const failure = failureOf(err, url);
      if (failure.exitCode !== EXIT.unreachable) throw failure;
      if (!away) session.note(`${failure.message} Waiting for it to come back.`);
      away = true;
    }
    await sleep(RETRY_MS, undefined, { signal: io.signal }).catch(() => {});
    io.signal.throwIfAborted();
  }
}

function show({ io, json: asJson, paint }: Session, event: SandboxEvent): void {
  if (asJson) {
    io.stdout.write(`${json(event)}\n`);
    return;
  }
  const { id: _, at, type, sandboxId, owner: __, startStages: ___, ...more } = event;
  const details = Object.entries(more).map(([name, value]) => `${name}=${plain(String(value))}`);
  io.stdout.write(`${paint.dim(at)}  ${type.padEnd(18)}  ${[sandboxId, ...details].join(' ')}\n`);
}
