import { useState } from 'preact/hooks';
import { Icon } from './icons.tsx';
import { say } from './notices.tsx';

/** Puts text on this machine's clipboard; says so. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Only pages of https and of this machine have a clipboard; the old way works in the others.
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'off-screen';
    (document.querySelector('dialog[open]') ?? document.body).append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    if (!done) say('The browser does not let this page copy. Select the text and copy it yourself.', true);
    return done;
  }
}

/** `what` is copied, as in "Copy the address". */
export function CopyButton({ text, what, label }: { text: string; what: string; label?: string }) {
  const [done, setDone] = useState(false);
  const onClick = async (): Promise<void> => {
    if (!(await copy(text))) return;
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return (
    <button
      type="button"
      class={label ? 'button small' : 'button ghost icon-only'}
      aria-label={label ? undefined : `Copy ${what}`}
      title={`Copy ${what}`}
      onClick={onClick}
    >
      <Icon name={done ? 'check' : 'copy'} size={16} />
      {label && <span>{done ? 'Copied' : label}</span>}
      <span class="off-screen" role="status">
        {done ? 'Copied' : ''}
      </span>
    </button>
  );
}
