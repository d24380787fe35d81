import type { Sandbox } from '../client/client.ts';
import { asFailure, ask, type Failure, http } from './api.ts';
import { onEvent } from './events.ts';
import { sessionEnded } from './session.ts';
import { createStore } from './store.ts';

export interface SandboxList {
  readonly sandboxes: readonly Sandbox[];
  /** Of all pages, which may be more than are here. */
  readonly total: number;
  readonly loaded: boolean;
  readonly failure?: Failure | undefined;
}

/** What the service knows, newest first; kept up to date while somebody looks. */
export const list = createStore<SandboxList>({ sandboxes: [], total: 0, loaded: false });

/** Most that are listed. Who has more than that filters by other means. */
const MAX_LISTED = 1000;
const PAGE = 100;
/** Deadlines and counts move without an event; in milliseconds. */
const LOOK_EVERY_MS = 15_000;
/** Events come in bursts; in milliseconds. */
const GATHER_MS = 150;

let loading = false;
let wanted = false;

/** Looks at all of them anew; calls while one is under way make one more. */
export async function reload(): Promise<void> {
  if (loading) {
    wanted = true;
    return;
  }
  loading = true;
  try {
    const all: Sandbox[] = [];
    let total = 0;
    for (let page = 1; all.length < MAX_LISTED; page++) {
      const query = { page, page_size: PAGE };
      const { data } = await ask(http.GET('/sandboxes', { params: { query } }));
      all.push(...data.sandboxes);
      total = data.total;
      if (data.sandboxes.length < PAGE) break;
    }
    list.set({ sandboxes: all, total, loaded: true });
  } catch (err) {
    const failure = asFailure(err);
    if (failure.status === 401) sessionEnded();
    list.set({ ...list.value, failure });
  } finally {
    loading = false;
    if (wanted) {
      wanted = false;
      void reload();
    }
  }
}

/** Keeps the list up to date; answers what ends that. */
export function watchList(): () => void {
  let gathering: ReturnType<typeof setTimeout> | undefined;
  const soon = (): void => {
    gathering ??= setTimeout(() => {
      gathering = undefined;
      void reload();
    }, GATHER_MS);
  };
  void reload();
  const timer = setInterval(() => !document.hidden && soon(), LOOK_EVERY_MS);
  const stopListening = onEvent(soon);
  return () => {
    clearInterval(timer);
    clearTimeout(gathering);
    stopListening();
  };
}

/** Whether it still runs, or is about to. */
export function isLive({ status }: Pick<Sandbox, 'status'>): boolean {
  return status === 'CREATING' || status === 'READY';
}

/** When it will end if nothing happens, and why; undefined for one that has ended. */
export function deadline(box: Sandbox): { readonly at: number; readonly why: string } | undefined {
  if (!isLive(box)) return undefined;
  const expires = Date.parse(box.expiresAt);
  const idle = box.idleDeadline === undefined ? Number.POSITIVE_INFINITY : Date.parse(box.idleDeadline);
  return idle < expires ? { at: idle, why: 'idle timeout' } : { at: expires, why: 'end of its lifetime' };
}
