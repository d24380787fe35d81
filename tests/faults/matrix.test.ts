/** Every part killed and frozen, and what clients, state, recording and leftovers are then: the table of docs/faults.md. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Recording, Sandbox } from '../../src/client/client.ts';
import { DRIVER, type Part, signalPart } from '../e2e/drivers.ts';
import { LIMIT, type Service, startService, waitFor } from '../e2e/service.ts';
import { openSocket, Raw } from '../e2e/sockets.ts';
import { onTape, probe } from '../e2e/video.ts';
import type { Row } from './row.ts';

/** What is to be seen after a fault. A close is `code reason`; `stays` means that the connection works on. */
interface Expected {
  readonly client: 'stays' | RegExp;
  readonly viewer: 'stays' | RegExp;
  readonly state: RegExp;
  /** Waited for before the rest is looked at. */
  readonly until?: (sandbox: Sandbox) => boolean;
}

const RESTARTED = (sandbox: Sandbox): boolean => sandbox.browserRestarts > 0;
const ENDED = (sandbox: Sandbox): boolean => sandbox.endedAt !== undefined;
const LOST = /^1011 ./;
/** A part that is gone is noticed as such, not by its silence. */
const NOTICED = /^1011 (?!.*did not answer|.*does not answer)./;

const KILLED: Readonly<Record<Part, Expected>> = {
  runtime: {
    client: NOTICED,
    viewer: NOTICED,
    state: /^FAILED failed: the (runtime died|container ended)/,
    until: ENDED,
  },
  chromium: { client: NOTICED, viewer: 'stays', state: /^READY$/, until: RESTARTED },
  renderer: { client: 'stays', viewer: 'stays', state: /^READY$/ },
  xvfb: {
    client: NOTICED,
    viewer: NOTICED,
    state: /^FAILED failed: the X server was killed by SIGKILL/,
    until: ENDED,
  },
  openbox: { client: 'stays', viewer: 'stays', state: /^READY$/ },
  vnc: { client: 'stays', viewer: NOTICED, state: /^READY$/ },
  ffmpeg: { client: 'stays', viewer: 'stays', state: /^READY$/ },
};
const FROZEN: Readonly<Record<Part, Expected>> = {
  runtime: { client: LOST, viewer: LOST, state: /^FAILED failed: the runtime/, until: ENDED },
  chromium: { client: LOST, viewer: 'stays', state: /^READY$/, until: RESTARTED },
  renderer: { client: 'stays', viewer: 'stays', state: /^READY$/ },
  xvfb: { client: LOST, viewer: LOST, state: /^FAILED failed: /, until: ENDED },
  openbox: { client: 'stays', viewer: 'stays', state: /^READY$/ },
  vnc: { client: 'stays', viewer: LOST, state: /^READY$/ },
  ffmpeg: { client: 'stays', viewer: 'stays', state: /^READY$/ },
};

const rows: Row[] = [];
let service: Service;

before(async () => {
  service = await startService();
}, LIMIT);

after(async () => {
  const folder = process.env.BERTH_FAULTS_DIR;
  if (folder) writeFileSync(join(folder, `${DRIVER}.json`), JSON.stringify(rows, null, 2));
  await service.end();
}, LIMIT);

/** A viewer that has gone through the handshake, and how it ended. */
async function view(sandbox: Sandbox): Promise<{ closed: Promise<string>; leave(): void }> {
  const socket = await openSocket(sandbox.vncUrl ?? '');
  const closed = new Promise<string>((resolve) => socket.once('close', (code, why) => resolve(`${code} ${why}`)));
  return { closed, leave: () => socket.terminate() };
}

/** The state as one reads it: with the reason where there is one. */
async function stateOf(of: Service, id: string): Promise<string> {
  const { status, endedReason } = await of.client.get(id);
  return endedReason ? `${status} ${endedReason}` : status;
}

/** That every finished recording plays to its end; how many there are. */
async function assertPlayable(of: Service, id: string): Promise<string> {
  const all = await of.client.recordings(id);
  const done = all.filter((recording: Recording) => recording.status === 'completed');
  assert.ok(done.length > 0, 'there is a recording');
  for (const { filename } of done) {
    const { frames, errors } = await probe(join(of.dataDir, 'recordings', id, filename));
    assert.ok(frames > 0 && errors === '', `${filename}: ${frames} frames, ${errors}`);
  }
  return `${done.length} ${done.length === 1 ? 'file plays' : 'files play'}`;
}

async function strike(fault: string, hit: (sandbox: Sandbox) => Promise<unknown>, expected: Expected): Promise<void> {
  const sandbox = await service.client.create({ recording: 'always' });
  const id = sandbox.sandboxId;
  const raw = await Raw.open(sandbox.cdpUrl ?? '');
  const viewer = await view(sandbox);
  await onTape(service, id);
  const since = performance.now();
  await hit(sandbox);
  const seen = async (end: Promise<string>, want: 'stays' | RegExp, who: string): Promise<string> => {
    if (want === 'stays') return 'stays';
    const how = await end;
    assert.match(how, want, who);
    return how;
  };
  const clientEnd = raw.closed.then(({ code, reason }) => `${code} ${reason}`);
  const [client, watching] = await Promise.all([
    seen(clientEnd, expected.client, 'client'),
    seen(viewer.closed, expected.viewer, 'viewer'),
  ]);
  const seconds = Math.round((performance.now() - since) / 100) / 10;
  const { until } = expected;
  if (until) await waitFor(async () => until(await service.client.get(id)), `${fault} to take effect`);
  const state = await stateOf(service, id);
  assert.match(state, expected.state);
  if (expected.client === 'stays') {
    assert.match((await raw.send('Browser.getVersion')).product, /^Chrome/);
  }
  if (state === 'READY') {
    const again = await Raw.open(sandbox.cdpUrl ?? '');
    const { targetId } = await again.send('Target.createTarget', { url: 'data:text/html,<title>after</title>' });
    await again.send('Target.closeTarget', { targetId });
    again.socket.terminate();
    (await view(sandbox)).leave();
  }
  raw.socket.terminate();
  viewer.leave();
  await service.client.delete(id);
  const recording = await assertPlayable(service, id);
  rows.push({ fault, client, viewer: watching, seconds, state, recording });
}

describe('a part of a sandbox', { concurrency: 3 }, () => {
  for (const [part, expected] of Object.entries(KILLED) as [Part, Expected][]) {
    it(`${part}: kill -9`, LIMIT, () =>
      strike(`${part}: kill -9`, ({ sandboxId }) => signalPart(service, sandboxId, part), expected),
    );
  }
  for (const [part, expected] of Object.entries(FROZEN) as [Part, Expected][]) {
    it(`${part}: frozen`, LIMIT, () =>
      strike(`${part}: frozen`, ({ sandboxId }) => signalPart(service, sandboxId, part, 'SIGSTOP'), expected),
    );
  }

  it('ffmpeg: frozen, and the next one has taken over', LIMIT, async () => {
    const { sandboxId } = await service.client.create({ recording: 'always' });
    await onTape(service, sandboxId);
    await signalPart(service, sandboxId, 'ffmpeg', 'SIGSTOP');
    await waitFor(async () => (await service.client.recordings(sandboxId)).length > 1, 'a second file');
    await service.client.delete(sandboxId);
    await assertPlayable(service, sandboxId);
  });
});

async function firstRecording(of: Service): Promise<string> {
  return `${of.url}${(await of.client.recordings('lives'))[0]?.downloadUrl}`;
}

/** Reads slowly. */
async function drain(answer: Response): Promise<void> {
  const reader = answer.body?.getReader();
  while (reader && !(await reader.read()).done) await sleep(100);
}

/** A client of a process of its own, connected and idle. */
async function clientProcess(url: string): Promise<ChildProcess> {
  const program = `import WebSocket from 'ws'; const s = new WebSocket(process.argv[1], { perMessageDeflate: false });
    s.on('open', () => console.log('open')); s.on('message', () => {});`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, url], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once('data', () => resolve());
    child.once('exit', () => reject(new Error('the client ended early')));
  });
  return child;
}

describe('a client', { concurrency: 3 }, () => {
  for (const [how, signal] of [
    ['kill -9', 'SIGKILL'],
    ['frozen', 'SIGSTOP'],
  ] as const) {
    it(`${how}: counts no longer, and the others do not notice`, LIMIT, async () => {
      const sandbox = await service.client.create({ recording: 'always' });
      const other = await Raw.open(sandbox.cdpUrl ?? '');
      const child = await clientProcess(sandbox.cdpUrl ?? '');
      try {
        await waitFor(async () => (await service.client.get(sandbox.sandboxId)).clients === 2, 'two clients');
        const since = performance.now();
        child.kill(signal);
        await waitFor(
          async () => (await service.client.get(sandbox.sandboxId)).clients === 1,
          'it to be gone',
          120_000,
        );
        // Its end is told by the kernel; only one that says nothing has to be asked, which takes its time.
        if (how === 'kill -9') assert.ok(performance.now() - since < 40_000);
        const seconds = Math.round((performance.now() - since) / 100) / 10;
        assert.match((await other.send('Browser.getVersion')).product, /^Chrome/);
        other.socket.terminate();
        await service.client.delete(sandbox.sandboxId);
        const recording = await assertPlayable(service, sandbox.sandboxId);
        rows.push({ fault: `client: ${how}`, client: 'gone', viewer: 'stays', seconds, state: 'READY', recording });
      } finally {
        child.kill('SIGKILL');
      }
    });
  }
});

describe('the service', () => {
  it('frozen for five seconds: everybody waits, nobody is lost', LIMIT, async () => {
    const own = await startService();
    try {
      const sandbox = await own.client.create({ recording: 'always' });
      const raw = await Raw.open(sandbox.cdpUrl ?? '');
      own.process.kill('SIGSTOP');
      const since = performance.now();
      const pending = raw.send('Browser.getVersion');
      await sleep(5000);
      own.process.kill('SIGCONT');
      assert.match((await pending).product, /^Chrome/);
      const seconds = Math.round((performance.now() - since) / 100) / 10;
      raw.socket.terminate();
      const state = await stateOf(own, sandbox.sandboxId);
      assert.equal(state, 'READY');
      await own.client.delete(sandbox.sandboxId);
      const recording = await assertPlayable(own, sandbox.sandboxId);
      rows.push({ fault: 'service: frozen 5 s', client: 'waits', viewer: 'waits', seconds, state, recording });
      await own.stop();
    } finally {
      own.process.kill('SIGCONT');
      await own.clean();
    }
  });

  for (const [moment, begin] of [
    ['nothing in particular', async () => {}],
    ['a create', async (of: Service) => void of.client.create({ sandboxId: 'half-made' }).catch(() => {})],
    ['a delete', async (of: Service) => void of.client.delete('lives').catch(() => {})],
    [
      'a download',
      async (of: Service) =>
        void fetch(await firstRecording(of))
          .then(drain)
          .catch(() => {}),
    ],
  ] as const) {
    it(`kill -9 in the middle of ${moment}: the next one knows what is there, and leaves nothing`, LIMIT, async () => {
      const first = await startService();
      let second: Service | undefined;
      try {
        const sandbox = await first.client.create({ sandboxId: 'lives', recording: 'always' });
        const raw = await Raw.open(sandbox.cdpUrl ?? '');
        await onTape(first, 'lives');
        await begin(first);
        // Long enough for the request to have got somewhere, too short for it to be done.
        await sleep(60);
        const since = performance.now();
        await first.kill();
        const { code } = await raw.closed;
        const seconds = Math.round((performance.now() - since) / 100) / 10;
        second = await startService({ on: first });
        const state = await stateOf(second, 'lives');
        assert.match(state, moment === 'a delete' ? /^(READY|TERMINATED deleted)$/ : /^READY$/);
        for (const { sandboxId } of await second.client.list('READY')) {
          (await Raw.open((await second.client.get(sandboxId)).cdpUrl ?? '')).socket.terminate();
          await second.client.delete(sandboxId);
        }
        const recording = await assertPlayable(second, 'lives');
        rows.push({
          fault: `service: kill -9 in ${moment}`,
          client: `${code}`,
          viewer: `${code}`,
          seconds,
          state,
          recording,
        });
        await second.stop();
      } finally {
        await second?.clean();
        await first.clean();
      }
    });
  }
});
