import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

/** A self-made certificate of this machine's loopback names and its key, as PEM files in the folder. */
export function makeCertificate(folder: string, name: string): { readonly cert: string; readonly key: string } {
  const [cert, key] = [join(folder, `${name}.crt`), join(folder, `${name}.key`)];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const names = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  execFileSync('openssl', ['req', '-x509', ...kind, ...names, '-keyout', key, '-out', cert], { stdio: 'pipe' });
  return { cert, key };
}

/** The same key behind a password. */
export function encryptKey(key: string, to: string): void {
  execFileSync('openssl', ['pkcs8', '-topk8', '-in', key, '-out', to, '-passout', 'pass:secret'], { stdio: 'pipe' });
}
