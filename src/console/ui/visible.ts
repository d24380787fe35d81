import type { RefObject } from 'preact';
import { useEffect, useState } from 'preact/hooks';

const watched = new WeakMap<Element, (visible: boolean) => void>();
let observer: IntersectionObserver | undefined;

/** Whether an element is on the screen or nearly: one observer for the whole page, however long a list is. */
export function useVisible(element: RefObject<Element | null>): boolean {
  const [visible, setVisible] = useState(false);
  useEffect(() => {
    const node = element.current;
    if (!node) return;
    observer ??= new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) watched.get(target)?.(isIntersecting);
      },
      { rootMargin: '200px' },
    );
    watched.set(node, setVisible);
    observer.observe(node);
    return () => observer?.unobserve(node);
  }, [element]);
  return visible;
}
