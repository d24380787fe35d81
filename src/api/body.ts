import type { IncomingMessage } from 'node:http';
import { AppError } from '../core/errors.ts';

/** Largest request body, in bytes. */
const MAX_BODY = 1024 * 1024;

/** The JSON body, undefined when there is none. Throws INVALID_REQUEST and PAYLOAD_TOO_LARGE. */
export async function readJson(req: IncomingMessage): Promise<unknown> {
  const body = await readAll(req);
  if (body.length === 0) return undefined;
  try {
    return JSON.parse(body.toString());
  } catch (err) {
    throw new AppError('INVALID_REQUEST', `body: not JSON: ${(err as Error).message}`);
  }
}

async function readAll(req: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    // Not destroyed when too large: the gateway's connection, which others use next, has to be read to the end.
    for await (const chunk of req.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > MAX_BODY) throw new AppError('PAYLOAD_TOO_LARGE', `The body is larger than ${MAX_BODY} bytes.`);
      chunks.push(chunk);
    }
  } catch (err) {
    // Clients hang up when they please: no fault of ours, and nothing for the log of those.
    if (req.complete || err instanceof AppError) throw err;
    throw new AppError('INVALID_REQUEST', 'The body ended early.', {}, err);
  }
  return Buffer.concat(chunks);
}
