import { useState } from 'preact/hooks';
import type { Sandbox } from '../../client/client.ts';
import { CopyButton } from '../ui/copy.tsx';
import { snippets } from './snippets.ts';

/** Programs to copy, with this sandbox's address in them. */
export function Snippets({ box }: { box: Sandbox }) {
  const [name, setName] = useState('Puppeteer');
  if (!box.cdpUrl) return <p class="muted">There will be an address once it runs.</p>;
  const all = snippets(box.cdpUrl);
  const chosen = all.find((one) => one.name === name) ?? all[0];
  return (
    <div class="stack">
      <p class="fine">
        These run as they stand: the address has a ticket for this sandbox in it. Treat it like a password; “Share” can
        take it back.
      </p>
      <div class="segments wrap">
        {all.map((one) => (
          <button key={one.name} type="button" aria-pressed={one === chosen} onClick={() => setName(one.name)}>
            {one.name}
          </button>
        ))}
      </div>
      <div class="code-block">
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached with the keyboard */}
        <pre tabIndex={0}>
          <code>{chosen?.text}</code>
        </pre>
        <CopyButton text={chosen?.text ?? ''} what="the snippet" label="Copy" />
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
