import { mkdirSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DiskStorage } from '../../src/storage/disk.ts';
import { S3Archive } from '../../src/storage/s3.ts';
import { archiveContract, placeContract } from './archive.ts';
import { MemoryArchive } from './memory-archive.ts';
import { OPTIONS, startS3rver } from './s3.ts';
import { S3Server } from './s3-server.ts';

archiveContract('S3Archive on s3rver', async () => {
  const server = await startS3rver();
  const archive = new S3Archive({ ...OPTIONS, endpoint: server.url });
  return {
    archive,
    noFirstByte: true,
    async clean() {
      archive.close();
      await server.close();
    },
  };
});

for (const [name, opaqueTags] of [
  ['a strict server', false],
  ['a server whose ETags prove nothing', true],
] as const) {
  archiveContract(`S3Archive on ${name}`, async () => {
    const server = new S3Server();
    server.opaqueTags = opaqueTags;
    const archive = new S3Archive({ ...OPTIONS, endpoint: await server.listen() });
    return {
      archive,
      async clean() {
        archive.close();
        server.close();
      },
    };
  });
}

archiveContract('MemoryArchive', async () => ({ archive: new MemoryArchive(), clean: async () => {} }));

placeContract('DiskStorage', async () => {
  const root = await mkdtemp(join(tmpdir(), 'berth-place-'));
  const storage = new DiskStorage(root);
  return {
    async add({ sandboxId, filename }, bytes) {
      mkdirSync(join(root, sandboxId), { recursive: true });
      writeFileSync(join(root, sandboxId, filename), bytes);
    },
    async list() {
      const folders = await storage.folders();
      return (await Promise.all(folders.map(({ sandboxId }) => storage.names(sandboxId)))).flatMap(
        (names) => names.segments,
      );
    },
    open: ({ sandboxId, filename }) => storage.open(sandboxId, filename),
    remove: ({ sandboxId, filename }) => storage.remove(sandboxId, filename),
    clean: () => rm(root, { recursive: true }),
  };
});
