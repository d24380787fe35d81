import { useEffect, useState } from 'preact/hooks';
import { useStore } from '../store.ts';
import { copy } from '../ui/copy.tsx';
import { say } from '../ui/notices.tsx';
import type { ScreenConnection } from './connection.ts';

/** The clipboard of the sandbox, to be read and written here. */
export function Clipboard({ connection }: { connection: ScreenConnection }) {
  const copied = useStore(connection.copied);
  const [text, setText] = useState('');
  useEffect(() => {
    if (copied !== undefined) setText(copied);
  }, [copied]);
  return (
    <div class="clipboard">
      <label class="field">
        <span>Clipboard of the sandbox</span>
        <textarea
          rows={4}
          value={text}
          placeholder="What is copied in there shows here."
          spellcheck={false}
          onInput={(event) => setText(event.currentTarget.value)}
        />
      </label>
      <div class="actions">
        <button
          type="button"
          class="button small primary"
          onClick={() => {
            connection.paste(text);
            say('It is on the clipboard of the sandbox. Paste it there with Ctrl+V.');
            connection.focus();
          }}
        >
          Send
        </button>
        <button
          type="button"
          class="button small"
          title="Key by key into what has the focus; also where the sandbox has no clipboard"
          onClick={() => {
            connection.focus();
            void connection.type(text);
          }}
        >
          Type it
        </button>
        <button type="button" class="button small" onClick={async () => (await copy(text)) && say('Copied.')}>
          Copy here
        </button>
      </div>
    </div>
  );
}
