import { useEffect, useState } from 'preact/hooks';

/** Where in the console we are: what stands after the `#`. */
export interface Route {
  readonly page: string;
  /** Of what the page is about; empty for lists. */
  readonly id: string;
  readonly query: URLSearchParams;
}

function read(): Route {
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const [page = '', id = ''] = path.split('/');
  return { page: page || 'sandboxes', id: decoded(id), query: new URLSearchParams(query) };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function useRoute(): Route {
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const onChange = (): void => setRoute(read());
    addEventListener('hashchange', onChange);
    return () => removeEventListener('hashchange', onChange);
  }, []);
  return route;
}

/** For `href`. Of this very page: live view and docs lie elsewhere and have links of their own. */
export function to(page: string, id = ''): string {
  return `${location.pathname}#/${page}${id ? `/${encodeURIComponent(id)}` : ''}`;
}

export function go(page: string, id = ''): void {
  location.hash = `/${page}${id ? `/${encodeURIComponent(id)}` : ''}`;
}
