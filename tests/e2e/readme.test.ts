import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { LIMIT, withService } from './service.ts';
import { probe } from './video.ts';

/** From dist/tests/e2e. */
const README = fileURLToPath(new URL('../../../README.md', import.meta.url));

describe('README.md', () => {
  it('prints a session with curl that works as it is printed', LIMIT, async () => {
    const blocks = [...readFileSync(README, 'utf8').matchAll(/^```sh\n(.*?)^```$/gms)].map((match) => match[1] ?? '');
    const session = blocks.find((block) => block.startsWith('url=')) ?? assert.fail('README.md prints no such session');
    const folder = mkdtempSync(join(tmpdir(), 'bt-readme-'));
    try {
      await withService({}, async (service) => {
        const { stdout, stderr } = await promisify(execFile)('sh', ['-eu', '-c', session], {
          cwd: folder,
          env: { PATH: process.env.PATH, BERTH_URL: service.url },
          timeout: LIMIT.timeout,
        });
        assert.match(stdout, /"total":\d+,"page":1,"pageSize":1/, 'the list');
        const name = /"(vnc_film_\d{8}_\d{6})_seg000\.mkv"/.exec(stdout)?.[1];
        const length = Number(/^content-length: (\d+)\r$/im.exec(stdout)?.[1]);
        assert.ok(name !== undefined && length > 1024, 'HEAD');
        assert.match(stdout, /"offsetSeconds":0/, 'the timeline');
        assert.match(stderr, /100\.0%/, 'the progress of the export');
        assert.match(stdout, /"message":"Recording file deleted successfully"/);
        assert.deepEqual(readdirSync(folder).sort(), ['film.json', 'first-kilobyte.mkv', 'poster.jpg', `${name}.mkv`]);
        assert.equal(statSync(join(folder, 'first-kilobyte.mkv')).size, 1024);
        assert.equal(readFileSync(join(folder, 'poster.jpg')).readUInt16BE(0), 0xffd8);
        const film = await probe(join(folder, `${name}.mkv`));
        assert.deepEqual([film.errors, film.codec], ['', 'h264']);
        assert.ok(film.frames > 30 && film.duration > 5, `${film.frames} frames, ${film.duration} s`);
        assert.deepEqual(await service.client.recordings('film'), []);
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
