import { useEffect, useState } from 'preact/hooks';
import type { Sandbox } from '../../client/client.ts';
import { asFailure, ask, type Failure, http } from '../api.ts';
import { Icon } from '../ui/icons.tsx';
import { complain, Problem, say } from '../ui/notices.tsx';
import { devToolsAddress } from './devtools.ts';

interface Page {
  readonly id: string;
  readonly title: string;
  readonly url: string;
  readonly health: 'ok' | 'unresponsive' | 'crashed';
}

/** Titles and addresses change without an event; in milliseconds. */
const LOOK_EVERY_MS = 3000;

/** The tabs of the browser. */
export function Pages({ box, mayChange }: { box: Sandbox; mayChange: boolean }) {
  const [pages, setPages] = useState<readonly Page[]>();
  const [failure, setFailure] = useState<Failure>();
  const ready = box.status === 'READY';
  const params = { path: { id: box.sandboxId } };
  const look = (): Promise<void> =>
    ask(http.GET('/sandboxes/{id}/pages', { params })).then(
      ({ data }) => {
        setPages(data.pages);
        setFailure(undefined);
      },
      (err) => setFailure(asFailure(err)),
    );
  useEffect(() => {
    if (!ready) return;
    void look();
    const timer = setInterval(() => !document.hidden && void look(), LOOK_EVERY_MS);
    return () => clearInterval(timer);
  }, [box.sandboxId, ready]);
  const close = async (page: Page): Promise<void> => {
    try {
      await ask(
        http.DELETE('/sandboxes/{id}/pages/{page}', { params: { path: { id: box.sandboxId, page: page.id } } }),
      );
      say('The page is closed.');
      await look();
    } catch (err) {
      complain(err);
    }
  };
  const inspect = async (page: Page): Promise<void> => {
    // Opened at once: a window that comes after an answer would be a pop-up.
    const opened = open('about:blank', '_blank');
    try {
      const address = await devToolsAddress(box.sandboxId, page.id);
      if (opened) opened.location.href = address;
    } catch (err) {
      opened?.close();
      complain(err);
    }
  };
  if (!ready) return <p class="muted">The browser is starting…</p>;
  if (failure && !pages) return <Problem failure={failure} onRetry={() => void look()} />;
  if (!pages) return <p class="muted">Loading…</p>;
  if (pages.length === 0) return <p class="muted">No page is open.</p>;
  return (
    <ul class="page-list">
      {pages.map((page) => (
        <li key={page.id}>
          <div class="page-text">
            <strong class="clip">{page.title || 'Untitled'}</strong>
            <span class="clip muted" title={page.url}>
              {page.url}
            </span>
            {page.health !== 'ok' && <span class="status failed">{page.health}</span>}
          </div>
          {mayChange && (
            <div class="page-actions">
              <button
                type="button"
                class="button ghost icon-only"
                title="Open DevTools in a new tab"
                aria-label={`Open DevTools for ${page.title || page.url}`}
                onClick={() => void inspect(page)}
              >
                <Icon name="bug" />
              </button>
              <button
                type="button"
                class="button ghost icon-only"
                title="Close this page"
                aria-label={`Close ${page.title || page.url}`}
                onClick={() => void close(page)}
              >
                <Icon name="close" />
              </button>
            </div>
          )}
        </li>
      ))}
    </ul>
  );
}
