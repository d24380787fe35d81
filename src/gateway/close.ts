/** The call is a few dozen bytes; nothing larger is looked into. */
const MAX_BYTES = 512;
const METHOD = Buffer.from('"Browser.close"');

/** What the answer to a `Browser.close` has to repeat. */
export interface BrowserCloseCall {
  readonly id: number;
  readonly sessionId?: string;
}

/** The one call of CDP that the gateway knows: a client's `Browser.close`, when the message is one. */
export function browserCloseIn(message: Buffer): BrowserCloseCall | undefined {
  if (message.length > MAX_BYTES || !message.includes(METHOD)) return undefined;
  try {
    const { id, method, sessionId } = JSON.parse(message.toString());
    if (method !== 'Browser.close' || typeof id !== 'number') return undefined;
    return { id, ...(typeof sessionId === 'string' ? { sessionId } : {}) };
  } catch {
    return undefined; // not for us to complain about
  }
}
