import { useEffect, useState } from 'preact/hooks';
import { follow, stop } from './events.ts';
import { Frame } from './frame.tsx';
import { useRoute } from './route.ts';
import { Detail } from './sandboxes/detail.tsx';
import { List } from './sandboxes/list.tsx';
import { session } from './session.ts';
import { SignIn } from './signin.tsx';
import { useStore } from './store.ts';
import { Mark } from './ui/icons.tsx';
import { Nothing, Toasts } from './ui/notices.tsx';

/** The console: nothing until it is known who looks, then a page by its address. */
export function App() {
  const state = useStore(session);
  const signedIn = state.kind === 'in';
  useEffect(() => {
    if (!signedIn) return;
    follow();
    return stop;
  }, [signedIn]);
  if (state.kind === 'in') {
    return (
      <Frame session={state.session}>
        <Page />
      </Frame>
    );
  }
  return (
    <>
      {state.kind === 'out' ? (
        <SignIn why={state.why} />
      ) : (
        <main class="waiting">
          <Mark size={48} />
          <p role="status">
            {state.kind === 'unreachable' ? 'The service does not answer. Trying again…' : 'One moment…'}
          </p>
        </main>
      )}
      <Toasts />
    </>
  );
}

const TITLES: Readonly<Record<string, string>> = {
  sandboxes: 'Sandboxes',
  recordings: 'Recordings',
  overview: 'Overview',
};

function Page() {
  const { page, id } = useRoute();
  useEffect(() => {
    document.title = `${id || (TITLES[page] ?? 'Not found')} · Berth`;
    // A new page begins at its top, and with its heading for those who listen to it.
    scrollTo(0, 0);
    document.getElementById('main')?.focus({ preventScroll: true });
  }, [page, id]);
  if (page === 'sandboxes') return id ? <Detail key={id} id={id} /> : <List />;
  if (page === 'recordings') return <Late key={id} load={() => (id ? player(id) : library())} />;
  if (page === 'overview') return <Late key="overview" load={overview} />;
  return (
    <Nothing title="There is nothing here">
      <a class="button" href="#/sandboxes">
        To the sandboxes
      </a>
    </Nothing>
  );
}

const library = async () => {
  const { Library } = await import('./recordings/library.tsx');
  return <Library />;
};
const player = async (id: string) => {
  const { Playback } = await import('./recordings/playback.tsx');
  return <Playback sessionId={id} />;
};
const overview = async () => {
  const { Overview } = await import('./overview/overview.tsx');
  return <Overview />;
};

/** A page whose code is fetched when somebody goes there. */
function Late({ load }: { load: () => Promise<preact.JSX.Element> }) {
  const [page, setPage] = useState<preact.JSX.Element>();
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    load().then(setPage, () => setFailed(true));
  }, []);
  if (failed) {
    return (
      <Nothing title="This page did not load">
        <p>The service may have been restarted with a newer console.</p>
        <button type="button" class="button" onClick={() => location.reload()}>
          Reload
        </button>
      </Nothing>
    );
  }
  return page ?? <p class="muted">Loading…</p>;
}
