import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import http, { type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import type { BrowserContext } from 'playwright-core';
import { exportMkv } from '../../src/recordings/export.ts';
import { toMp4 } from '../../src/recordings/media.ts';
import { closed, record } from '../unit/segments.ts';
import { LIMIT } from './service.ts';
import { playOnce, sendRange } from './video.ts';
import { startViewer, undisturbed } from './viewer.ts';

let folder: string;
let player: BrowserContext;
let server: Server;
let origin: string;
/** 2 s, 2 s and 1 s in one file. */
let mkv: Buffer;
let mp4: Buffer;
let segments: string[];

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bt-play-'));
  segments = await record(folder, 'shown', { seconds: 5, width: 320, height: 180 });
  mkv = await buffer((await exported()).stream);
  mp4 = await buffer(toMp4((await exported()).stream));
  server = http.createServer(async (req, res) => {
    if (req.url === '/export.mkv') return sendRange(req, res, mkv, 'video/x-matroska');
    if (req.url === '/export.mp4') return sendRange(req, res, mp4, 'video/mp4');
    // As the service has it while it is made: no range, and for an MP4 no length.
    if (req.url === '/live.mkv') {
      const { length, stream } = await exported();
      res.setHeader('content-type', 'video/x-matroska').setHeader('content-length', length as number);
      return void stream.pipe(res);
    }
    if (req.url === '/live.mp4') {
      const { durationMs, stream } = await exported();
      return void toMp4(stream, { durationMs }).pipe(res.setHeader('content-type', 'video/mp4'));
    }
    res.setHeader('content-type', 'text/html').end('<title>player</title>');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  player = await startViewer(join(folder, 'profile'));
}, LIMIT);

after(async () => {
  await player?.close();
  server?.closeAllConnections();
  server?.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
}, LIMIT);

async function exported() {
  return exportMkv(await Promise.all(segments.map(closed)));
}

describe('A recording in one file', () => {
  for (const name of ['export.mkv', 'export.mp4', 'live.mkv', 'live.mp4']) {
    it(`plays in Chromium as ${name}, and its end can be sought`, LIMIT, async () => {
      const played = await undisturbed(player, () =>
        playOnce(player, `${origin}/`, `${origin}/${name}`, { x: 10, y: 10 }),
      );
      assert.deepEqual([played.width, played.height], [320, 180]);
      assert.ok(played.reached >= 0.5);
      assert.ok(played.pixel, 'a picture');
    });
  }

  it('has the duration of all its segments in a player', LIMIT, async () => {
    const page = await player.newPage();
    try {
      await page.goto(`${origin}/`);
      for (const name of ['export.mkv', 'export.mp4', 'live.mkv', 'live.mp4']) {
        const duration = await page.evaluate(async (src) => {
          const video = document.createElement('video');
          video.src = src;
          await new Promise((resolve, reject) => {
            video.onloadeddata = resolve;
            video.onerror = () => reject(new Error(video.error?.message));
          });
          return video.duration;
        }, `${origin}/${name}`);
        assert.ok(Math.abs(duration - 5) < 0.15, `${name}: ${duration} s`);
      }
    } finally {
      await page.close();
    }
  });
});
