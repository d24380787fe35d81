import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { LocalDriver } from '../../src/drivers/local.ts';
import { EgressBook } from '../contract/egress-book.ts';
import { environmentOf, pidsBelow, processesOf } from './drivers.ts';
import { assertNothingLeft, LIMIT, type Service, startService, waitFor } from './service.ts';

const SERVER = fileURLToPath(new URL('../../cmd/server.js', import.meta.url));
const KEY = 'k0-3f9c1be27a5d4e60';
const S3_SECRET = 's3-8d41b6f07c2e';

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Short, and open to the users of sandboxes on their way to the run folder in it. */
function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'bt-'));
  chmodSync(folder, 0o711);
  folders.push(folder);
  return folder;
}

interface Refusal {
  readonly stderr: string;
  readonly base: string;
}

/** Starts the service with settings that it must not accept: it ends by itself, not with 0, and has one line to say. */
async function refusal(env: Readonly<Record<string, string>>, base = temporaryFolder()): Promise<Refusal> {
  const child = spawn(process.execPath, [SERVER], {
    env: {
      PATH: process.env.PATH,
      BERTH_PORT: '0',
      BERTH_DATA_DIR: join(base, 'd'),
      BERTH_RUN_DIR: join(base, 'r'),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: LIMIT.timeout,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => (stdout += chunk));
  child.stderr.on('data', (chunk) => (stderr += chunk));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  assert.ok(code !== null && code !== 0, `exit code ${code}; stdout: ${stdout}; stderr: ${stderr}`);
  assert.equal(stdout, '');
  assert.match(stderr, /^berth: [^\n]+\.\n$/);
  assert.doesNotMatch(stderr, /\bat .*:\d+:\d+|Error:/, 'a sentence, not a stack');
  return { stderr, base };
}

/** One sentence: nothing between the first word and the full stop starts a second one. */
function assertOneSentence(stderr: string): void {
  assert.doesNotMatch(stderr.trimEnd(), /\. [A-Z]/);
}

describe('a bad setting', () => {
  const BAD: readonly (readonly [setting: string, value: string, says: RegExp])[] = [
    ['BERTH_PORT', 'abc', /whole number from 0 to 65535, not "abc"/],
    ['BERTH_PORT', '65536', /whole number from 0 to 65535/],
    ['BERTH_PORT', '-1', /whole number/],
    ['BERTH_PORT', 'tcp://10.0.0.1:3000', /whole number/],
    ['BERTH_HOST', 'http://127.0.0.1', /without scheme and port/],
    ['BERTH_HOST', '0.0.0.0', /0\.0\.0\.0, which others can reach, but there are no keys/],
    ['BERTH_HOST', '::', /there are no keys/],
    ['BERTH_FOO', '1', /is not a setting/],
    ['BERTH_PROT', '3000', /is not a setting; the nearest is BERTH_PORT\.$/m],
    ['BERTH_RUN_DIR', `/tmp/${'x'.repeat(60)}`, /at most 38 bytes/],
    ['BERTH_DRIVER', 'kubernetes', /no such driver/],
    ['BERTH_DRIVER', 'podman', /must be one of local\b.*, not "podman"/],
    ['BERTH_MAX_SANDBOXES', '0', /from 1 to 1000, not "0"/],
    ['BERTH_START_TIMEOUT_SECONDS', '1.5', /from 1 to 600/],
    ['BERTH_LOG_LEVEL', 'loud', /must be one of trace, .*not "loud"/],
    ['BERTH_ON_EXIT', 'stay', /must be one of stop, keep/],
    ['BERTH_PUBLIC_URL', 'berth.example.com', /http or https address/],
    ['BERTH_PUBLIC_URL', 'ftp://berth.example.com', /http or https address/],
    ['BERTH_CHROMIUM', '/nonexistent/chromium', /\/nonexistent\/chromium is none/],
    ['BERTH_S3_ENDPOINT', 'minio:9000', /http or https address/],
    ['BERTH_S3_ACCESS_KEY_ID', 'AKIAEXAMPLE', /and BERTH_S3_SECRET_ACCESS_KEY belong together/],
    ['BERTH_S3_SSE_KEY', 'key', /is for BERTH_S3_SSE=aws:kms only/],
    ['BERTH_API_KEYS', 'nocolon', /entry 1/],
    ['BERTH_API_KEYS', 'a:short', /entry 1 a key shorter than 16 characters/],
  ];
  for (const [setting, value, says] of BAD) {
    it(`stops the start with one sentence: ${setting}=${value.slice(0, 30)}`, async () => {
      const { stderr, base } = await refusal({ [setting]: value });
      assert.ok(stderr.startsWith(`berth: ${setting} `), stderr);
      assert.match(stderr, says);
      assertOneSentence(stderr);
      assert.deepEqual(readdirSync(base), [], 'nothing was made');
    });
  }

  it('never has its keys repeated, however the list of keys is wrong', async () => {
    for (const value of [
      `a:${KEY}:boss`,
      `${KEY}:a`,
      `a:${KEY},a:${KEY}`,
      `a:${KEY}:user:more`,
      `a b:${KEY}`,
      `${KEY}`,
      `a:x,b:${KEY}`,
      `a: ${KEY}`,
    ]) {
      const { stderr } = await refusal({ BERTH_API_KEYS: value });
      assert.match(stderr, /^berth: BERTH_API_KEYS has in entry [12] /);
      assert.ok(!stderr.includes(KEY.slice(0, 8)), stderr);
    }
    const { stderr } = await refusal({ BERTH_PUBLIC_URL: `https://user:${KEY}@berth.example.com` });
    assert.match(stderr, /^berth: BERTH_PUBLIC_URL must have no user, password/);
    assert.ok(!stderr.includes(KEY), stderr);
  });
});

describe('a machine that lacks something', () => {
  /** Programs that a sandbox needs, in a folder that can stand for PATH. */
  function pathWithout(base: string, missing: string): string {
    const folder = join(base, 'bin');
    mkdirSync(folder, { recursive: true });
    for (const program of ['Xvfb', 'openbox', 'X0tigervnc', 'ffmpeg', 'setpriv', 'which', 'sh', 'grep', 'cat', 'env']) {
      if (program === missing) continue;
      const found = spawnSync('/bin/sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).stdout.trim();
      assert.ok(found, `${program} is needed for this test`);
      symlinkSync(found, join(folder, program));
    }
    return folder;
  }

  for (const [program, name] of [
    ['Xvfb', 'xvfb'],
    ['openbox', 'openbox'],
    ['X0tigervnc', 'tigervnc-scraping-server'],
    ['ffmpeg', 'ffmpeg'],
    ['setpriv', 'util-linux'],
  ] as const) {
    it(`hears that ${program} is missing and which package has it`, async () => {
      const base = temporaryFolder();
      // Any program will do for the browser: it is not started.
      const { stderr } = await refusal({ PATH: pathWithout(base, program), BERTH_CHROMIUM: process.execPath }, base);
      assert.equal(stderr, `berth: ${program} is missing: install the package ${name}.\n`);
    });
  }

  it('hears that Chromium is missing, which package has it and which setting points to another', async () => {
    const driver = new LocalDriver({
      runDir: '/nonexistent/r',
      dataDir: '/nonexistent/d',
      runtimeProgram: '/nonexistent/runtime.js',
      chromium: undefined,
      masterKey: Buffer.alloc(32),
      startTimeoutSeconds: 1,
      downloadsMb: 100,
      egress: new EgressBook(),
      env: { PATH: process.env.PATH ?? '' },
      warn: () => {},
    });
    await assert.rejects(
      driver.check(),
      /^AppError: Chromium is missing: install the package chromium, or set BERTH_CHROMIUM to its path\.$/,
    );
  });
});

describe('a port that is taken', () => {
  let squatter: Server;
  let port: number;
  before(async () => {
    squatter = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => squatter.listen(0, '127.0.0.1', resolve));
    port = (squatter.address() as AddressInfo).port;
  });
  after(() => new Promise<void>((resolve) => squatter.close(() => resolve())));

  it('by another program stops the start with one sentence that names it', async () => {
    const { stderr, base } = await refusal({ BERTH_PORT: String(port) });
    assert.equal(
      stderr,
      `berth: Cannot listen on 127.0.0.1:${port}: the port is taken or the address is not this machine's.\n`,
    );
    assert.deepEqual(pidsBelow(join(base, 'r')), []);
  });

  it('or an address that is not this machine’s', async () => {
    // TEST-NET-1, RFC 5737: nobody has it.
    const { stderr } = await refusal({ BERTH_HOST: '192.0.2.1', BERTH_API_KEYS: `a:${KEY}` });
    assert.match(stderr, /^berth: Cannot listen on 192\.0\.2\.1:0: /);
  });
});

describe('a running service', () => {
  let service: Service;
  before(async () => {
    const env = {
      BERTH_API_KEYS: `a:${KEY}`,
      BERTH_S3_BUCKET: 'recordings',
      // Nothing listens there: a bucket that is away must not keep the service from starting.
      BERTH_S3_ENDPOINT: 'http://127.0.0.1:1',
      BERTH_S3_ACCESS_KEY_ID: `${S3_SECRET}-id`,
      BERTH_S3_SECRET_ACCESS_KEY: S3_SECRET,
      AWS_SECRET_ACCESS_KEY: S3_SECRET,
    };
    service = await startService({ env, apiKey: KEY });
  });
  after(async () => {
    await service.end();
  });

  it('keeps its port to itself: a second service on it is refused', async () => {
    const { stderr } = await refusal({ BERTH_PORT: new URL(service.url).port });
    assert.match(stderr, /^berth: Cannot listen on 127\.0\.0\.1:\d+: the port is taken/);
    assert.equal((await fetch(`${service.url}/health`)).status, 200);
  });

  it('keeps its folders to itself: a second service on them is refused and disturbs nothing', async () => {
    const sandbox = await service.client.create();
    const { stderr } = await refusal(
      { BERTH_DATA_DIR: service.dataDir, BERTH_RUN_DIR: service.runDir },
      join(service.dataDir, '..'),
    );
    assert.equal(
      stderr,
      `berth: Another Berth already serves ${service.dataDir}: give this one its own BERTH_DATA_DIR.\n`,
    );
    const data = await refusal({ BERTH_DATA_DIR: service.dataDir });
    assert.match(data.stderr, /already serves .*: give this one its own BERTH_DATA_DIR\.$/m);
    assert.deepEqual(readdirSync(data.base), []);
    const run = await refusal({ BERTH_RUN_DIR: service.runDir });
    assert.match(run.stderr, /already serves .*: give this one its own BERTH_RUN_DIR\.$/m);
    assert.equal((await service.client.get(sandbox.sandboxId)).status, 'READY');
    await service.client.delete(sandbox.sandboxId);
  });

  it('shows its API keys and those of the bucket nowhere: not in its output, its command line, its files, nor to its sandboxes', async () => {
    const sandbox = await service.client.create();
    assert.equal((await fetch(`${service.url}/sandboxes?api_key=${KEY}`)).status, 200);
    assert.equal((await fetch(`${service.url}/sandboxes`, { headers: { 'x-api-key': `${KEY}-almost` } })).status, 401);
    const pid = service.process.pid as number;
    assert.ok(!readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(KEY));
    const children = await processesOf(service, sandbox.sandboxId);
    assert.ok(children.length >= 5, 'the sandbox has its processes');
    for (const child of children) {
      for (const text of [child.command, await environmentOf(service, sandbox.sandboxId, child.pid)]) {
        for (const secret of [KEY, S3_SECRET, 'BERTH_API_KEYS', 'BERTH_S3_', 'AWS_'])
          assert.ok(!text.includes(secret), `${child.command} has ${secret}`);
      }
    }
    for (const folder of [service.dataDir, service.runDir]) {
      for (const entry of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
        const file = join(folder, entry);
        if (!statSync(file, { throwIfNoEntry: false })?.isFile()) continue;
        const content = readFileSync(file);
        assert.ok(!content.includes(KEY) && !content.includes(S3_SECRET), file);
      }
    }
    await service.client.delete(sandbox.sandboxId);
    assert.match(service.log(), /"msg":"request"/);
    assert.ok(!service.log().includes(KEY) && !service.log().includes(S3_SECRET));
  });

  it('keeps what it derives its secrets from to itself', () => {
    // As root the users of the local sandboxes pass through it to their downloads, and list nothing.
    assert.equal(statSync(service.dataDir).mode & 0o776, 0o700);
    const key = statSync(join(service.dataDir, 'master.key'));
    assert.equal(key.mode & 0o777, 0o600);
    assert.equal(key.size, 32);
  });
});

describe('a damaged master key', () => {
  for (const size of [0, 31, 33]) {
    it(`stops the start instead of being used or replaced (${size} bytes)`, async () => {
      const base = temporaryFolder();
      mkdirSync(join(base, 'd'));
      const file = join(base, 'd', 'master.key');
      const damaged = Buffer.alloc(size, 'x');
      writeFileSync(file, damaged);
      const { stderr } = await refusal({}, base);
      assert.ok(stderr.startsWith(`berth: ${file} is damaged: it must hold 32 bytes`), stderr);
      assert.ok(readFileSync(file).equals(damaged), 'the file is as it was');
      assert.equal(existsSync(join(base, 'r', 'api')), false);
    });
  }
});

/**
 * Keymaps of X servers whose sandbox user has no process any more. While one lies there, every X server of another user
 * that takes its display number dies at its start: it may not replace the file.
 */
function strayKeymaps(): string[] {
  const uids = new Set(readdirSync('/proc').map((pid) => statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid));
  return readdirSync('/tmp')
    .filter((name) => /^server-\d+\.xkm$/.test(name))
    .filter((name) => {
      const uid = statSync(`/tmp/${name}`, { throwIfNoEntry: false })?.uid ?? 0;
      return uid > 1_879_048_191 && !uids.has(uid);
    });
}

/** None but those that were there before; other test files' come and go, too. */
async function assertNoStrayKeymaps(): Promise<void> {
  const left = () => strayKeymaps().filter((name) => !strayBefore.includes(name));
  await waitFor(
    () => left().length === 0,
    () => `no keymaps to be left, but there are ${left()}`,
  );
}

const strayBefore = strayKeymaps();

describe('a service with room for one sandbox', { timeout: 3 * LIMIT.timeout }, () => {
  let service: Service;
  before(async () => {
    service = await startService({ env: { BERTH_MAX_SANDBOXES: '1' } });
  });
  after(async () => {
    await service.end();
  });

  it('refuses a second one with 429 and says when to come again', async () => {
    await service.client.create({ sandboxId: 'one' });
    const full = await fetch(`${service.url}/sandboxes`, { method: 'POST', body: '{"sandboxId":"two"}' });
    assert.equal(full.status, 429);
    assert.ok(Number(full.headers.get('retry-after')) >= 1);
    const { code, message } = (await full.json()) as { code: number; message: string };
    assert.equal(code, 2006);
    assert.match(message, /BERTH_MAX_SANDBOXES/);
    await assert.rejects(service.client.get('two'), { status: 404 });
    await service.client.delete('one');
    await service.client.create({ sandboxId: 'two' });
    await service.client.delete('two');
  });

  it('undoes the start of one whose caller hangs up, wherever it was, and has its room again', async () => {
    for (let i = 0; i < 12; i++) {
      const id = `gone-${i}`;
      const caller = new AbortController();
      const pending = service.client.create({ sandboxId: id, recording: 'always' }, { signal: caller.signal });
      pending.catch(() => {});
      const begun = async (): Promise<boolean> => (await fetch(`${service.url}/sandboxes/${id}`)).status === 200;
      await waitFor(begun, 'the start to begin');
      // From the very beginning to the first programs on the screen; a Chromium takes longer than that to come up.
      await sleep(i * 12);
      caller.abort();
      await assert.rejects(pending, { name: 'AbortError' });
      await waitFor(async () => (await service.client.get(id)).endedAt !== undefined, 'it to end');
      const ended = await service.client.get(id);
      assert.equal(ended.status, 'FAILED');
      assert.equal(ended.endedReason, 'failed: the caller went away before it was ready');
      await assertNothingLeft(service);
    }
    await assertNoStrayKeymaps();
    await service.client.create({ sandboxId: 'gone-0' });
    await service.client.delete('gone-0');
  });

  it('ends one on demand that is still being started', async () => {
    const begun = await fetch(`${service.url}/sandboxes?wait=false`, { method: 'POST', body: '{"sandboxId":"short"}' });
    assert.equal(begun.status, 202);
    const ended = await service.client.delete('short');
    assert.equal(ended.status, 'TERMINATED');
    assert.equal(ended.endedReason, 'deleted');
    await assertNothingLeft(service);
    await assertNoStrayKeymaps();
  });
});
