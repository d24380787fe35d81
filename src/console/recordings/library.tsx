import { useEffect, useState } from 'preact/hooks';
import type { RecordingSession } from '../../client/client.ts';
import { addressOf, asFailure, ask, type Failure, http } from '../api.ts';
import { useNow } from '../clock.ts';
import { onEvent } from '../events.ts';
import { bytes, counted, duration, moment } from '../format.ts';
import { to, useRoute } from '../route.ts';
import { Icon } from '../ui/icons.tsx';
import { Nothing, Problem } from '../ui/notices.tsx';
import { SearchField } from '../ui/search.tsx';

const PAGE = 48;
const GATHER_MS = 400;
const STATES = [
  ['', 'All'],
  ['recording', 'Being recorded'],
  ['completed', 'Complete'],
] as const;

/** All recordings that the session may see, the newest first. */
export function Library() {
  const { query } = useRoute();
  const [sandbox, setSandbox] = useState(query.get('sandbox') ?? '');
  const [status, setStatus] = useState<(typeof STATES)[number][0]>('');
  const [since, setSince] = useState('');
  const [pages, setPages] = useState(1);
  const [found, setFound] = useState<readonly RecordingSession[]>();
  const [total, setTotal] = useState(0);
  const [failure, setFailure] = useState<Failure>();
  const asked = query.get('sandbox') ?? '';
  useEffect(() => setSandbox(asked), [asked]);
  useEffect(() => {
    let over = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = async (): Promise<void> => {
      const all: RecordingSession[] = [];
      try {
        for (let page = 1; page <= pages; page++) {
          const answer = await ask(
            http.GET('/recordings/sessions', {
              params: {
                query: {
                  page,
                  page_size: PAGE,
                  ...(sandbox.trim() ? { sandboxId: sandbox.trim() } : {}),
                  ...(status ? { status } : {}),
                  ...(since ? { since: new Date(since).toISOString() } : {}),
                },
              },
            }),
          );
          all.push(...answer.sessions);
          if (!over) setTotal(answer.total);
          if (answer.sessions.length < PAGE) break;
        }
        if (over) return;
        setFound(all);
        setFailure(undefined);
      } catch (err) {
        if (over) return;
        const failed = asFailure(err);
        // A name that nobody has, or only in part, as one that is being typed.
        setFound([]);
        setTotal(0);
        setFailure(failed.status === 404 ? undefined : failed);
      }
    };
    const soon = (): void => {
      clearTimeout(timer);
      timer = setTimeout(() => void look(), GATHER_MS);
    };
    soon();
    const stop = onEvent((event) => {
      if (event === undefined || event.type.startsWith('recording')) soon();
    });
    return () => {
      over = true;
      clearTimeout(timer);
      stop();
    };
  }, [sandbox, status, since, pages]);
  const filtered = sandbox.trim() !== '' || status !== '' || since !== '';
  return (
    <>
      <header class="page-head">
        <div>
          <h1>Recordings</h1>
          <p class="muted" role="status">
            {found ? counted(total, 'recording') : 'Loading…'}
          </p>
        </div>
      </header>
      <search class="filters">
        <div class="segments">
          {STATES.map(([value, words]) => (
            <button key={value} type="button" aria-pressed={status === value} onClick={() => setStatus(value)}>
              {words}
            </button>
          ))}
        </div>
        <SearchField label="Id of the sandbox" placeholder="Id of the sandbox" value={sandbox} onInput={setSandbox} />
        <label class="since">
          <span class="muted">Since</span>
          <input type="date" value={since} onInput={(event) => setSince(event.currentTarget.value)} />
        </label>
      </search>
      {failure && <Problem failure={failure} />}
      {found && found.length > 0 && (
        <ul class="cards">
          {found.map((session) => (
            <Film key={session.sessionId} session={session} />
          ))}
        </ul>
      )}
      {found && found.length < total && found.length > 0 && (
        <p class="more">
          <button type="button" class="button" onClick={() => setPages(pages + 1)}>
            Show more ({total - found.length} left)
          </button>
        </p>
      )}
      {found?.length === 0 && !failure && (
        <Nothing title={filtered ? 'Nothing matches' : 'No recording yet'}>
          <p class="muted">
            {filtered
              ? 'Try fewer filters.'
              : 'Press “Record” below the screen of a sandbox, or start one with recording set to always.'}
          </p>
        </Nothing>
      )}
    </>
  );
}

function Film({ session }: { session: RecordingSession }) {
  const { sessionId, sandboxId, status, startedAt, durationSeconds, size, posterUrl, removedAt, metadata } = session;
  const now = useNow(removedAt !== null);
  // It may have gone since the list was read, or be one that cannot be made.
  const [missing, setMissing] = useState<string>();
  return (
    <li class="card">
      <a class="card-link" href={to('recordings', sessionId)}>
        <div class="thumb">
          {posterUrl && posterUrl !== missing ? (
            <img
              src={addressOf(posterUrl)}
              alt=""
              width={16}
              height={9}
              loading="lazy"
              decoding="async"
              onError={() => setMissing(posterUrl)}
            />
          ) : (
            <span class="no-picture">
              <Icon name="film" size={28} />
            </span>
          )}
          <span class="thumb-length">{status === 'recording' ? 'live' : duration(durationSeconds * 1000)}</span>
        </div>
        <div class="card-text">
          <div class="card-title">
            <span class="card-id">{sandboxId}</span>
            {status === 'recording' && <span class="status rec">REC</span>}
          </div>
          <p class="facts">
            <span>{moment(startedAt)}</span>
            <span>{bytes(size)}</span>
          </p>
          <p class="facts">
            {removedAt && (
              <span title={`Kept until ${moment(removedAt)}`}>removed in {duration(Date.parse(removedAt) - now)}</span>
            )}
            {Object.entries(metadata)
              .slice(0, 2)
              .map(([key, value]) => (
                <span key={key} class="label">
                  {key}: {value}
                </span>
              ))}
          </p>
        </div>
      </a>
    </li>
  );
}
