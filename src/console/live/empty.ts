import { h, type VNode } from 'preact';
import { useEffect, useState } from 'preact/hooks';

/** How often the screen is looked at while it may be empty, in milliseconds; and how many looks there are. */
const LOOK_EVERY_MS = 1000;
const LOOKS = 20;

/**
 * A browser that has just started shows an empty page, and a desktop before its browser a plain grey: who sees that takes
 * it for broken. So while next to all of the screen has one colour, a line says what that is.
 */
export function useEmptyScreen(connected: boolean): VNode | null {
  const [empty, setEmpty] = useState(false);
  useEffect(() => {
    setEmpty(false);
    if (!connected) return;
    let looks = 0;
    const timer = setInterval(() => {
      looks += 1;
      const plain = isPlain(document.querySelector('.screen canvas'));
      setEmpty(plain);
      if (!plain || looks === LOOKS) clearInterval(timer);
      if (looks === LOOKS) setEmpty(false);
    }, LOOK_EVERY_MS);
    const done = (): void => {
      clearInterval(timer);
      setEmpty(false);
    };
    // Whoever uses it knows by now.
    addEventListener('keydown', done, { once: true, capture: true });
    return () => {
      clearInterval(timer);
      removeEventListener('keydown', done, { capture: true });
    };
  }, [connected]);
  if (!empty) return null;
  const words = 'Nothing is open in this browser yet. Type an address above, or connect a program.';
  return h('p', { class: 'screen-hint', role: 'status' }, words);
}

/** Whether one colour has all of the screen below the browser's bars, but for the mouse pointer. */
function isPlain(canvas: HTMLCanvasElement | null): boolean {
  if (!canvas || canvas.width === 0 || canvas.height === 0) return true;
  const small = document.createElement('canvas');
  small.width = 48;
  small.height = 27;
  const context = small.getContext('2d', { willReadFrequently: true });
  if (!context) return false;
  context.drawImage(canvas, 0, canvas.height * 0.125, canvas.width, canvas.height * 0.875, 0, 0, 48, 27);
  const { data } = context.getImageData(0, 0, 48, 27);
  const counts = new Map<number, number>();
  for (let i = 0; i < data.length; i += 4) {
    const colour = ((data[i] as number) << 16) | ((data[i + 1] as number) << 8) | (data[i + 2] as number);
    counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  return Math.max(...counts.values()) > 48 * 27 - 6;
}
