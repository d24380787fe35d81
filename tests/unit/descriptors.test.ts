/** What the service does by itself now and then, while this process has no file descriptor left and afterwards. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { watchKeysFile } from '../../src/app/keys.ts';
import { Counters } from '../../src/core/counters.ts';
import { Events } from '../../src/core/events.ts';
import { digestOf, KeyRing } from '../../src/core/keys.ts';
import { Stats } from '../../src/core/stats.ts';
import { CertificateWatch, readCertificate } from '../../src/gateway/certificate.ts';
import { makeCertificate } from '../e2e/certificates.ts';
import { LIMIT, waitFor } from '../e2e/service.ts';

const folder = mkdtempSync(join(tmpdir(), 'bt-fds-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** For some three seconds nothing more can be opened; another process sees to it, since ours could start none. */
function shortage(): { readonly over: Promise<void> } {
  const soft = (limit: string): string => `prlimit --pid ${process.pid} --nofile=${limit}:`;
  const normal = `$(prlimit --pid ${process.pid} --nofile --output SOFT --noheadings | tr -d ' ')`;
  const script = `normal=${normal}; ${soft('3')}; sleep 3; ${soft('$normal')}`;
  const child = spawn('sh', ['-c', script], { stdio: 'ignore' });
  const over = new Promise<void>((resolve, reject) =>
    child.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`prlimit: ${code}`)))),
  );
  return { over };
}

function isShort(): boolean {
  try {
    process.memoryUsage.rss();
    return false;
  } catch {
    return true;
  }
}

describe('without a file descriptor', () => {
  const said: string[] = [];
  const note = (_: object, message: string): void => void said.push(message);
  const log = { info: note, warn: note, error: note };

  it(
    'samples are taken, and changed keys and certificates are taken over as soon as there are some',
    LIMIT,
    async () => {
      const [first, second] = [makeCertificate(folder, 'first'), makeCertificate(folder, 'second')];
      const live = { cert: join(folder, 'live.crt'), key: join(folder, 'live.key') };
      const lay = (pair: typeof live): void => {
        renameSync(pair.cert, live.cert);
        renameSync(pair.key, live.key);
      };
      lay(first);
      let served = '';
      const onRenew = ({ cert }: { readonly cert: Buffer }): void => {
        served = cert.toString();
      };
      const certificates = new CertificateWatch(live, readCertificate(live), onRenew, log, 100);
      const next = readCertificate(second).cert.toString();

      const keys = join(folder, 'keys');
      const ring = new KeyRing([]);
      writeFileSync(keys, 'team:the-first-of-all-keys\n');
      writeFileSync(`${keys}.new`, 'team:the-one-that-came-later\n');
      const endWatch = watchKeysFile(keys, ring, log);
      const { over } = shortage();
      try {
        await waitFor(isShort, 'the shortage');
        const stats = new Stats({
          live: () => [],
          poolReady: () => new Map(),
          events: new Events(),
          counters: new Counters(),
          now: () => assert.fail('not asked'),
        });
        stats.close();
        assert.equal(stats.samples.length, 1);
        lay(second);
        renameSync(`${keys}.new`, keys);
        await waitFor(
          () => said.filter((line) => /cannot be read|not renewed/.test(line)).length === 2,
          'both to fail',
        );
        assert.ok(isShort(), 'while there was none');
        await over;
        await waitFor(() => served === next, 'the certificate');
        await waitFor(() => ring.find(digestOf('the-one-that-came-later')) !== undefined, 'the key');
        assert.equal(said.filter((line) => /cannot be read|not renewed/.test(line)).length, 2, 'told once each');
      } finally {
        await over;
        endWatch();
        certificates.close();
      }
    },
  );
});
