import '@fontsource-variable/inter/wght.css';
import '../styles/tokens.css';
import '../styles/base.css';
import '../styles/parts.css';
import '../styles/screen.css';
import '../theme.ts';
import { render } from 'preact';
import { Toasts } from '../ui/notices.tsx';
import type { ScreenState } from './connection.ts';
import { Screen } from './screen.tsx';

/** As noVNC's own page reads its address. */
function isOn(query: URLSearchParams, name: string, otherwise: boolean): boolean {
  const value = query.get(name);
  return value === null ? otherwise : !['0', 'false', 'no', 'off'].includes(value.toLowerCase());
}

const query = new URLSearchParams(location.search);
const sandboxId = decodeURIComponent(/\/sandboxes\/([^/]+)\/live\/?$/.exec(location.pathname)?.[1] ?? '');
const home = new URL('.', document.baseURI).href;

function offer(state: ScreenState) {
  if (state.kind === 'ended') {
    return (
      <a class="button" target="_top" href={`${home}#/recordings?sandbox=${encodeURIComponent(sandboxId)}`}>
        Its recordings
      </a>
    );
  }
  if (state.kind !== 'refused') return null;
  return (
    <>
      <p>Ask whoever gave you this link for a new one, or sign in.</p>
      <a class="button primary" target="_top" href={`${home}#/sandboxes/${encodeURIComponent(sandboxId)}`}>
        Sign in
      </a>
    </>
  );
}

const delay = Number(query.get('reconnect_delay') ?? Number.NaN);
const options = {
  sandboxId,
  ticket: query.get('ticket') ?? undefined,
  viewOnly: isOn(query, 'view_only', false),
  scale: (query.get('resize') ?? 'scale') !== 'off',
  reconnect: isOn(query, 'reconnect', true),
  reconnectDelay: delay >= 100 && delay <= 60_000 ? delay : 1000,
};

render(
  <main class="live-page">
    <h1 class="off-screen">Screen of the sandbox {sandboxId}</h1>
    <Screen
      options={options}
      autoconnect={isOn(query, 'autoconnect', true)}
      viewport={{ width: 16, height: 9 }}
      fills
      offer={offer}
    />
    <Toasts />
  </main>,
  document.getElementById('app') as HTMLElement,
);
