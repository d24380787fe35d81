import { useState } from 'preact/hooks';
import { bytes, duration, moment, position } from '../format.ts';
import { to } from '../route.ts';
import { Icon } from '../ui/icons.tsx';
import { Nothing, Problem } from '../ui/notices.tsx';
import { Keep } from './keep.tsx';
import { Player } from './player.tsx';
import { sandboxOf, useSession } from './session.ts';

/** One recording: the player, what happened, and its files. */
export function Playback({ sessionId }: { sessionId: string }) {
  const view = useSession(sessionId);
  const [target, setTarget] = useState<{ readonly seconds: number }>();
  const sandboxId = sandboxOf(sessionId);
  const { session, pieces, marks, failure, gone } = view;
  const back = (
    <a class="way-back" href={to('recordings')}>
      <Icon name="back" size={16} /> Recordings
    </a>
  );
  if (gone && !session) {
    return (
      <>
        {back}
        <Nothing title="There is no such recording">
          <p class="muted">Somebody has deleted it, its time was over, or it belongs to somebody else.</p>
        </Nothing>
      </>
    );
  }
  if (!session) return failure ? <Problem failure={failure} /> : <p class="muted">Loading…</p>;
  const grows = session.status === 'recording';
  return (
    <>
      {back}
      <header class="page-head">
        <div class="head-text">
          <h1 class="id-title">{sandboxId}</h1>
          {grows && <span class="status rec">Being recorded</span>}
          <p class="facts">
            <span>{moment(session.startedAt)}</span>
            <span>{duration(session.durationSeconds * 1000)}</span>
            <span>{bytes(session.size)}</span>
            <a href={to('sandboxes', sandboxId)}>The sandbox</a>
          </p>
        </div>
        {!gone && <Keep session={session} />}
      </header>
      <div class="detail">
        <section class="detail-screen" aria-label="Player">
          {gone ? (
            <div class="screen-frame over" role="alert">
              <Icon name="trash" size={36} />
              <h2>This recording has been deleted</h2>
              <p>Somebody has deleted it, or its time was over.</p>
            </div>
          ) : (
            <Player pieces={pieces} marks={marks} grows={grows || session.endedAt === null} target={target} />
          )}
        </section>
        <section class="detail-side panel side-list" aria-label="What happened">
          <h2>What happened</h2>
          {marks.length === 0 && <p class="muted">Nothing is remembered of that time.</p>}
          <ol class="marks">
            {marks.map(({ id, at, words }) => (
              <li key={id}>
                <button type="button" onClick={() => setTarget({ seconds: at })}>
                  <span class="mark-at">{position(at)}</span>
                  <span>{words}</span>
                </button>
              </li>
            ))}
          </ol>
          <h2>Files</h2>
          <ul class="files">
            {session.segments.map(({ filename, segment, size, downloadUrl, durationSeconds }) => (
              <li key={filename}>
                <span>
                  Segment {segment + 1}
                  <span class="muted">
                    {' '}
                    {durationSeconds === null ? 'being written' : duration(durationSeconds * 1000)}, {bytes(size)}
                  </span>
                </span>
                <a
                  class="button ghost icon-only"
                  href={`..${downloadUrl}`}
                  download={filename}
                  title={`Download ${filename}`}
                  aria-label={`Download segment ${segment + 1}`}
                >
                  <Icon name="download" size={16} />
                </a>
              </li>
            ))}
          </ul>
        </section>
      </div>
    </>
  );
}
