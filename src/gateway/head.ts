import { AppError } from '../core/errors.ts';

/** Of a request's target and headers, in bytes; uWebSockets.js is told the same by cmd/server.ts, Node's server by its front. */
export const MAX_HEAD = 16 * 1024;
/** uWebSockets.js answers no request that has more. */
const MAX_HEADERS = 97;

/**
 * Refuses what two servers could read in two ways, one behind the other: which host is meant, and where the body ends (RFC 9112
 * section 11.2); and heads that are too large. Throws INVALID_REQUEST, HEADERS_TOO_LARGE.
 */
export function assertSound(target: string, headers: readonly (readonly [name: string, value: string])[]): void {
  let size = target.length;
  const seen = new Map<string, string>();
  for (const [given, value] of headers) {
    size += given.length + value.length + 4;
    const name = given.toLowerCase();
    if (name !== 'host' && name !== 'content-length' && name !== 'transfer-encoding') continue;
    if (seen.has(name)) throw new AppError('INVALID_REQUEST', `There is more than one ${name}.`);
    seen.set(name, value);
  }
  if (!seen.has('host')) throw new AppError('INVALID_REQUEST', 'There is no host.');
  if (size > MAX_HEAD || headers.length > MAX_HEADERS) {
    const most = `${MAX_HEAD} bytes or ${MAX_HEADERS} headers`;
    throw new AppError('HEADERS_TOO_LARGE', `Address and headers are more than ${most}.`);
  }
  const [length, encoding] = [seen.get('content-length'), seen.get('transfer-encoding')];
  if (encoding !== undefined && (length !== undefined || encoding.toLowerCase() !== 'chunked'))
    throw new AppError('INVALID_REQUEST', 'A body is either of a length or chunked, and in no other encoding.');
}

/**
 * Whether the `Connection` headers of a handshake name the upgrade (RFC 6455 section 4.2.1) and nothing against it. One of five
 * letters uWebSockets.js takes for "close", whichever they are: its `upgrade()` then closes the socket behind the 101 and goes on
 * with it, which freed memory twice and ended the service.
 */
export function asksToUpgrade(connection: readonly string[]): boolean {
  const tokens = connection.flatMap((line) => line.toLowerCase().split(',')).map((token) => token.trim());
  return (
    tokens.includes('upgrade') && !tokens.includes('close') && connection.every((line) => line.trim().length !== 5)
  );
}
