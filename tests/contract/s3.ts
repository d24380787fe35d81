import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Log } from '../../src/core/contracts.ts';
import type { S3ArchiveOptions } from '../../src/storage/s3.ts';

const log: Log = { info() {}, warn() {}, error() {} };

/** For an archive on one of the test servers; only the endpoint is missing. */
export const OPTIONS: Omit<S3ArchiveOptions, 'endpoint'> = {
  bucket: 'recordings',
  region: 'us-east-1',
  prefix: 'some/where/',
  pathStyle: true,
  // The only pair that s3rver knows.
  credentials: { accessKeyId: 'S3RVER', secretAccessKey: 'S3RVER' },
  encryption: undefined,
  log,
};

/** Ends with us, however we end. */
const PROGRAM = `
  process.stdin.resume().on('end', () => process.exit());
  const [directory, signatures] = process.argv.slice(1);
  const S3rver = require('@20minutes/s3rver');
  const configureBuckets = [{ name: 'recordings' }];
  const allowMismatchedSignatures = signatures === 'false';
  const options = { directory, configureBuckets, allowMismatchedSignatures, address: '127.0.0.1', port: 0, silent: true };
  new S3rver(options).run().then(({ port }) => console.log(port));
`;
/** From dist/tests/contract. */
const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/**
 * A server that others wrote, in a process of its own, with its objects in a temporary folder. Of signatures it checks those
 * of objects rightly, but forgets the slash at the end of a bucket's path, so that listing is refused when `signatures`
 * are checked.
 */
export async function startS3rver(signatures = false): Promise<{ url: string; close(): Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), 'berth-s3-'));
  const args = ['-e', PROGRAM, directory, String(signatures)];
  const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const port = await Promise.race([once(child.stdout, 'data'), exited.then(() => assert.fail('s3rver ended'))]);
  return {
    url: `http://127.0.0.1:${Number(String(port))}`,
    async close() {
      child.kill();
      await exited;
      await rm(directory, { recursive: true });
    },
  };
}
