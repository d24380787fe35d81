import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { initSegment, mediaSegment, mimeType } from '../../src/console/recordings/fmp4.ts';
import { type Frame, MatroskaReader, type VideoTrack } from '../../src/console/recordings/matroska.ts';
import { recorderArgs } from '../../src/runtime/recorder.ts';

/** What the recorder writes, but of a test picture: its encoder and its container. */
function record(folder: string): Uint8Array {
  const options = { display: 0, width: 320, height: 240, fps: 10, scale: 1, quality: 'low' as const, cursor: false };
  const args = recorderArgs({ ...options, segmentSeconds: 60, firstSegment: 0, session: 'a' });
  const from = args.indexOf('-r');
  const to = args.indexOf('-f', from);
  const file = join(folder, 'a.mkv');
  const input = ['-f', 'lavfi', '-i', 'testsrc=size=320x240:rate=10:duration=3'];
  execFileSync('ffmpeg', ['-loglevel', 'error', ...input, ...args.slice(from, to), '-cluster_time_limit', '500', file]);
  // As browsers have bytes: a Buffer's slice would be no copy.
  return new Uint8Array(readFileSync(file));
}

function read(parts: Iterable<Uint8Array>): { track: VideoTrack | undefined; frames: Frame[] } {
  const found: { track: VideoTrack | undefined; frames: Frame[] } = { track: undefined, frames: [] };
  const reader = new MatroskaReader({
    onTrack: (track) => {
      found.track = track;
    },
    onFrame: (frame) => found.frames.push(frame),
  });
  for (const part of parts) reader.push(part);
  return found;
}

function* inParts(bytes: Uint8Array, length: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

describe("The player's way from Matroska to what browsers play", () => {
  let folder: string;
  let recording: Uint8Array;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'bt-player-'));
    recording = record(folder);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('reads every frame with its time.', () => {
    const { track, frames } = read([recording]);
    assert.deepEqual([track?.width, track?.height], [320, 240]);
    assert.deepEqual(
      frames.map(({ time }) => time),
      Array.from({ length: 30 }, (_, i) => i * 100),
    );
    assert.ok(frames[0]?.isKey);
  });

  it('reads the same whatever lots the bytes come in.', () => {
    const whole = read([recording]);
    for (const length of [1, 7, 100, 4096])
      assert.deepEqual(read(inParts(recording, length)), whole, `lots of ${length}`);
  });

  it('tells what is no recording.', () => {
    assert.throws(() => read([new Uint8Array(100)]), /no recording/);
  });

  it('makes an MP4 of which ffmpeg decodes every frame at its time.', () => {
    const { track, frames } = read([recording]);
    assert.ok(track);
    assert.match(mimeType(track), /^video\/mp4; codecs="avc1\.[0-9a-f]{6}"$/);
    const samples = frames.map((frame) => ({ ...frame, time: frame.time + 5000, duration: 100 }));
    const file = join(folder, 'a.mp4');
    const lots = [samples.slice(0, 12), samples.slice(12)].map((lot, i) => mediaSegment(i + 1, lot));
    writeFileSync(file, Buffer.concat([initSegment(track), ...lots]));
    const probe = ['-v', 'error', '-show_entries', 'frame=pts_time', '-of', 'csv=p=0', file];
    // Beside the first one stands what its encoder says of itself.
    const times = execFileSync('ffprobe', probe)
      .toString()
      .match(/^[\d.]+/gm)
      ?.map(Number);
    assert.deepEqual(
      times,
      Array.from({ length: 30 }, (_, i) => 5 + i / 10),
    );
  });
});
