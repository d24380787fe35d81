import { useEffect, useState } from 'preact/hooks';
import { onEvent } from '../events.ts';
import { counted } from '../format.ts';
import { useStore } from '../store.ts';
import { Icon } from '../ui/icons.tsx';
import { complain } from '../ui/notices.tsx';
import type { ScreenConnection } from './connection.ts';
import { changeControl, type Viewers, viewersOf } from './viewers.ts';

/** Control changes hands without an event; in milliseconds. */
const LOOK_EVERY_MS = 3000;

/** Who controls: for one who may only look, a word; for others, the way to take it and to give it back. */
export function Control({ connection }: { connection: ScreenConnection }) {
  const info = useStore(connection.info);
  const [all, setAll] = useState<Viewers>();
  const may = info?.role === 'control' && !connection.viewOnly;
  useEffect(() => {
    if (!may) return;
    const look = (): void => {
      // Of no use without an answer, and the screen works all the same.
      viewersOf(connection).then(setAll, () => {});
    };
    look();
    const timer = setInterval(() => !document.hidden && look(), LOOK_EVERY_MS);
    const stop = onEvent(look);
    return () => {
      clearInterval(timer);
      stop();
    };
  }, [connection, may]);
  if (!may) return <span class="label">View only</span>;
  const own = all?.viewers.find(({ viewerId }) => viewerId === connection.viewerId);
  const others = (all?.viewers.length ?? 1) - 1;
  const change = async (take: boolean): Promise<void> => {
    try {
      setAll(await changeControl(connection, take));
      if (take) connection.focus();
    } catch (err) {
      complain(err);
    }
  };
  return (
    <>
      {others > 0 && <span class="label">with {counted(others, 'other')}</span>}
      {all?.control === 'exclusive' && own && (
        <button type="button" class="button small" onClick={() => void change(!own.controls)}>
          <Icon name="hand" size={16} /> {own.controls ? 'Give back' : 'Take control'}
        </button>
      )}
    </>
  );
}
