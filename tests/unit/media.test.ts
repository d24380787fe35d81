import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createReadStream, createWriteStream, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ID } from '../../src/recordings/matroska.ts';
import { mp4Args, poster, posterArgs, toMp4 } from '../../src/recordings/media.ts';
import { withDuration } from '../../src/recordings/mp4.ts';
import { decoded, idBytes, record } from './segments.ts';

const LIMIT = { timeout: 180_000 };

let folder: string;
let video: string;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bt-media-'));
  [video] = (await record(folder, 'video', { seconds: 30, segmentSeconds: 60, width: 640, height: 360 })) as [string];
}, LIMIT);

after(() => rmSync(folder, { recursive: true, force: true }));

/** Those that a test may have left when it failed. */
const sources: Readable[] = [];

afterEach(async () => {
  for (const source of sources.splice(0)) source.destroy();
  await waitFor(() => children().length === 0, 'every ffmpeg is gone');
});

/** Our own children named ffmpeg, dead ones that nobody has asked for included. */
function children(): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.map(Number).filter((pid) => {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      return stat.includes('(ffmpeg)') && stat.split(') ')[1]?.split(' ')[1] === String(process.pid);
    } catch {
      return false; // Gone while we looked.
    }
  });
}

async function waitFor(holds: () => boolean, what: string): Promise<void> {
  for (const until = Date.now() + 60_000; !holds(); await sleep(10)) assert.ok(Date.now() < until, what);
}

/** Makes ffmpeg wait for more for as long as the test wants. */
function stalled(): Readable {
  const source = new Readable({ read: () => {} });
  source.push(readFileSync(video).subarray(0, 100_000));
  sources.push(source);
  return source;
}

/** A header that ffmpeg reads, and then zeros in a Void for ever. */
function endless(): { source: Readable; read: () => number } {
  let read = 0;
  const zeros = Buffer.alloc(64 * 1024);
  const bytes = readFileSync(video);
  const start = bytes.subarray(0, bytes.indexOf(idBytes(ID.cluster)));
  const source = Readable.from(
    (async function* () {
      yield Buffer.concat([start, idBytes(ID.void), Buffer.from('0100004000000000', 'hex')]);
      for (;;) {
        read += zeros.length;
        yield zeros;
      }
    })(),
    { objectMode: false },
  );
  return { source, read: () => read };
}

describe('toMp4', () => {
  it('makes an MP4 of fragments with the same frames, and says how far it is', LIMIT, async () => {
    const path = join(folder, 'video.mp4');
    const done: number[] = [];
    const source = createReadStream(video);
    await pipeline(toMp4(source, { onProgress: (ms) => done.push(ms) }), createWriteStream(path));
    const [before, now] = [await decoded(video), await decoded(path)];
    assert.equal(now.frames.length, 300);
    assert.deepEqual(now, before);
    const bytes = readFileSync(path);
    assert.ok(bytes.indexOf('moof') > bytes.indexOf('moov') && bytes.indexOf('moov') > 0);
    assert.ok((done.at(-1) as number) >= 29_000 && done.every((ms, i) => i === 0 || ms >= (done[i - 1] as number)));
    assert.ok(source.destroyed);
  });

  it('says at its start how long it is, when it is told', LIMIT, async () => {
    const path = join(folder, 'told.mp4');
    const [plain, told] = [toMp4(createReadStream(video)), toMp4(createReadStream(video), { durationMs: 30_000 })];
    const [without, bytes] = await Promise.all([buffer(plain), buffer(told)]);
    assert.equal(bytes.length, without.length);
    await writeFile(path, bytes.subarray(0, bytes.indexOf('moof') - 4));
    const entries = 'stream=duration:format=duration';
    const shown = execFileSync('ffprobe', ['-v', 'error', '-show_entries', entries, '-of', 'csv=p=0', path]).toString();
    assert.deepEqual(shown.trim().split('\n').map(Number), [30, 30]);
    // That of the track, in the milliseconds of the movie: ffprobe does not look at it, others do.
    assert.equal(bytes.readUInt32BE(bytes.indexOf('tkhd') + 24), 30_000);
    await writeFile(path, bytes);
    assert.deepEqual(await decoded(path), await decoded(video));
    // In pieces of any size.
    for (const size of [1, 100, 700, 5000]) {
      const pieces = (async function* () {
        for (let at = 0; at < 10_000; at += size) yield without.subarray(at, at + size);
      })();
      const parts: Buffer[] = [];
      for await (const part of withDuration(pieces, 30_000)) parts.push(part);
      assert.ok(Buffer.concat(parts).equals(bytes.subarray(0, Buffer.concat(parts).length)), `pieces of ${size}`);
    }
  });

  it('is made no faster than it is read', LIMIT, async () => {
    let read = 0;
    const bytes = readFileSync(video);
    const source = new Readable({
      read() {
        const chunk = bytes.subarray(read, read + 16_384);
        read += chunk.length;
        this.push(chunk.length > 0 ? chunk : null);
      },
    });
    const mp4 = toMp4(source);
    await new Promise((resolve) => mp4.once('readable', resolve));
    const [pid] = children() as [number];
    await sleep(500);
    assert.deepEqual(children(), [pid], 'it waits');
    assert.ok(read < bytes.length, `${read} of ${bytes.length}`);
    assert.equal((await buffer(mp4)).subarray(4, 8).toString(), 'ftyp');
  });

  it('ends its ffmpeg and its source when the reader goes away', LIMIT, async () => {
    const source = stalled();
    const mp4 = toMp4(source).resume();
    await waitFor(() => children().length === 1, 'it has begun');
    mp4.destroy();
    await new Promise((resolve) => mp4.once('close', resolve));
    assert.deepEqual(children(), []);
    assert.ok(source.destroyed);
    const unread = stalled();
    toMp4(unread).destroy();
    await waitFor(() => unread.destroyed, 'the source of an MP4 that nobody read');
  });

  it('fails when its source does, and when that ends too early', LIMIT, async () => {
    const failing = stalled();
    const failed = assert.rejects(buffer(toMp4(failing)), /the disk is gone/);
    await waitFor(() => children().length === 1, 'it has begun');
    failing.destroy(new Error('the disk is gone'));
    await failed;
    const cut = stalled();
    const ended = assert.rejects(buffer(toMp4(cut)), /ended before all of it was read/);
    await waitFor(() => children().length === 1, 'it has begun');
    cut.destroy();
    await ended;
    const gone = stalled().destroy();
    await new Promise((resolve) => gone.once('close', resolve));
    await assert.rejects(buffer(toMp4(gone)), /ffmpeg|ended/);
    await assert.rejects(buffer(toMp4(createReadStream(join(folder, 'nothing.mkv')))), /ENOENT/);
  });

  it('says in the words of ffmpeg why it cannot', LIMIT, async () => {
    const noise = Readable.from([Buffer.alloc(100_000)], { objectMode: false });
    await assert.rejects(buffer(toMp4(noise)), /^Error: ffmpeg failed with code \d+: .*Invalid data found/);
  });

  it('runs two at once; the others wait their turn, and may give up', LIMIT, async () => {
    const [first, second, third, fourth] = Array.from({ length: 4 }, () => toMp4(stalled()).resume()) as [
      Readable,
      Readable,
      Readable,
      Readable,
    ];
    await waitFor(() => children().length === 2, 'two have begun');
    const begun = children();
    await sleep(300);
    assert.deepEqual(children(), begun);
    // Posters have places of their own.
    assert.ok((await poster(createReadStream(video))).length > 0);
    third.destroy();
    first.destroy();
    await waitFor(() => children().length === 2 && !children().every((pid) => begun.includes(pid)), 'the fourth');
    second.destroy();
    fourth.destroy();
    await waitFor(() => children().length === 0, 'none is left');
    assert.ok((await buffer(toMp4(createReadStream(video)))).length > 0, 'the places are free again');
  });

  it('gives ffmpeg no environment but PATH, and less of the processor', LIMIT, async () => {
    const mp4 = toMp4(stalled()).resume();
    await waitFor(() => children().length === 1, 'it has begun');
    const [pid] = children() as [number];
    assert.match(readFileSync(`/proc/${pid}/environ`, 'utf8'), /^PATH=[^\0]*\0$/);
    const nice = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[16];
    assert.equal(nice, '10');
    mp4.destroy();
  });

  it('says in one sentence that there is no ffmpeg', LIMIT, async () => {
    const missing = { errorName: 'INTERNAL', message: /^There is no ffmpeg on this machine: .*\.$/ };
    await assert.rejects(buffer(toMp4(createReadStream(video), { path: folder })), missing);
    await assert.rejects(poster(createReadStream(video), { path: folder }), missing);
  });
});

describe('poster', () => {
  it('is a JPEG of the first frame, 320 pixels wide', LIMIT, async () => {
    const source = createReadStream(video);
    const jpeg = join(folder, 'poster.jpg');
    await writeFile(jpeg, await poster(source));
    const entries = 'stream=codec_name,width,height';
    const args = ['-v', 'error', '-show_entries', entries, '-of', 'csv=p=0', jpeg];
    assert.equal(execFileSync('ffprobe', args).toString().trim(), 'mjpeg,320,180');
    // How like the first frame it is, and how unlike one a second later.
    const likeness = (at: number): number => {
      const graph = `[0]select=eq(n\\,${at}),scale=320:-2,format=yuv420p[a];[1]format=yuv420p[b];[a][b]psnr=stats_file=-`;
      const compare = ['-v', 'error', '-i', video, '-i', jpeg, '-lavfi', graph, '-frames:v', '1', '-f', 'null', '-'];
      return Number(/psnr_avg:([\d.]+)/.exec(execFileSync('ffmpeg', compare).toString())?.[1]);
    };
    assert.ok(likeness(0) > 25 && likeness(0) > likeness(10) + 5, `${likeness(0)} and ${likeness(10)}`);
    assert.ok(source.destroyed);
  });

  it('is there for a segment that has only begun', LIMIT, async () => {
    const begun = Readable.from([readFileSync(video).subarray(0, 60_000)], { objectMode: false });
    assert.equal((await poster(begun)).subarray(0, 2).toString('hex'), 'ffd8');
  });

  it('opens nothing that the file names, and guesses no format', LIMIT, async () => {
    const secret = join(folder, 'secret.png');
    execFileSync('ffmpeg', ['-v', 'error', '-f', 'lavfi', '-i', 'color=red:s=64x64:d=1', '-frames:v', '1', secret]);
    const hostile = [
      `#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.0,\nfile://${secret}\n#EXT-X-ENDLIST\n`,
      `ffconcat version 1.0\nfile '${secret}'\n`,
      readFileSync(secret),
      '',
    ];
    for (const bytes of hostile) {
      const source = Readable.from([Buffer.from(bytes)], { objectMode: false });
      await assert.rejects(poster(source), /ffmpeg failed with code/);
    }
    for (const args of [mp4Args(), posterArgs()]) {
      const input = args.slice(0, args.indexOf('-i') + 2).join(' ');
      assert.match(input, /-f matroska -protocol_whitelist pipe .*-i pipe:0$/);
    }
  });

  it('believes no frame of a gigantic size', LIMIT, async () => {
    const huge = join(folder, 'huge.mkv');
    const source = ['-f', 'lavfi', '-i', 'color=red:s=8192x8192:d=1:r=1'];
    execFileSync('ffmpeg', [
      '-v',
      'error',
      ...source,
      '-c:v',
      'libx264',
      '-preset',
      'ultrafast',
      '-threads',
      '1',
      huge,
    ]);
    await assert.rejects(poster(createReadStream(huge)), /exceeds specified max pixel count/);
  });

  it('decodes nothing but H.264', LIMIT, async () => {
    const other = join(folder, 'mpeg4.mkv');
    execFileSync('ffmpeg', ['-v', 'error', '-f', 'lavfi', '-i', 'testsrc2=s=64x64:d=1', '-c:v', 'mpeg4', other]);
    await assert.rejects(poster(createReadStream(other)), /ffmpeg/);
  });

  it('reads no more than 8 MiB of a file without a frame', LIMIT, async () => {
    const { source, read } = endless();
    await assert.rejects(poster(source), /ffmpeg/);
    assert.ok(read() > 7 * 1024 * 1024 && read() < 9 * 1024 * 1024, `${read()} bytes`);
    assert.ok(source.destroyed);
  });

  it('gives up in the end', LIMIT, async () => {
    const silent = new Readable({ read: () => {} });
    silent.push(readFileSync(video).subarray(0, 300));
    await assert.rejects(poster(silent, { limitMs: 500 }), /took more than 0.5 s/);
    assert.deepEqual(children(), []);
    assert.ok(silent.destroyed);
  });
});
