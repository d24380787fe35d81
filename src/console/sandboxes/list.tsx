import { useEffect, useMemo, useState } from 'preact/hooks';
import type { Sandbox } from '../../client/client.ts';
import { SERVICE } from '../api.ts';
import { isLive, list, reload, watchList } from '../sandboxes.ts';
import { session } from '../session.ts';
import { useStore } from '../store.ts';
import { CopyButton } from '../ui/copy.tsx';
import { Icon } from '../ui/icons.tsx';
import { Nothing, Problem } from '../ui/notices.tsx';
import { SearchField } from '../ui/search.tsx';
import { Card } from './card.tsx';
import { Create } from './create.tsx';

const SHOWN = ['Running', 'Ended', 'All'] as const;
type Shown = (typeof SHOWN)[number];

/** All sandboxes that the session may see. */
export function List() {
  const { sandboxes, total, loaded, failure } = useStore(list);
  const [shown, setShown] = useState<Shown>('Running');
  const [words, setWords] = useState('');
  const [creating, setCreating] = useState(false);
  useEffect(watchList, []);
  const live = sandboxes.filter(isLive).length;
  const found = useMemo(
    () => sandboxes.filter((box) => isShown(box, shown) && matches(box, words)),
    [sandboxes, shown, words],
  );
  const mayChange = session.value.kind === 'in' && session.value.session.role !== 'viewer';
  const startNew = mayChange && (
    <button type="button" class="button primary" onClick={() => setCreating(true)}>
      <Icon name="plus" /> New sandbox
    </button>
  );
  return (
    <>
      <header class="page-head">
        <div>
          <h1>Sandboxes</h1>
          <p class="muted" role="status">
            {loaded ? `${live} running, ${sandboxes.length - live} ended` : 'Loading…'}
            {total > sandboxes.length && ` (the newest ${sandboxes.length} of ${total})`}
          </p>
        </div>
        {startNew}
      </header>
      <search class="filters">
        <div class="segments">
          {SHOWN.map((one) => (
            <button key={one} type="button" aria-pressed={shown === one} onClick={() => setShown(one)}>
              {one}
            </button>
          ))}
        </div>
        <SearchField
          label="Search by id, template or metadata"
          placeholder="Search id, template, metadata"
          value={words}
          onInput={setWords}
        />
      </search>
      {failure && <Problem failure={failure} onRetry={() => void reload()} />}
      {found.length > 0 && (
        <ul class="cards">
          {found.map((box) => (
            <Card key={`${box.sandboxId} ${box.createdAt}`} box={box} />
          ))}
        </ul>
      )}
      {loaded && found.length === 0 && <Empty all={sandboxes.length} shown={shown} words={words} action={startNew} />}
      {creating && <Create onClose={() => setCreating(false)} />}
    </>
  );
}

function isShown(box: Sandbox, shown: Shown): boolean {
  return shown === 'All' || (shown === 'Running') === isLive(box);
}

function matches(box: Sandbox, words: string): boolean {
  const text = [box.sandboxId, box.templateName, ...Object.entries(box.metadata).flat()].join(' ').toLowerCase();
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

interface EmptyProps {
  readonly all: number;
  readonly shown: Shown;
  readonly words: string;
  readonly action: preact.ComponentChild;
}

function Empty({ all, shown, words, action }: EmptyProps) {
  if (words.trim() !== '') {
    return (
      <Nothing title="Nothing matches">
        <p class="muted">Try fewer words, or look among all.</p>
      </Nothing>
    );
  }
  if (shown === 'Ended') return <Nothing title="None has ended yet" />;
  const curl = `curl -X POST ${SERVICE}/sandboxes`;
  return (
    <Nothing title={all === 0 ? 'No sandbox yet' : 'None is running'}>
      <p class="muted">
        A sandbox is a real Chromium on a desktop of its own: drive it by program, watch it, take over.
      </p>
      <p>{action}</p>
      <p class="muted">or from a shell</p>
      <div class="code-line">
        <code>{curl}</code>
        <CopyButton text={curl} what="the command" />
      </div>
    </Nothing>
  );
}
