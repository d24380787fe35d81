import { addressOf, asFailure, ask, CODES, http } from '../api.ts';

/** What a viewer has to know of a sandbox, as `GET /sandboxes/{id}/live` tells it. */
export interface LiveInfo {
  readonly sandboxId: string;
  readonly starting: boolean;
  readonly role: 'control' | 'view';
  readonly viewport: { readonly width: number; readonly height: number };
  /** Where to connect. */
  readonly url: string;
}

/** Throws Failure. */
export async function liveInfo(sandboxId: string, ticket: string | undefined): Promise<LiveInfo> {
  const query = ticket === undefined ? {} : { ticket };
  const answer = await ask(
    http.GET('/sandboxes/{id}/live', {
      params: { path: { id: sandboxId }, query },
      headers: { Accept: 'application/json' },
    }),
  );
  if (typeof answer !== 'object') throw new Error('The service answered with a page.');
  const { vncUrl, status, ...data } = answer.data;
  // By the way that this page came, which may be another than the one the service would name.
  const own = new URL(addressOf(`/sandboxes/${encodeURIComponent(sandboxId)}/ws/livestream`));
  own.search = new URL(vncUrl).search;
  own.protocol = own.protocol === 'https:' ? 'wss:' : 'ws:';
  return { ...data, starting: status === 'CREATING', url: own.href };
}

/** What a failure means for a screen: it is over, one may not look, or it may be better later. */
export function outcomeOf(err: unknown): {
  readonly kind: 'ended' | 'refused' | 'later';
  readonly why: string;
  readonly status: number;
} {
  const { code, status, message } = asFailure(err);
  if (code === CODES.sandboxEnded) {
    return { kind: 'ended', why: /has ended: (.*?)\.?$/.exec(message)?.[1] ?? message, status };
  }
  if (status === 401 || status === 403 || status === 404) return { kind: 'refused', why: message, status };
  return { kind: 'later', why: message, status };
}
