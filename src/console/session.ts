import { ask, type Failure, http } from './api.ts';
import { createStore } from './store.ts';

/** Who is signed in. */
export interface Session {
  readonly tenant: string;
  readonly role: 'admin' | 'user' | 'viewer';
  /** The service has no keys: everybody on this machine is an admin, and nobody has to sign in. */
  readonly open: boolean;
}

export type SessionState =
  | { readonly kind: 'unknown' }
  | { readonly kind: 'unreachable' }
  | { readonly kind: 'out'; readonly why?: string }
  | { readonly kind: 'in'; readonly session: Session };

/** The key itself is kept nowhere: it is exchanged for a cookie that no script can read. */
export const session = createStore<SessionState>({ kind: 'unknown' });

/** Finds out who is signed in; tries again until somebody answers. */
export async function resume(): Promise<void> {
  for (;;) {
    try {
      const { data } = await ask(http.GET('/session'));
      session.set({ kind: 'in', session: data });
      return;
    } catch (err) {
      const { status } = err as Failure;
      if (status === 401 || status === 403) {
        session.set(status === 403 ? { kind: 'out', why: (err as Failure).message } : { kind: 'out' });
        return;
      }
      session.set({ kind: 'unreachable' });
      await new Promise((wake) => setTimeout(wake, 2000));
    }
  }
}

/** Throws {@link Failure}. */
export async function signIn(key: string): Promise<void> {
  const { data } = await ask(http.POST('/session', { headers: { Authorization: `Bearer ${key}` } }));
  session.set({ kind: 'in', session: data });
}

export async function signOut(): Promise<void> {
  await ask(http.DELETE('/session')).catch(() => {}); // whatever it says, this page is done with it
  session.set({ kind: 'out' });
}

/** A call was refused for want of a session: it ended meanwhile. */
export function sessionEnded(): void {
  if (session.value.kind === 'in') session.set({ kind: 'out', why: 'Your session has ended. Sign in again.' });
}
