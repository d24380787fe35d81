import { useEffect, useState } from 'preact/hooks';
import { useStore } from '../store.ts';
import { Icon } from '../ui/icons.tsx';
import { Clipboard } from './clipboard.tsx';
import type { ScreenConnection } from './connection.ts';
import { Control } from './control.tsx';

/** The buttons below a screen. */
export function Controls({ connection, scaled }: { connection: ScreenConnection; scaled: boolean }) {
  const state = useStore(connection.state);
  const info = useStore(connection.info);
  const [scale, setScale] = useState(scaled);
  const [clipboard, setClipboard] = useState(false);
  const up = state.kind === 'connected';
  const looksOnly = info?.role === 'view';
  useEffect(() => {
    connection.scale = scale;
  }, [connection, scale]);
  return (
    <div class="screen-bar">
      <span class={`dot ${state.kind}`} aria-hidden="true" />
      <span class="screen-state" role="status">
        {WORDS[state.kind]}
      </span>
      {up && <Control connection={connection} />}
      <span class="spacer" />
      {up && !looksOnly && (
        <>
          <button
            type="button"
            class="button ghost small"
            aria-expanded={clipboard}
            onClick={() => setClipboard(!clipboard)}
          >
            <Icon name="clipboard" size={16} /> Clipboard
          </button>
          <span class="fine keys-hint">
            <kbd>Shift</kbd>+<kbd>Esc</kbd> leaves the screen
          </span>
        </>
      )}
      <button
        type="button"
        class="button ghost icon-only"
        aria-pressed={!scale}
        title={scale ? 'Show every pixel' : 'Fit to the window'}
        aria-label={scale ? 'Show every pixel' : 'Fit to the window'}
        onClick={() => setScale(!scale)}
      >
        <Icon name="zoom" />
      </button>
      <button
        type="button"
        class="button ghost icon-only"
        title="Full screen"
        aria-label="Full screen"
        onClick={(event) => void fullScreen(event.currentTarget.closest('.live'))}
      >
        <Icon name="full" />
      </button>
      {clipboard && up && !looksOnly && <Clipboard connection={connection} />}
    </div>
  );
}

const WORDS = {
  idle: 'Not connected',
  connecting: 'Connecting',
  connected: 'Live',
  waiting: 'Connection lost',
  lost: 'Connection lost',
  ended: 'Ended',
  refused: 'Refused',
} as const;

async function fullScreen(element: Element | null): Promise<void> {
  // A frame may not, unless its page allows it.
  if (document.fullscreenElement) await document.exitFullscreen().catch(() => {});
  else await element?.requestFullscreen().catch(() => {});
}
