import type { ComponentChildren } from 'preact';
import { connected } from './events.ts';
import { to, useRoute } from './route.ts';
import { type Session, signOut } from './session.ts';
import { useStore } from './store.ts';
import { nextTheme, theme } from './theme.ts';
import { Icon, type IconName, Mark } from './ui/icons.tsx';
import { Toasts } from './ui/notices.tsx';

const PAGES: readonly { readonly page: string; readonly label: string; readonly icon: IconName }[] = [
  { page: 'sandboxes', label: 'Sandboxes', icon: 'screen' },
  { page: 'recordings', label: 'Recordings', icon: 'film' },
  { page: 'overview', label: 'Overview', icon: 'chart' },
];

/** What is around every page. */
export function Frame({ session, children }: { session: Session; children: ComponentChildren }) {
  const { page } = useRoute();
  const up = useStore(connected);
  const pages = PAGES.filter((one) => one.page !== 'overview' || session.role === 'admin');
  return (
    <div class="frame">
      <button type="button" class="skip" onClick={skip}>
        Skip to the content
      </button>
      <header class="side">
        <a class="brand" href={to('sandboxes')}>
          <Mark />
          <span>Berth</span>
        </a>
        <nav aria-label="Pages">
          {pages.map(({ page: name, label, icon }) => (
            <a key={name} href={to(name)} aria-current={page === name ? 'page' : undefined}>
              <Icon name={icon} />
              <span>{label}</span>
            </a>
          ))}
          <a href="../docs">
            <Icon name="book" />
            <span>API</span>
          </a>
        </nav>
        <Who session={session} />
      </header>
      {!up && (
        <p class="banner" role="status">
          <Icon name="plug" /> The connection to the service is lost. What you see may be old; trying again…
        </p>
      )}
      <main id="main" tabIndex={-1}>
        {children}
      </main>
      <Toasts />
    </div>
  );
}

/** A link would do, were the address behind the `#` not the page's. */
function skip(): void {
  document.getElementById('main')?.focus();
}

const THEME_ICONS = { auto: 'contrast', light: 'sun', dark: 'moon' } as const;

function Who({ session }: { session: Session }) {
  const chosen = useStore(theme);
  return (
    <div class="who">
      <p class="who-name">
        <span class="off-screen">Signed in as </span>
        <strong>{session.open ? 'This machine' : session.tenant}</strong>
        <span class="muted">{session.open ? 'no keys are set' : session.role}</span>
      </p>
      <button
        type="button"
        class="button ghost icon-only"
        title={`Colours: ${chosen}`}
        aria-label={`Colours: ${chosen}. Change`}
        onClick={nextTheme}
      >
        <Icon name={THEME_ICONS[chosen]} />
      </button>
      {!session.open && (
        <button
          type="button"
          class="button ghost icon-only"
          title="Sign out"
          aria-label="Sign out"
          onClick={() => void signOut()}
        >
          <Icon name="out" />
        </button>
      )}
    </div>
  );
}
