/** Too much at once, and a great deal one after the other. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { describe, it } from 'node:test';
import type WebSocket from 'ws';
import { BerthError } from '../../src/client/client.ts';
import { assertNothingLeft, type Service, waitFor, withService } from '../e2e/service.ts';
import { openSocket, Raw } from '../e2e/sockets.ts';

const LIMIT = { timeout: 600_000 };
/** Sandboxes of the soak, one after the other and then ten at a time: BERTH_SOAK, by default few enough for every run of the tests. */
const SOAK = Number(process.env.BERTH_SOAK ?? 12);

describe('a hundred creates at once with room for five', () => {
  it('give five sandboxes and 95 refusals that say why and when to come again', LIMIT, async () => {
    await withService({ env: { BERTH_MAX_SANDBOXES: '5' } }, async (service) => {
      const outcomes = await Promise.allSettled(Array.from({ length: 100 }, () => service.client.create()));
      const made = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
      const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
      assert.equal(made.length, 5);
      for (const err of refused) {
        assert.ok(err instanceof BerthError && err.status === 429, String(err));
        assert.match(err.message, /BERTH_MAX_SANDBOXES/);
      }
      for (const { cdpUrl } of made) {
        const raw = await Raw.open(cdpUrl ?? '');
        assert.match((await raw.send('Browser.getVersion')).product, /^Chrome/);
        raw.socket.terminate();
      }
      assert.equal((await service.client.list()).length, 5);
    });
  });
});

describe('a service that has no file descriptor left', () => {
  it('refuses what it cannot take, keeps what it has, and is well again when there are some', LIMIT, async () => {
    await withService({ env: {} }, async (service) => {
      const { cdpUrl, sandboxId } = await service.client.create();
      const before = await Raw.open(cdpUrl ?? '');
      const pid = String(service.process.pid);
      const limitOf = (soft: string): unknown => execFileSync('prlimit', ['--pid', pid, `--nofile=${soft}:`]);
      const normal = /Max open files\s+(\d+)/.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1] as string;
      limitOf(String(readdirSync(`/proc/${pid}/fd`).length + 20));
      const opened: WebSocket[] = [];
      let refused = 0;
      await Promise.all(
        Array.from({ length: 60 }, () =>
          openSocket(cdpUrl ?? '', [], { handshakeTimeout: 10_000 }).then(
            (socket) => void opened.push(socket),
            () => void refused++,
          ),
        ),
      );
      assert.ok(refused > 0, 'there was too little for all');
      assert.match((await before.send('Browser.getVersion')).product, /^Chrome/, 'who is in works on');
      for (const socket of opened) socket.terminate();
      limitOf(normal);
      await waitFor(async () => {
        const answer = await fetch(`${service.url}/health`, { signal: AbortSignal.timeout(10_000) }).catch(
          () => undefined,
        );
        return answer?.status === 200;
      }, 'the service to answer again');
      const after = await Raw.open(cdpUrl ?? '');
      after.socket.terminate();
      before.socket.terminate();
      await service.client.delete(sandboxId);
      const another = await service.client.create();
      assert.equal(another.status, 'READY');
    });
  });
});

/** What must not grow. */
function footprint(service: Service): { fds: number; rssMb: number; temporary: string[] } {
  const pid = service.process.pid as number;
  const rssKb = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  return {
    fds: readdirSync(`/proc/${pid}/fd`).length,
    rssMb: rssKb / 1024,
    // Chromium's and ours; other tests come and go with names of their own.
    temporary: readdirSync(tmpdir()).filter((name) => /^(\.?org\.chromium|server-\d+\.xkm)/.test(name)),
  };
}

describe(`${SOAK} short sandboxes one after the other and ${SOAK} more, ten at a time`, () => {
  it('leave the service as it was', { timeout: 180_000 + SOAK * 12_000 }, async () => {
    await withService({ env: { BERTH_MAX_STARTS: '10' } }, async (service) => {
      const one = async (): Promise<void> => {
        const { sandboxId, cdpUrl, vncUrl } = await service.client.create({ recording: 'always' });
        const raw = await Raw.open(cdpUrl ?? '');
        const viewer = await openSocket(vncUrl ?? '');
        const { targetId } = await raw.send('Target.createTarget', { url: 'data:text/html,<h1>soak</h1>' });
        await raw.send('Target.closeTarget', { targetId });
        await service.client.delete(sandboxId);
        raw.socket.terminate();
        viewer.terminate();
      };
      // Loads what is loaded once, and opens the connections between gateway and API that stay for the next request.
      await Promise.all(Array.from({ length: 10 }, one));
      const before = footprint(service);
      for (let i = 0; i < SOAK; i++) await one();
      for (let left = SOAK; left > 0; left -= 10) {
        await Promise.all(Array.from({ length: Math.min(10, left) }, one));
      }
      await assertNothingLeft(service);
      await waitFor(() => footprint(service).fds <= before.fds + 5, `no more than ${before.fds} descriptors`);
      const now = footprint(service);
      // Each X server of this machine has a keymap there for a moment at its start, those of other tests too.
      const added = () => footprint(service).temporary.filter((name) => !before.temporary.includes(name));
      await waitFor(
        () => added().length === 0,
        () => `nothing temporary to be left, but there is ${added()}`,
      );
      // V8 keeps what it once needed; what is still used after a collection grows by some 10 KB a sandbox, its history.
      assert.ok(
        now.rssMb < before.rssMb + 100,
        `${Math.round(before.rssMb)} MB before, ${Math.round(now.rssMb)} after`,
      );
    });
  });
});
