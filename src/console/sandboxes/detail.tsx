import { useState } from 'preact/hooks';
import type { Sandbox } from '../../client/client.ts';
import { CODES } from '../api.ts';
import { useNow } from '../clock.ts';
import { counted, duration, endedBecause, moment } from '../format.ts';
import { LiveView } from '../live/view.tsx';
import { to } from '../route.ts';
import { deadline, isLive } from '../sandboxes.ts';
import { session } from '../session.ts';
import { Icon } from '../ui/icons.tsx';
import { Nothing, Problem } from '../ui/notices.tsx';
import { Tabs } from '../ui/tabs.tsx';
import { Snippets } from './connect.tsx';
import { EventLog } from './event-log.tsx';
import { Extend, Stop } from './life.tsx';
import { Pages } from './pages.tsx';
import { RecordingOf } from './recording.tsx';
import { Share } from './share.tsx';
import { Status } from './status.tsx';
import { useSandbox } from './use-sandbox.ts';

/** One sandbox: its screen, what one can do with it, and what happens to it. */
export function Detail({ id }: { id: string }) {
  const { box, failure, look } = useSandbox(id);
  const [tab, setTab] = useState('connect');
  if (!box) {
    if (failure?.code === CODES.sandboxNotFound) {
      return (
        <Nothing title="There is no such sandbox">
          <p class="muted">The service does not know “{id}”, or it belongs to somebody else.</p>
          <a class="button" href={to('sandboxes')}>
            To the sandboxes
          </a>
        </Nothing>
      );
    }
    return failure ? <Problem failure={failure} onRetry={() => void look()} /> : <p class="muted">Loading…</p>;
  }
  const mayChange = session.value.kind === 'in' && session.value.session.role !== 'viewer';
  const live = isLive(box);
  const tabs = [
    ...(live && mayChange ? [{ name: 'connect', label: 'Connect' }] : []),
    ...(live ? [{ name: 'pages', label: 'Pages' }] : []),
    { name: 'events', label: 'Events' },
    { name: 'about', label: 'Details' },
  ];
  const chosen = tabs.some(({ name }) => name === tab) ? tab : (tabs[0]?.name ?? 'events');
  return (
    <>
      <a class="way-back" href={to('sandboxes')}>
        <Icon name="back" size={16} /> Sandboxes
      </a>
      <header class="page-head">
        <div class="head-text">
          <h1 class="id-title">{box.sandboxId}</h1>
          <Status box={box} />
          <Life box={box} />
        </div>
        {live && mayChange && <Actions box={box} look={look} />}
      </header>
      {failure && failure.code !== 0 && <Problem failure={failure} onRetry={() => void look()} />}
      <div class="detail">
        <section class="detail-screen" aria-label="Screen">
          {live ? (
            <LiveView key={box.createdAt} sandboxId={box.sandboxId} viewport={box.viewport} />
          ) : (
            <Over box={box} />
          )}
          <RecordingOf box={box} mayChange={mayChange} />
        </section>
        <section class="detail-side panel" aria-label="About this sandbox">
          <Tabs label="About this sandbox" tabs={tabs} chosen={chosen} onChoose={setTab}>
            {chosen === 'connect' && <Snippets box={box} />}
            {chosen === 'pages' && <Pages box={box} mayChange={mayChange} />}
            {chosen === 'events' && <EventLog sandboxId={box.sandboxId} />}
            {chosen === 'about' && <Facts box={box} />}
          </Tabs>
        </section>
      </div>
    </>
  );
}

function Life({ box }: { box: Sandbox }) {
  const live = isLive(box);
  const now = useNow(live);
  const ends = deadline(box);
  if (!live) return <p class="muted">{moment(box.endedAt ?? box.lastUpdatedAt)}</p>;
  return (
    <p class="muted facts">
      <span>{duration(now - Date.parse(box.createdAt))} old</span>
      {ends && (
        <span class={ends.at - now < 60_000 ? 'soon' : ''}>
          ends in {duration(ends.at - now)} ({ends.why})
        </span>
      )}
      <span>{counted(box.clients, 'client')}</span>
      <span>{counted(box.viewers, 'viewer')}</span>
    </p>
  );
}

function Actions({ box, look }: { box: Sandbox; look: () => Promise<void> }) {
  const [open, setOpen] = useState<'extend' | 'share' | 'stop'>();
  const close = (): void => setOpen(undefined);
  return (
    <div class="actions">
      <button type="button" class="button" disabled={box.status !== 'READY'} onClick={() => setOpen('extend')}>
        <Icon name="clock" /> Extend
      </button>
      <button type="button" class="button" onClick={() => setOpen('share')}>
        <Icon name="share" /> Share
      </button>
      <button type="button" class="button danger-text" onClick={() => setOpen('stop')}>
        <Icon name="stop" /> Stop
      </button>
      {open === 'extend' && <Extend box={box} look={look} onClose={close} />}
      {open === 'share' && <Share box={box} onClose={close} />}
      {open === 'stop' && <Stop box={box} look={look} onClose={close} />}
    </div>
  );
}

/** In place of the screen when there is none any more. */
function Over({ box }: { box: Sandbox }) {
  return (
    <div class="screen-frame over" role="status">
      <Icon name={box.status === 'FAILED' ? 'warn' : 'screen'} size={36} />
      <h2>{box.status === 'FAILED' ? 'This sandbox failed' : 'This sandbox has ended'}</h2>
      <p>{endedBecause(box.endedReason)}</p>
    </div>
  );
}

function Facts({ box }: { box: Sandbox }) {
  const rows: [string, string][] = [
    ['Template', box.templateName],
    ['Created', moment(box.createdAt)],
    ...(box.endedAt ? ([['Ended', moment(box.endedAt)]] as [string, string][]) : []),
    ['Screen', `${box.viewport.width} × ${box.viewport.height}`],
    ['Lifetime', duration(box.maxLifetimeSeconds * 1000)],
    ['Idle timeout', duration(box.sandboxIdleTimeoutSeconds * 1000)],
    ['Activity', box.activity === 'any' ? 'clients and viewers' : 'clients alone'],
    ['When a client closes the browser', box.onBrowserClose],
    ['Recording', `${box.recording.mode}${box.recording.error ? `: ${box.recording.error}` : ''}`],
    ['Browser restarts', String(box.browserRestarts)],
    ...Object.entries(box.startStages).map(([stage, ms]): [string, string] => [`Start: ${stage}`, `${ms} ms`]),
    ...Object.entries(box.metadata).map(([key, value]): [string, string] => [`Metadata: ${key}`, value]),
  ];
  return (
    <dl class="rows">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
