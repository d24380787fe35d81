import { useState } from 'preact/hooks';
import type { Sandbox } from '../../client/client.ts';
import { ask, http } from '../api.ts';
import { to } from '../route.ts';
import { isLive } from '../sandboxes.ts';
import { Icon } from '../ui/icons.tsx';
import { complain } from '../ui/notices.tsx';

/** Below the screen: the recorder, and the way to what it has written. */
export function RecordingOf({ box, mayChange }: { box: Sandbox; mayChange: boolean }) {
  const [busy, setBusy] = useState(false);
  const { mode, state, sessionId, error } = box.recording;
  const on = state === 'recording' || state === 'paused';
  const toggle = async (): Promise<void> => {
    setBusy(true);
    const params = { path: { id: box.sandboxId } };
    try {
      await ask(
        on
          ? http.POST('/sandboxes/{id}/recordings/stop', { params })
          : http.POST('/sandboxes/{id}/recordings/start', { params }),
      );
    } catch (err) {
      complain(err);
    } finally {
      setBusy(false);
    }
  };
  const words = {
    off: mode === 'off' ? 'Recording is switched off for this sandbox.' : 'It is not being recorded.',
    recording: 'It is being recorded.',
    paused: `Recording pauses: ${error ?? 'the disk is full'}.`,
    failed: `Recording failed: ${error ?? ''}`,
  }[state];
  return (
    <div class="under-screen">
      <p class="muted">{isLive(box) ? words : 'What was recorded stays until it is deleted.'}</p>
      <div class="actions">
        {isLive(box) && mayChange && mode !== 'off' && (
          <button
            type="button"
            class="button small"
            disabled={busy || box.status !== 'READY'}
            onClick={() => void toggle()}
          >
            <Icon name={on ? 'stop' : 'film'} size={16} /> {on ? 'Stop recording' : 'Record'}
          </button>
        )}
        <a
          class="button small"
          href={
            sessionId ? to('recordings', sessionId) : `${to('recordings')}?sandbox=${encodeURIComponent(box.sandboxId)}`
          }
        >
          <Icon name="play" size={16} /> {sessionId ? 'Watch the recording' : 'Recordings'}
        </a>
      </div>
    </div>
  );
}
