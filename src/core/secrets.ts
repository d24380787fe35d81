import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';

/** How sealed text begins. */
const SEALED = 'sealed:';
/** Of AES-256-GCM, in bytes (NIST SP 800-38D sections 5.2.1.1 and 5.2.1.2). */
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/**
 * Keeps secrets that have to be written down: AES-256-GCM under a key derived from the master key. `context` says what a text
 * is for, such as `egress:<sandbox id>`: sealed for one thing, it does not open as another.
 */
export class Vault {
  readonly #key: Buffer;

  constructor(masterKey: Buffer) {
    this.#key = derivedKey(masterKey, 'vault');
  }

  /** `sealed:` and the base64url of nonce, tag and ciphertext. The same text comes out different each time. */
  seal(text: string, context: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce, { authTagLength: TAG_BYTES }).setAAD(
      Buffer.from(context),
    );
    const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
    return SEALED + Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString('base64url');
  }

  /** Throws when it was sealed under another key or for another context, or was changed. */
  open(sealed: string, context: string): string {
    const bytes = Buffer.from(sealed.startsWith(SEALED) ? sealed.slice(SEALED.length) : '', 'base64url');
    if (bytes.length < NONCE_BYTES + TAG_BYTES) throw new Error('not a sealed text');
    const nonce = bytes.subarray(0, NONCE_BYTES);
    const decipher = createDecipheriv('aes-256-gcm', this.#key, nonce, { authTagLength: TAG_BYTES })
      .setAAD(Buffer.from(context))
      .setAuthTag(bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
    const text = Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES + TAG_BYTES)), decipher.final()]);
    return text.toString('utf8');
  }
}

/** A key for one purpose alone, of 32 bytes. */
export function derivedKey(masterKey: Buffer, purpose: string): Buffer {
  return createHmac('sha256', masterKey).update(purpose).digest();
}
