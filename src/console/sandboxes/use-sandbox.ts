import { useEffect, useState } from 'preact/hooks';
import type { Sandbox } from '../../client/client.ts';
import { asFailure, ask, type Failure, http } from '../api.ts';
import { onEvent } from '../events.ts';
import { isLive } from '../sandboxes.ts';
import { sessionEnded } from '../session.ts';

/** Deadlines move without an event; in milliseconds. */
const LOOK_EVERY_MS = 5000;

export interface Looked {
  readonly box: Sandbox | undefined;
  readonly failure: Failure | undefined;
  readonly look: () => Promise<void>;
}

/** One sandbox, kept up to date while its page is open. */
export function useSandbox(id: string): Looked {
  const [box, setBox] = useState<Sandbox>();
  const [failure, setFailure] = useState<Failure>();
  const look = async (): Promise<void> => {
    try {
      const { data } = await ask(http.GET('/sandboxes/{id}', { params: { path: { id } } }));
      setBox(data);
      setFailure(undefined);
    } catch (err) {
      const failed = asFailure(err);
      if (failed.status === 401) sessionEnded();
      setFailure(failed);
    }
  };
  const live = box === undefined || isLive(box);
  useEffect(() => {
    void look();
    const timer = setInterval(() => live && !document.hidden && void look(), LOOK_EVERY_MS);
    const stop = onEvent((event) => (event === undefined || event.sandboxId === id) && void look());
    return () => {
      clearInterval(timer);
      stop();
    };
  }, [id, live]);
  return { box, failure, look };
}
