import { AppError } from '../core/errors.ts';

/** The fields of the SDK's errors, and of Node's, that tell what happened. */
interface Failure {
  readonly name?: string;
  readonly code?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
}

/** What the server's own word for a refusal means here. */
const REFUSALS: Readonly<Record<string, string>> = {
  NoSuchBucket: 'the bucket does not exist (BERTH_S3_BUCKET)',
  InvalidAccessKeyId: 'the access key is not known there (BERTH_S3_ACCESS_KEY_ID)',
  SignatureDoesNotMatch: 'the secret does not belong to the access key (BERTH_S3_SECRET_ACCESS_KEY)',
  AccessDenied: 'the credentials do not allow it',
  Forbidden: 'the credentials do not allow it',
  ExpiredToken: 'the credentials have expired',
  CredentialsProviderError: 'there are no credentials (BERTH_S3_ACCESS_KEY_ID and BERTH_S3_SECRET_ACCESS_KEY)',
  PermanentRedirect: 'the bucket is in another region (BERTH_S3_REGION)',
  AuthorizationHeaderMalformed: 'the bucket is in another region (BERTH_S3_REGION)',
  RequestTimeTooSkewed: 'the clocks of the two machines differ too much',
  SlowDown: 'it is overloaded (SlowDown)',
};

/** Whether the answer was that there is no such object, which a HEAD says without a body and so without a code. */
export function isMissing(err: unknown): boolean {
  const { name, $metadata } = err as Failure;
  return name === 'NoSuchKey' || name === 'NotFound' || ($metadata?.httpStatusCode === 404 && name !== 'NoSuchBucket');
}

/**
 * A failure as STORAGE_UNAVAILABLE with a sentence. Only names, codes and statuses get into it, never what a server
 * wrote: that may repeat keys.
 */
export function unavailable(err: unknown, doing: string, where: string): AppError {
  if (err instanceof AppError) return err;
  const { name = 'Error', code, $metadata } = err as Failure;
  const status = $metadata?.httpStatusCode;
  let why = REFUSALS[name];
  if (!why && status !== undefined) why = `it answered ${status}${/^[A-Za-z]+$/.test(name) ? ` ${name}` : ''}`;
  if (!why && name === 'TimeoutError') why = 'it does not answer';
  if (!why) why = `it cannot be reached (${code ?? name})`;
  return new AppError('STORAGE_UNAVAILABLE', `The archive at ${where} could not ${doing}: ${why}.`);
}
