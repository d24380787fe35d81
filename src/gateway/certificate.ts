import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { Log } from '../core/contracts.ts';

/** Where certificate and key lie, as PEM. */
export interface CertificatePaths {
  readonly cert: string;
  readonly key: string;
}

/** The two as they were read. */
export interface Certificate {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** How often it is looked for new files, in milliseconds: whoever renews certificates does it by rename or link, which no watch of one file survives. */
const LOOK_EVERY_MS = 2000;

/** Throws a sentence that names the setting when a file cannot be read or used, or the two do not belong together. */
export function readCertificate(paths: CertificatePaths): Certificate {
  const read = (setting: string, file: string): Buffer => {
    try {
      return readFileSync(file);
    } catch (err) {
      throw new Error(`${setting}: ${file} cannot be read: ${(err as Error).message}.`, { cause: err });
    }
  };
  const [cert, key] = [read('BERTH_TLS_CERT', paths.cert), read('BERTH_TLS_KEY', paths.key)];
  const leaf = attempt(`BERTH_TLS_CERT: ${paths.cert} holds no certificate in PEM.`, () => new X509Certificate(cert));
  if (/ENCRYPTED/.test(key.toString('latin1')))
    throw new Error(`BERTH_TLS_KEY: ${paths.key} is encrypted; Berth has nobody to ask for its password.`);
  const secret = attempt(`BERTH_TLS_KEY: ${paths.key} holds no private key in PEM.`, () => createPrivateKey(key));
  if (!leaf.checkPrivateKey(secret))
    throw new Error(`BERTH_TLS_KEY: ${paths.key} is not the key of the certificate in ${paths.cert}.`);
  return { cert, key };
}

function attempt<T>(sentence: string, run: () => T): T {
  try {
    return run();
  } catch (err) {
    throw new Error(sentence, { cause: err });
  }
}

function isShortage(err: unknown): boolean {
  const { code } = ((err as Error).cause ?? {}) as NodeJS.ErrnoException;
  return code === 'EMFILE' || code === 'ENFILE';
}

/** Calls `renew` with each new certificate that is whole; of any other it logs why, once, and the old one stays. */
export class CertificateWatch {
  readonly #paths: CertificatePaths;
  readonly #renew: (certificate: Certificate) => void;
  readonly #log: Log;
  readonly #timer: NodeJS.Timeout;
  #current: Certificate;
  /** Of the files that need no further look. */
  #stamp: string | undefined;
  /** Why those of now were not, as it was told. */
  #refused: string | undefined;
  #looking = false;
  #closed = false;

  /** `current` is what is served already. */
  constructor(
    paths: CertificatePaths,
    current: Certificate,
    renew: (certificate: Certificate) => void,
    log: Log,
    everyMs = LOOK_EVERY_MS,
  ) {
    this.#paths = paths;
    this.#current = current;
    this.#renew = renew;
    this.#log = log;
    this.#timer = setInterval(() => void this.#look(), everyMs);
    this.#timer.unref();
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      // Before the files: what is written after this is seen the next time.
      const stamp = await this.#stampOf();
      if (stamp !== this.#stamp && !this.#closed) this.#take(stamp);
    } finally {
      this.#looking = false;
    }
  }

  #take(stamp: string): void {
    try {
      const next = readCertificate(this.#paths);
      this.#refused = undefined;
      if (!next.cert.equals(this.#current.cert) || !next.key.equals(this.#current.key)) this.#serve(next);
      this.#stamp = stamp;
    } catch (err) {
      // Without a file descriptor that is no fault of the files: they are read again, changed or not.
      if (!isShortage(err)) this.#stamp = stamp;
      const why = (err as Error).message;
      if (why !== this.#refused) this.#log.warn({ why }, 'the certificate was not renewed: the one before stays');
      this.#refused = why;
    }
  }

  #serve(next: Certificate): void {
    this.#renew(next);
    this.#current = next;
    const { validTo } = new X509Certificate(next.cert);
    this.#log.info({ cert: this.#paths.cert, validTo }, 'the certificate has been renewed');
  }

  /** Of what the paths lead to now, links followed. */
  async #stampOf(): Promise<string> {
    const parts = [this.#paths.cert, this.#paths.key].map(async (file) => {
      const found = await stat(file, { bigint: true }).catch(() => undefined);
      return found ? `${found.dev}:${found.ino}:${found.size}:${found.mtimeNs}:${found.ctimeNs}` : 'none';
    });
    return (await Promise.all(parts)).join(' ');
  }
}
