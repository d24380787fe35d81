import { constants } from 'node:os';
import { BerthError, UnreachableError } from '../client/client.ts';
import { Interrupted } from './io.ts';

/** What the program ends with. The README lists the same. */
export const EXIT = { ok: 0, failed: 1, usage: 2, notFound: 3, denied: 4, noCapacity: 5, unreachable: 6 } as const;

/** A failure that is told in one sentence, which says what to do next. */
export class Failure extends Error {
  readonly exitCode: number;

  constructor(exitCode: number, sentence: string, cause?: unknown) {
    super(sentence, cause === undefined ? undefined : { cause });
    this.name = 'Failure';
    this.exitCode = exitCode;
  }
}

/** Something in the command line, or in what it names, is not as it has to be. */
export function misuse(sentence: string): Failure {
  return new Failure(EXIT.usage, sentence);
}

/** The exit code of a program that a signal ended, as shells have it. */
export function signalCode(signal: NodeJS.Signals): number {
  return 128 + (constants.signals[signal] ?? 0);
}

/** Anything that was thrown while `url` was talked to, as a sentence and an exit code. */
export function failureOf(err: unknown, url?: string): Failure {
  if (err instanceof Failure) return err;
  if (err instanceof Interrupted) return new Failure(signalCode(err.by), err.message, err);
  if (err instanceof BerthError) return new Failure(exitCodeOf(err), sentenceOf(err), err);
  const fault = networkFault(err);
  if (fault !== undefined)
    return new Failure(EXIT.unreachable, unreachable(fault, err instanceof UnreachableError ? err.url : url), err);
  // What answers there speaks HTTP, and not as Berth does.
  if (err instanceof SyntaxError)
    return new Failure(
      EXIT.failed,
      `What answers at ${url ?? 'this address'} is no Berth service; is the address right?`,
      err,
    );
  const message = err instanceof Error ? err.message : String(err);
  return new Failure(EXIT.failed, `${message.replace(/\.$/, '')}.`, err);
}

function exitCodeOf(err: BerthError): number {
  if (err.code === undefined && err.status >= 500) return EXIT.unreachable;
  if (err.status === 400 || err.status === 422) return EXIT.usage;
  if (err.status === 401 || err.status === 403) return EXIT.denied;
  if (err.status === 404 || err.status === 410) return EXIT.notFound;
  if (err.status === 429) return EXIT.noCapacity;
  return EXIT.failed;
}

function sentenceOf(err: BerthError): string {
  const { code, requestId } = err;
  const marks = [...(code === undefined ? [] : [`code ${code}`]), ...(requestId ? [`request ${requestId}`] : [])];
  const message = err.message.replace(/\.$/, '');
  return `${message}${hintFor(err)}${marks.length > 0 ? ` (${marks.join(', ')})` : ''}.`;
}

function hintFor({ code, status }: BerthError): string {
  if (code === undefined) return '; that is no answer of a Berth service, is the address right?';
  if (status === 401) return '; give a key with --api-key-file, BERTH_API_KEY or a profile (berth profile add)';
  if (code === 2001) return '; berth ls --all shows those that are known';
  if (code === 3002) return '; berth recordings ls shows those that are there';
  return '';
}

/** The word for what went wrong on the way, such as ECONNREFUSED; undefined when nothing did. */
function networkFault(err: unknown): string | undefined {
  for (let at = err, depth = 0; at instanceof Error && depth < 4; at = at.cause, depth++) {
    const { code } = at as NodeJS.ErrnoException;
    if (at instanceof AggregateError && typeof at.errors[0]?.code === 'string') return at.errors[0].code;
    if (at !== err && typeof code === 'string') return code;
    if (at !== err && at.cause === undefined) return at.message;
  }
  // Of fetch, a TypeError with a cause; of the body that breaks off, one without.
  if (err instanceof TypeError && /fetch failed|terminated/.test(err.message)) return err.message;
  return undefined;
}

function unreachable(fault: string, url = 'the service'): string {
  if (/CERT|SIGNED|ALTNAME|SSL|TLS/.test(fault))
    return `The certificate of ${url} is not trusted (${fault}); NODE_EXTRA_CA_CERTS names a file with your own authority.`;
  if (/terminated|ECONNRESET|other side closed|UND_ERR_SOCKET|aborted/.test(fault))
    return `The connection to ${url} broke off (${fault}); is the service still running?`;
  const local = /\/\/(127\.|localhost|\[::1\])/.test(url);
  const next = local ? 'is it running? berth serve starts it.' : 'is the address right, and the service running?';
  return `Nothing answers at ${url} (${fault}); ${next}`;
}
