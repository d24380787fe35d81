import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { OpenedFile } from '../../src/core/contracts.ts';
import { S3Archive } from '../../src/storage/s3.ts';
import { fileOfPieces, nameOf, noise, segmentOf } from './archive.ts';
import { OPTIONS, startS3rver } from './s3.ts';

const NEVER = new AbortController().signal;
const MIB = 1024 * 1024;
/** Three quarters of the file: whoever holds it whole is over it, and buffers that are collected late are not. */
const LIMIT = 48 * MIB;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

describe('S3Archive and memory', () => {
  it('holds a few parts of a file of 64 MiB, up and down', { timeout: 120_000 }, async () => {
    const s3rver = await startS3rver();
    try {
      const archive = new S3Archive({ ...OPTIONS, endpoint: s3rver.url });
      const size = 64 * MIB;
      const piece = noise(MIB);
      const file = async (): Promise<OpenedFile> => ({
        size,
        createdAt: 0,
        stream: (start, end) => fileOfPieces(piece, start, end),
        close: async () => {},
      });
      const segment = segmentOf(nameOf(1), size);
      const before = process.memoryUsage().arrayBuffers;
      const held = (): number => process.memoryUsage().arrayBuffers - before;
      let most = 0;
      const watch = setInterval(() => {
        // Garbage is not held, and when it goes is chance.
        if (held() > LIMIT) collectGarbage();
        most = Math.max(most, held());
      }, 5);
      await archive.put(segment, file, NEVER);
      let bytes = 0;
      for await (const chunk of ((await archive.open(segment)) ?? assert.fail()).stream(0, size - 1))
        bytes += chunk.length;
      clearInterval(watch);
      archive.close();
      assert.equal(bytes, size);
      assert.ok(most < LIMIT, `${Math.round(most / MIB)} MiB of buffers`);
    } finally {
      await s3rver.close();
    }
  });
});
