import { useEffect, useState } from 'preact/hooks';
import type { Sandbox } from '../../client/client.ts';
import { addressOf } from '../api.ts';
import { Icon } from '../ui/icons.tsx';

/** How often the picture of a screen is fetched anew while it is looked at, in milliseconds. */
const AGAIN_MS = 5000;
/** Wide enough for a card on a screen of two pixels to the point. */
const WIDTH = 480;

/** The screen of a sandbox a few seconds ago; of one that has none, a sign. The old picture stays until the next is there. */
export function Thumbnail({ box }: { box: Sandbox }) {
  const [src, setSrc] = useState<string>();
  const ready = box.status === 'READY';
  useEffect(() => {
    if (!ready) return;
    let over = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let shown: string | undefined;
    const look = async (): Promise<void> => {
      try {
        if (document.hidden) return;
        const response = await fetch(addressOf(`/sandboxes/${box.sandboxId}/screenshot?width=${WIDTH}`));
        if (!response.ok || over) return;
        const next = URL.createObjectURL(await response.blob());
        if (over) return URL.revokeObjectURL(next);
        setSrc(next);
        if (shown) URL.revokeObjectURL(shown);
        shown = next;
      } catch {
        // The service is away; the next look will tell.
      } finally {
        if (!over) timer = setTimeout(look, AGAIN_MS);
      }
    };
    void look();
    return () => {
      over = true;
      clearTimeout(timer);
      if (shown) URL.revokeObjectURL(shown);
    };
  }, [ready, box.sandboxId]);
  if (ready && src) return <img src={src} alt="" width={16} height={9} decoding="async" />;
  return (
    <span class={`no-picture ${box.status.toLowerCase()}`}>
      <Icon name={box.status === 'FAILED' ? 'warn' : 'screen'} size={28} />
    </span>
  );
}
