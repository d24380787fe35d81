import { BerthClient } from '../client/client.ts';

/** The service's address, without a slash at its end. The pages lie one folder below, wherever a proxy has put it. */
export const SERVICE = new URL('..', document.baseURI).href.replace(/\/$/, '');

/** Every operation of openapi.yaml, typed. The cookie of the session goes along by itself. */
export const { http } = new BerthClient(SERVICE);

/** Address of something of the service, such as `/recordings/…`, as this page reaches it. */
export function addressOf(path: string): string {
  return `${SERVICE}${path}`;
}

/** A failure with the words for whoever sees it: what happened, and what to do about it. */
export class Failure extends Error {
  /** Stable, as in the README; 0 when nobody answered. */
  readonly code: number;
  readonly status: number;
  readonly advice: string;

  constructor(message: string, code: number, status: number, advice: string) {
    super(message);
    this.code = code;
    this.status = status;
    this.advice = advice;
  }
}

/** Codes of openapi.yaml that the pages treat in their own way. */
export const CODES = { unauthorized: 1002, forbidden: 1003, sandboxNotFound: 2001, sandboxEnded: 2003 } as const;

const ADVICE: Readonly<Record<number, string>> = {
  1001: 'Change the field that is named, and try again.',
  1002: 'Sign in again.',
  1003: 'Ask whoever runs this service for a key that may do this.',
  1004: 'It may have gone meanwhile. Reload the page.',
  1009: 'Wait a moment, then try again.',
  2001: 'It may have been forgotten. Go back to the list.',
  2002: 'Choose another id, or leave it empty.',
  2003: 'Start a new one, or look at its recordings.',
  2004: 'It is still starting, or about to recover. Try again in a few seconds.',
  2005: 'Choose a template of the list.',
  2006: 'Stop a sandbox that nobody needs, or raise BERTH_MAX_SANDBOXES.',
  2007: 'Whoever runs the service finds the reason in its log; /readyz says whether its engine is there.',
  2008: 'The browser is being started again. Try again in a few seconds.',
  3002: 'Somebody has deleted it, or its time was over.',
  3005: 'Download its segments one by one.',
  3006: 'The store of recordings is away. Try again later.',
  5002: 'The service is being restarted. Try again in a moment.',
  5001: "The service's log has the reason.",
};

interface Answer<T> {
  data?: T;
  error?: { code?: number; error?: string; message?: string };
  response: Response;
}

/** The data of an answer. Throws {@link Failure}. */
export async function ask<T>(answering: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>;
  try {
    answer = await answering;
  } catch (err) {
    if (err instanceof DOMException && err.name === 'AbortError') throw err;
    throw new Failure('The service does not answer.', 0, 0, 'It may be restarting; this page goes on when it is back.');
  }
  if (answer.response.ok) return answer.data as T;
  throw failureOf(answer.response, answer.error);
}

/** What an answer that is no success means. */
export function failureOf(response: Response, body: Answer<unknown>['error']): Failure {
  const code = body?.code ?? 0;
  const wait = response.headers.get('Retry-After');
  const advice = wait !== null ? `Try again in ${wait} s.` : (ADVICE[code] ?? '');
  const message = body?.message ?? body?.error ?? `The service answered with ${response.status}.`;
  return new Failure(sentence(message), code, response.status, advice);
}

/** Any thrown value as a {@link Failure}. */
export function asFailure(err: unknown): Failure {
  if (err instanceof Failure) return err;
  return new Failure(err instanceof Error ? err.message : String(err), 0, 0, '');
}

function sentence(text: string): string {
  const upper = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(upper) ? upper : `${upper}.`;
}
