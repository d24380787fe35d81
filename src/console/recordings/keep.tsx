import { useRef, useState } from 'preact/hooks';
import type { RecordedSession } from '../../client/client.ts';
import { addressOf, ask, failureOf, http } from '../api.ts';
import { bytes } from '../format.ts';
import { go } from '../route.ts';
import { session as signedIn } from '../session.ts';
import { Confirm } from '../ui/dialog.tsx';
import { Icon } from '../ui/icons.tsx';
import { complain, say } from '../ui/notices.tsx';

/** What one does with a recording besides looking: take it along as one file, or delete it. */
export function Keep({ session }: { session: RecordedSession }) {
  const [done, setDone] = useState<{ readonly got: number; readonly of: number }>();
  const [deleting, setDeleting] = useState(false);
  const cancel = useRef<AbortController>(undefined);
  const mayChange = signedIn.value.kind === 'in' && signedIn.value.session.role !== 'viewer';
  const { sessionId } = session;
  const take = async (format: 'mp4' | 'mkv'): Promise<void> => {
    const stop = new AbortController();
    cancel.current = stop;
    setDone({ got: 0, of: session.size });
    try {
      const file = await fetched(sessionId, format, stop.signal, (got, of) => setDone({ got, of }));
      const link = document.createElement('a');
      link.href = URL.createObjectURL(file);
      link.download = `${sessionId}.${format}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      say(`${link.download} is whole: ${bytes(file.size)}.`);
    } catch (err) {
      if (!stop.signal.aborted) complain(err);
    } finally {
      setDone(undefined);
    }
  };
  if (done) {
    const share = done.of > 0 ? Math.min(1, done.got / done.of) : 0;
    return (
      <div class="exporting">
        <label>
          <span>
            Exporting: {bytes(done.got)} of about {bytes(done.of)}
          </span>
          <progress max={1} value={share} />
        </label>
        <button type="button" class="button small" onClick={() => cancel.current?.abort()}>
          Cancel
        </button>
      </div>
    );
  }
  return (
    <div class="actions">
      <button type="button" class="button" onClick={() => void take('mp4')}>
        <Icon name="download" /> MP4
      </button>
      <button type="button" class="button" onClick={() => void take('mkv')}>
        <Icon name="download" /> MKV
      </button>
      {mayChange && (
        <button type="button" class="button danger-text" onClick={() => setDeleting(true)}>
          <Icon name="trash" /> Delete
        </button>
      )}
      {deleting && <Delete session={session} onClose={() => setDeleting(false)} />}
    </div>
  );
}

/** Throws Failure; and when the connection breaks, for then the file is not whole. */
async function fetched(
  sessionId: string,
  format: 'mp4' | 'mkv',
  signal: AbortSignal,
  onPart: (got: number, of: number) => void,
): Promise<Blob> {
  const response = await fetch(addressOf(`/recordings/${sessionId}/export?format=${format}`), { signal });
  if (!response.ok) throw failureOf(response, await response.json().catch(() => ({})));
  const { headers } = response;
  const of = Number(headers.get('Content-Length') ?? headers.get('Berth-Estimated-Length') ?? 0);
  const parts: BlobPart[] = [];
  let got = 0;
  const reader = response.body?.getReader();
  for (let part = await reader?.read(); part?.value; part = await reader?.read()) {
    parts.push(part.value);
    got += part.value.length;
    onPart(got, of);
  }
  return new Blob(parts, { type: headers.get('Content-Type') ?? '' });
}

function Delete({ session, onClose }: { session: RecordedSession; onClose: () => void }) {
  const [busy, setBusy] = useState(false);
  const remove = async (): Promise<void> => {
    setBusy(true);
    try {
      for (const { filename } of session.segments) {
        await ask(http.DELETE('/recordings/{filename}', { params: { path: { filename } } }));
      }
      say('The recording is deleted.');
      onClose();
      go('recordings');
    } catch (err) {
      complain(err);
      setBusy(false);
    }
  };
  return (
    <Confirm
      title="Delete this recording?"
      action="Delete recording"
      busy={busy}
      onConfirm={() => void remove()}
      onClose={onClose}
    >
      <p>
        {session.segments.length === 1 ? 'Its file goes' : `All ${session.segments.length} files go`} for good,{' '}
        {bytes(session.size)}.{session.status === 'recording' && ' The recorder goes on with a new file.'}
      </p>
    </Confirm>
  );
}
