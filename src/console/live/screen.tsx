import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { useNow } from '../clock.ts';
import { endedBecause } from '../format.ts';
import { useStore } from '../store.ts';
import { Icon } from '../ui/icons.tsx';
import { type ConnectionOptions, ScreenConnection, type ScreenState } from './connection.ts';
import { Controls } from './controls.tsx';
import { useEmptyScreen } from './empty.ts';

interface ScreenProps {
  readonly options: ConnectionOptions;
  readonly autoconnect: boolean;
  /** Of the sandbox's screen, so that the page does not jump when it comes. */
  readonly viewport: { readonly width: number; readonly height: number };
  /** Fills its page instead of keeping its shape within one. */
  readonly fills?: boolean;
  /** What to offer with a state: a link to the recordings, a sign-in. */
  readonly offer: (state: ScreenState) => ComponentChildren;
}

/** The screen of a sandbox with what belongs to it: how it stands, and the buttons below. */
export function Screen({ options, autoconnect, viewport, fills = false, offer }: ScreenProps) {
  const target = useRef<HTMLDivElement>(null);
  const [connection, setConnection] = useState<ScreenConnection>();
  useEffect(() => {
    const made = new ScreenConnection(target.current as HTMLElement, options);
    setConnection(made);
    if (autoconnect) void made.connect();
    return () => made.close();
  }, []);
  return (
    <div class={fills ? 'live fills' : 'live'}>
      <div
        class="screen-frame"
        style={{ '--shape': fills ? 'auto' : `${viewport.width} / ${viewport.height}` }}
        onKeyDownCapture={(event) => {
          if (event.key !== 'Escape' || !event.shiftKey) return;
          event.preventDefault();
          event.stopPropagation();
          connection?.blur();
          document.querySelector<HTMLElement>('.screen-bar button, .screen-bar a')?.focus();
        }}
      >
        <div ref={target} id="screen" class="screen" />
        {connection && <Over connection={connection} offer={offer} />}
      </div>
      {connection && <Controls connection={connection} scaled={options.scale} />}
    </div>
  );
}

interface OverProps {
  readonly connection: ScreenConnection;
  readonly offer: (state: ScreenState) => ComponentChildren;
}

/** What lies over the screen while it cannot be seen. */
function Over({ connection, offer }: OverProps) {
  const state = useStore(connection.state);
  const empty = useEmptyScreen(state.kind === 'connected');
  const more = offer(state);
  const connect = (): void => void connection.connect();
  switch (state.kind) {
    case 'connected':
      return empty;
    case 'idle':
      return (
        <div class="veil">
          <button type="button" class="button primary" onClick={connect}>
            Connect
          </button>
        </div>
      );
    case 'connecting':
      return (
        <div class="veil" role="status">
          <span class="spinner" />
          <p>{connection.info.value?.starting ? 'The desktop is starting…' : 'Connecting…'}</p>
        </div>
      );
    case 'waiting':
      return (
        <div class="veil" role="status">
          <span class="spinner" />
          <p>
            {state.why} <Countdown until={state.again} />
          </p>
          <button type="button" class="button small" onClick={connect}>
            Try now
          </button>
        </div>
      );
    case 'lost':
      return (
        <div class="veil" role="status">
          <Icon name="plug" size={32} />
          <p>{state.why}</p>
          <button type="button" class="button" onClick={connect}>
            Connect again
          </button>
        </div>
      );
    case 'ended':
      return (
        <div class="veil" role="status">
          <Icon name="screen" size={36} />
          <h2>This sandbox has ended</h2>
          <p>{endedBecause(state.why)}</p>
          {more}
        </div>
      );
    case 'refused':
      return (
        <div class="veil" role="alert">
          <Icon name="warn" size={36} />
          <h2>{state.status === 404 ? 'There is no such sandbox' : 'You may not look at this'}</h2>
          <p>{state.why}</p>
          {more}
        </div>
      );
  }
}

function Countdown({ until }: { until: number }) {
  const left = Math.ceil((until - useNow()) / 1000);
  return <>{left > 0 ? `Connecting again in ${left} s…` : 'Connecting again…'}</>;
}
