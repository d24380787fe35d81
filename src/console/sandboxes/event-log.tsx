import { useEffect, useState } from 'preact/hooks';
import type { SandboxEvent } from '../../client/client.ts';
import { ask, http } from '../api.ts';
import { onEvent } from '../events.ts';
import { counted, endedBecause, moment, timeOfDay } from '../format.ts';
import { complain } from '../ui/notices.tsx';

const SHOWN = 200;

/** What happened to one sandbox, the newest first, as it happens. */
export function EventLog({ sandboxId }: { sandboxId: string }) {
  const [events, setEvents] = useState<readonly SandboxEvent[]>([]);
  useEffect(() => {
    const add = (more: readonly SandboxEvent[]): void =>
      setEvents((before) => {
        const known = new Set(before.map(({ id }) => id));
        return [...before, ...more.filter(({ id }) => !known.has(id))].slice(-SHOWN);
      });
    const load = async (): Promise<void> => {
      const query = { after: '0-0', limit: 1000 };
      const page = await ask(http.GET('/sandboxes/{id}/events', { params: { path: { id: sandboxId }, query } }));
      // As a stream it would be text.
      if (typeof page === 'object') add(page.data.events);
    };
    load().catch(complain);
    return onEvent((event) => {
      if (event === undefined) load().catch(() => {});
      else if (event.sandboxId === sandboxId) add([event]);
    });
  }, [sandboxId]);
  if (events.length === 0) return <p class="muted">Nothing is remembered of this sandbox.</p>;
  return (
    <ol class="log" aria-live="polite" aria-relevant="additions">
      {[...events].reverse().map((event) => (
        <li key={event.id} data-type={event.type}>
          <time dateTime={event.at} title={moment(event.at)}>
            {timeOfDay(event.at)}
          </time>
          <span>{saidOf(event)}</span>
        </li>
      ))}
    </ol>
  );
}

/** An event in words. */
export function saidOf(event: SandboxEvent): string {
  switch (event.type) {
    case 'sandbox.creating':
      return 'It is being started.';
    case 'sandbox.adopted':
      return 'The service was restarted and took it over.';
    case 'sandbox.ready':
      return `It is ready${event.startMs === undefined ? '' : ` after ${event.startMs} ms`}.`;
    case 'sandbox.ended':
      return endedBecause(event.endedReason);
    case 'client.joined':
      return `A client connected (${counted(event.clients ?? 0, 'client')} now).`;
    case 'client.left':
      return `A client left (${counted(event.clients ?? 0, 'client')} now).`;
    case 'viewer.joined':
      return `A viewer came (${counted(event.viewers ?? 0, 'viewer')} now).`;
    case 'viewer.left':
      return `A viewer left (${counted(event.viewers ?? 0, 'viewer')} now).`;
    case 'viewer.control':
      return event.viewerId ? 'A viewer took control.' : 'Control is free.';
    case 'browser.down':
      return 'The browser ended.';
    case 'browser.restarted':
      return 'The browser was started again.';
    case 'recording.started':
      return 'Recording began.';
    case 'recording.stopped':
      return 'Recording stopped.';
    case 'recorder.paused':
      return `Recording pauses: ${event.error ?? ''}`;
    case 'recorder.failed':
      return `Recording failed: ${event.error ?? ''}`;
    case 'recording.closed':
      return `A segment is complete: ${event.filename ?? ''}`;
    case 'recording.removed':
      return `A segment was removed: ${event.filename ?? ''}`;
    default:
      return event.type;
  }
}
