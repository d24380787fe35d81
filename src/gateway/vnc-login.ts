import { createCipheriv } from 'node:crypto';
import { VIEW_ONLY_PASSWORD } from '../core/view-only.ts';

const BANNER_LENGTH = 12;
const VERSION = 'RFB 003.008\n';
const NONE = 1;
const VNC_AUTH = 2;
const CHALLENGE_LENGTH = 16;

/** Our handshake with the VNC server, up to where a viewer's own begins to count (RFC 6143 section 7.1). */
export class VncLogin {
  readonly #viewOnly: boolean;
  #step: 'banner' | 'types' | 'challenge' | 'result' | 'done' = 'banner';
  #bytes: Buffer = Buffer.alloc(0);

  /** `viewOnly`: logs in such that the server itself takes nothing from us, where it knows how. */
  constructor(viewOnly: boolean) {
    this.#viewOnly = viewOnly;
  }

  /** True once the server waits for the viewer's ClientInit. */
  get done(): boolean {
    return this.#step === 'done';
  }

  /** Answers what to send for what the server has sent. Throws an Error whose message is why it cannot go on. */
  answer(data: Buffer): Buffer {
    this.#bytes = Buffer.concat([this.#bytes, data]);
    const answers: Buffer[] = [];
    for (let answer = this.#next(); answer; answer = this.#next()) answers.push(answer);
    return Buffer.concat(answers);
  }

  /** Undefined when more has to come first, and when it is done. */
  #next(): Buffer | undefined {
    switch (this.#step) {
      case 'banner': {
        const banner = this.#read(BANNER_LENGTH)?.toString('latin1');
        if (banner === undefined) return undefined;
        if (!/^RFB 003\.(00[89]|0[1-9]\d|[1-9]\d\d)\n$/.test(banner)) throw new Error('it does not speak RFB 3.8');
        this.#step = 'types';
        return Buffer.from(VERSION);
      }
      case 'types': {
        const count = this.#bytes[0];
        if (count === 0) throw new Error('it refuses all connections');
        const types = count === undefined ? undefined : this.#read(1 + count)?.subarray(1);
        if (!types) return undefined;
        const limits = this.#viewOnly && types.includes(VNC_AUTH);
        this.#step = limits ? 'challenge' : 'result';
        return Buffer.of(limits ? VNC_AUTH : NONE);
      }
      case 'challenge': {
        const challenge = this.#read(CHALLENGE_LENGTH);
        if (!challenge) return undefined;
        this.#step = 'result';
        return encrypted(challenge);
      }
      case 'result': {
        const result = this.#read(4);
        if (!result) return undefined;
        if (result.readUInt32BE(0) !== 0) throw new Error('it refuses the login');
        this.#step = 'done';
        return undefined;
      }
      case 'done':
        return undefined;
    }
  }

  #read(length: number): Buffer | undefined {
    if (this.#bytes.length < length) return undefined;
    const read = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return read;
  }
}

/** VNC authentication (RFC 6143 section 7.2.2): DES with the password for a key, each byte's bits the other way round. */
function encrypted(challenge: Buffer): Buffer {
  const key = Buffer.from(VIEW_ONLY_PASSWORD).map((byte) => {
    let turned = 0;
    for (let bit = 0; bit < 8; bit++) turned |= ((byte >> bit) & 1) << (7 - bit);
    return turned;
  });
  // OpenSSL 3 has no single DES any more; three times with one key is the same.
  const cipher = createCipheriv('des-ede3-ecb', Buffer.concat([key, key, key]), null).setAutoPadding(false);
  return Buffer.concat([cipher.update(challenge), cipher.final()]);
}
