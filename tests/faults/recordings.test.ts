/**
 * What a kill costs a recording. BERTH_KILLS says how many there are, default 8; their moments are random, and the seed that
 * a failure shows gives the same ones again (BERTH_SEED).
 */
import assert from 'node:assert/strict';
import { createReadStream, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Recording, Sandbox } from '../../src/client/client.ts';
import { scan } from '../../src/recordings/scan.ts';
import { docker } from '../contract/engine.ts';
import { containerOf, DRIVER, signalPart } from '../e2e/drivers.ts';
import { type Service, startService, waitFor } from '../e2e/service.ts';
import { onTape, probe } from '../e2e/video.ts';

const KILLS = Number(process.env.BERTH_KILLS ?? 8);
const SEED = Number(process.env.BERTH_SEED ?? Date.now() % 100_000);
const LIMIT = { timeout: 60_000 + KILLS * 60_000 };
const VICTIMS = ['ffmpeg', 'runtime', 'service', ...(DRIVER === 'docker' ? (['container'] as const) : [])] as const;

let service: Service;
let folder: string;
let state = SEED;

/** From 0 to 1, the same for the same seed (the minimal standard generator of Park and Miller). */
function random(): number {
  state = (state * 48_271) % 2_147_483_647;
  return state / 2_147_483_647;
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bt-kills-'));
  service = await startService();
});

after(async () => {
  rmSync(folder, { recursive: true, force: true });
  await service.end();
});

async function kill(victim: (typeof VICTIMS)[number], sandbox: Sandbox): Promise<void> {
  if (victim === 'service') {
    await service.kill();
    service = await startService({ on: service });
  } else if (victim === 'container') {
    await docker.getContainer(await containerOf(sandbox.sandboxId)).kill();
  } else {
    await signalPart(service, sandbox.sandboxId, victim);
  }
}

/** The file as it is now, played to its end by a real decoder. Milliseconds of picture in it. */
async function played(file: Recording): Promise<number> {
  const path = join(folder, file.filename);
  const answer = await fetch(`${service.url}${file.downloadUrl}`);
  writeFileSync(path, Buffer.from(await answer.arrayBuffer()));
  const { frames } = await probe(path);
  const { size } = statSync(path);
  const facts = await scan({
    size,
    createdAt: 0,
    stream: (start, end) => createReadStream(path, { start, end }),
    close: async () => {},
  });
  assert.equal(frames, facts.frames, 'a decoder finds what we find');
  // What is promised is a second, in frames: ffmpeg holds a cluster back until it ends, of half of that.
  assert.ok(facts.frames <= 6 * facts.clusters, `${facts.frames} frames in ${facts.clusters} clusters`);
  return facts.durationMs;
}

/** Until when there is a picture. */
async function endOf(files: readonly Recording[]): Promise<number> {
  const ends = await Promise.all(files.map(async (file) => Date.parse(file.startedAt) + (await played(file))));
  return Math.max(...ends);
}

describe(`${KILLS} kills at random moments (seed ${SEED})`, () => {
  it('cost a recording its last moment, and the list says how it ended', LIMIT, async (test) => {
    const lost: number[] = [];
    for (let round = 0; round < KILLS; round++) {
      const victim = VICTIMS[round % VICTIMS.length] as (typeof VICTIMS)[number];
      const sandbox = await service.client.create({ recording: 'always', recordingSegmentSeconds: 5 });
      const id = sandbox.sandboxId;
      // What is on tape can be read: nothing is kept back until a segment ends.
      await onTape(service, id, 10);
      await sleep(random() * 5000);
      const newest = async (): Promise<Recording> => (await service.client.recordings(id))[0] ?? assert.fail('none');
      const last = await newest();
      const read = await endOf([last]);
      const at = Date.now();
      await kill(victim, sandbox);
      if (victim === 'service') {
        // Nothing happened to the recorder: what was on screen meanwhile is there, too.
        const end = async () => endOf(await service.client.recordings(id));
        await waitFor(async () => (await end()) > at, 'what was recorded since');
      } else {
        const ended = async (): Promise<Recording | undefined> => {
          const files = await service.client.recordings(id);
          return files.find((file) => file.filename >= last.filename && file.reason !== null);
        };
        await waitFor(async () => (await ended()) !== undefined, `the ${victim}'s segment to be closed`);
        const file = (await ended()) as Recording;
        assert.equal(file.status, 'completed');
        // It may have been full in the moment between the question and the kill.
        const reasons = victim === 'ffmpeg' ? /^(died|full)$/ : /^(interrupted|full)$/;
        assert.match(file.reason ?? '', reasons, victim);
        // What the next ffmpeg writes comes after it.
        const before = (await service.client.recordings(id)).filter(({ filename }) => filename <= file.filename);
        const end = await endOf(before);
        assert.ok(end >= read, `${read - end} ms that could be read are gone: ${victim}`);
        lost.push((at - end) / 1000);
        if (victim === 'ffmpeg') {
          const next = async () => Number((await service.client.get(id)).recording.segment);
          await waitFor(async () => (await next()) > file.segment, 'the next segment');
          assert.equal((await newest()).sessionId, file.sessionId);
        }
      }
      await service.client.delete(id);
      for (const file of await service.client.recordings(id)) assert.equal(file.status, 'completed');
    }
    const sorted = lost.sort((a, b) => a - b);
    const shown = `lost: median ${sorted[Math.floor(sorted.length / 2)]?.toFixed(2)} s, most ${sorted.at(-1)?.toFixed(2)} s`;
    test.diagnostic(shown);
  });
});
