import { useState } from 'preact/hooks';
import type { Sandbox } from '../../client/client.ts';
import { SNIPPETS, type SnippetKind, snippet } from '../../client/snippets.ts';
import { CopyButton } from '../ui/copy.tsx';

const NAMES: Readonly<Record<SnippetKind, string>> = {
  puppeteer: 'Puppeteer',
  playwright: 'Playwright',
  python: 'Python',
  'browser-use': 'browser-use',
  curl: 'curl',
  ws: 'WebSocket',
};

/** Programs to copy, with this sandbox's address in them. */
export function Snippets({ box }: { box: Sandbox }) {
  const [kind, setKind] = useState<SnippetKind>('puppeteer');
  const text = snippet(kind, box)?.trimEnd();
  if (!box.cdpUrl || text === undefined) return <p class="muted">There will be an address once it runs.</p>;
  return (
    <div class="stack">
      <p class="fine">
        These run as they stand: the address has a ticket for this sandbox in it. Treat it like a password; “Share” can
        take it back.
      </p>
      <div class="segments wrap">
        {SNIPPETS.map((one) => (
          <button key={one} type="button" aria-pressed={one === kind} onClick={() => setKind(one)}>
            {NAMES[one]}
          </button>
        ))}
      </div>
      <div class="code-block">
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached with the keyboard */}
        <pre tabIndex={0}>
          <code>{text}</code>
        </pre>
        <CopyButton text={text} what="the snippet" label="Copy" />
      </div>
      <h3>Addresses</h3>
      <Address name="CDP" text={box.cdpUrl} />
      {box.vncUrl && <Address name="noVNC" text={box.vncUrl} />}
      {box.liveViewUrl && <Address name="Live view" text={box.liveViewUrl} />}
    </div>
  );
}

function Address({ name, text }: { name: string; text: string }) {
  return (
    <div class="address">
      <span class="address-name">{name}</span>
      <code class="clip" title={text}>
        {text}
      </code>
      <CopyButton text={text} what={`the address for ${name}`} />
    </div>
  );
}
