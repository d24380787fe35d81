import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { BERTH, Place, type Run } from './cli.ts';
import { type Service, startService, waitFor } from './service.ts';

const KEY = 'key-of-the-admin-0123456789';

function assertRefused(run: Run, code: number, says: RegExp): void {
  assert.equal(run.code, code, run.stderr);
  assert.match(run.stderr, says);
  assert.match(run.stderr, /^berth: [^\n]+\n$/, 'one line, no stack');
}

describe('berth, the command line itself', () => {
  const place = new Place();
  after(() => place.remove());

  it('helps: every command says what it is for, and those with flags how they are used', async () => {
    const { stdout, stderr, code } = await place.run(['--help']);
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(stdout, /Exit codes: 0 done, 1 failed, 2 wrong usage/);
    const names = [...stdout.matchAll(/^ {2}(\w+)(?: [<[].*?)? {2,}\S/gm)].map(([, name]) => name ?? '');
    for (const name of [
      'serve',
      'doctor',
      'create',
      'ls',
      'get',
      'rm',
      'open',
      'snippet',
      'screenshot',
      'recordings',
      'events',
      'keys',
      'run',
      'profile',
      'completion',
    ]) {
      assert.ok(names.includes(name), `${name} in ${names}`);
      const help = await place.run([name, '--help']);
      assert.deepEqual([help.code, help.stderr], [0, ''], name);
      assert.match(help.stdout, new RegExp(`^Usage: berth ${name}`));
      if (!['keys', 'profile', 'recordings'].includes(name)) assert.match(help.stdout, /Examples:\n {2}\S/, name);
    }
    for (const [group, command] of [
      ['keys', 'add'],
      ['recordings', 'export'],
      ['profile', 'add'],
    ] as const) {
      assert.match((await place.run([group, command, '--help'])).stdout, /Examples:/);
    }
    assert.equal((await place.run(['help', 'run'])).stdout, (await place.run(['run', '--help'])).stdout);
  });

  it('says what a command line should have been', async () => {
    const cases: [string[], RegExp][] = [
      [['lss'], /unknown command 'lss'; did you mean ls\?/],
      [['recording', 'ls'], /did you mean recordings\?/],
      [['frobnicate'], /unknown command 'frobnicate'; berth --help/],
      [['ls', '--jsno'], /unknown option '--jsno'; did you mean --json\?/],
      [['create', '--viewport', 'big'], /argument 'big' is wrong: it is a size such as 1280x720; berth create --help/],
      [['create', '--lifetime', '1w'], /30m or 2h/],
      [['create', '--recording', 'loud'], /it is one of off, manual, always/],
      [['create', '-m', 'novalue'], /key=value/],
      [['create', 'extra'], /too many arguments/],
      [['get'], /missing required argument 'sandbox'/],
      [['snippet', 'cobol', 'x'], /puppeteer, playwright, python, browser-use, curl, ws/],
      [['rm', '--all', 'x'], /Name sandboxes, or --all/],
      [['recordings', 'rm'], /Name recordings/],
      [['keys', 'add'], /--tenant/],
      [['ls', '--api-key', 'a', '--api-key-file', 'b'], /exclude each other/],
      [['ls', '--api-key', 'with space'], /holds no API key/],
      [['ls', '--url'], /argument missing/],
    ];
    for (const [args, says] of cases) assertRefused(await place.run(args), 2, says);
    const nothing = await place.run([]);
    assert.deepEqual([nothing.code, nothing.stdout], [2, '']);
    assert.match(nothing.stderr, /^Usage: berth/);
  });

  it('is the program that package.json names, which runs by itself', async () => {
    const root = join(BERTH, '../../..');
    const { bin, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      bin: { berth: string };
      version: string;
    };
    assert.equal(join(root, bin.berth), BERTH);
    // As npm links it.
    symlinkSync(BERTH, join(place.folder, 'bin', 'linked'));
    const { code, stdout } = await place.start(['--version'], {}, [join(place.folder, 'bin', 'linked')]).ended;
    assert.deepEqual([code, stdout], [0, `${version}\n`]);
  });

  it('serve is the service, with flags for the settings that matter most', async () => {
    const folder = join(place.folder, 's');
    mkdirSync(folder, { mode: 0o711 });
    chmodSync(place.folder, 0o711);
    const running = place.start(['serve', '--port', '0', '--data-dir', join(folder, 'd')], {
      BERTH_RUN_DIR: join(folder, 'r'),
      BERTH_PORT: 'nonsense',
    });
    await waitFor(
      () => running.stdout().includes('"url"'),
      () => running.stdout() + running.stderr(),
    );
    const url = /"url":"([^"]+)"/.exec(running.stdout())?.[1] ?? '';
    assert.equal((await place.run(['ls', '--url', url, '--json'])).stdout, '[]\n');
    running.child.kill('SIGTERM');
    assert.equal((await running.ended).code, 0);
    const bad = await place.run(['serve'], { BERTH_PORT: 'nonsense' });
    assertRefused({ ...bad, code: 2 }, 2, /BERTH_PORT/);
    assert.equal(bad.code, 1);
  });
});

describe('berth profile', () => {
  const place = new Place();
  const file = join(place.folder, 'home/.config/berth/config.json');
  let service: Service;
  before(async () => {
    service = await startService({ apiKey: KEY, env: { BERTH_API_KEYS: `ops:${KEY}:admin` } });
  });
  after(async () => {
    place.remove();
    await service.end();
  });
  const code = async (args: string[], env: Record<string, string> = {}, input = ''): Promise<number | null> =>
    (await place.run(args, env, input)).code;

  it('stores addresses and keys where only their owner can read them, and never shows a key', async () => {
    assert.equal(await code(['profile', 'add', 'main', `${service.url}/`, '--api-key-file', '-'], {}, `${KEY}\n`), 0);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.equal(statSync(join(file, '..')).mode & 0o777, 0o700);
    assert.equal(await code(['profile', 'add', 'dead', 'http://127.0.0.1:9']), 0);
    const { stdout } = await place.run(['profile', 'ls']);
    assert.match(stdout, /^ +PROFILE +URL +KEY\n\* +main +http\S+\d +yes\n +dead +http:\/\/127\.0\.0\.1:9 +no\n$/);
    assert.doesNotMatch(stdout + (await place.run(['profile', 'ls', '--json'])).stdout, new RegExp(KEY));
    assert.equal(await code(['ls']), 0, 'the first one counts');
    assert.deepEqual(readdirSync(join(file, '..')), ['config.json'], 'no lock, no half file');
  });

  it('flags come before the environment, and that before the profile', async () => {
    assert.equal(await code(['ls'], { BERTH_URL: 'http://127.0.0.1:9' }), 6, 'environment before profile');
    assert.equal(
      await code(['ls', '--url', service.url], { BERTH_URL: 'http://127.0.0.1:9' }),
      0,
      'flag before environment',
    );
    assert.equal(
      await code(['ls', '--profile', 'main'], { BERTH_URL: 'http://127.0.0.1:9', BERTH_API_KEY: 'wrong' }),
      0,
    );
    assert.equal(await code(['--profile', 'dead', 'ls']), 6, 'flags may stand before the command');
    assert.equal(await code(['ls'], { BERTH_PROFILE: 'dead' }), 6);
    assert.equal(await code(['ls'], { BERTH_API_KEY: 'wrong' }), 4, 'environment before profile, for the key alone');
    assert.equal(await code(['ls', '--api-key-file', place.file('key', KEY)], { BERTH_API_KEY: 'wrong' }), 0);
    assertRefused(await place.run(['ls', '--profile', 'nope']), 2, /no profile "nope"/);
    assert.equal(await code(['profile', 'use', 'dead']), 0);
    assert.equal(await code(['ls']), 6);
    assert.equal(await code(['profile', 'rm', 'dead']), 0);
    assert.equal(await code(['profile', 'rm', 'dead']), 3);
    assert.equal(await code(['profile', 'use', 'main']), 0);
  });

  it('a key goes to the service that it is for and to no other', async () => {
    const heard: string[] = [];
    const other = createServer((socket) => {
      socket.on('data', (chunk) => {
        heard.push(String(chunk));
        socket.destroy();
      });
    });
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
    try {
      assert.equal(await code(['ls', '--url', url]), 6);
      assert.equal(await code(['ls'], { BERTH_URL: url }), 6);
      assert.ok(heard.length >= 2);
      assert.doesNotMatch(heard.join(), /authorization/i);
    } finally {
      other.close();
    }
  });

  it('a file that others can read, or a damaged one, is not used', async () => {
    chmodSync(file, 0o640);
    assertRefused(await place.run(['ls']), 2, /others can read it \(mode 640\); run chmod 600/);
    assert.equal(await code(['ls', '--url', service.url, '--api-key', KEY]), 0, 'nothing of it is needed');
    chmodSync(file, 0o600);
    const whole = readFileSync(file);
    for (const text of ['{', '[]', '{"profiles":{"a":{}}}', '{"profiles":{"a":{"url":1}}}', '']) {
      writeFileSync(file, text);
      assertRefused(await place.run(['ls']), 2, /is damaged/);
    }
    writeFileSync(file, whole);
    const elsewhere = join(place.folder, 'xdg');
    assert.equal(await code(['profile', 'add', 'x', 'http://x'], { XDG_CONFIG_HOME: elsewhere }), 0);
    assert.ok(existsSync(join(elsewhere, 'berth/config.json')));
    assertRefused(await place.run(['profile', 'add', 'a/b', 'http://x']), 2, /named by/);
    assertRefused(await place.run(['profile', 'add', 'a', 'nonsense']), 2, /not the address/);
  });

  it('asks for the key where there is a terminal, and does not show it', async () => {
    const asked = place.terminal(`berth profile add asked ${service.url}`);
    await waitFor(() => asked.stdout().includes('API key for'), 'the question');
    asked.child.stdin?.write(`${KEY}x\u007f\r`);
    const { code: ended, stdout } = await asked.ended;
    assert.equal(ended, 0, stdout);
    assert.doesNotMatch(stdout, /key-of/);
    assert.equal(await code(['ls', '--profile', 'asked']), 0);
  });
});

describe('berth keys', () => {
  const place = new Place();
  let service: Service;
  before(async () => {
    service = await startService({ apiKey: KEY, env: { BERTH_API_KEYS: `ops:${KEY}:admin` } });
    Object.assign(place.env, { BERTH_URL: service.url, BERTH_DATA_DIR: service.dataDir });
  });
  after(async () => {
    place.remove();
    await service.end();
  });
  const file = (): string => join(service.dataDir, 'keys');
  const mayList = async (key: string): Promise<boolean> => (await place.run(['ls'], { BERTH_API_KEY: key })).code === 0;

  it('makes a key that a running service takes, shows it once and stores its hash alone', async () => {
    const { stdout, stderr, code } = await place.run(['keys', 'add', '--tenant', 'shop', '--note', 'tests # at night']);
    assert.equal(code, 0, stderr);
    const key = stdout.trim();
    assert.equal(Buffer.from(key, 'base64url').length, 32);
    const hash = createHash('sha256').update(key).digest('hex');
    assert.equal(readFileSync(file(), 'utf8'), `shop:sha256=${hash}:user # tests # at night\n`);
    assert.equal(statSync(file()).mode & 0o777, 0o600);
    assert.match(stderr, new RegExp(`^berth: key ${hash.slice(0, 12)} of shop`));
    await waitFor(() => mayList(key), 'the service to take the key');
    const list = (await place.run(['keys', 'ls'])).stdout;
    assert.match(list, new RegExp(`^KEY +TENANT +ROLE +NOTE\n${hash.slice(0, 12)} +shop +user +tests # at night\n$`));
    const viewer = JSON.parse(
      (await place.run(['keys', 'add', '--tenant', 'shop', '--role', 'viewer', '--json'])).stdout,
    );
    assert.deepEqual(Object.keys(viewer), ['keyId', 'tenant', 'role', 'key']);
    assert.equal((await place.run(['keys', 'rm', hash.slice(0, 12)])).stdout, `${hash.slice(0, 12)}\n`);
    await waitFor(async () => !(await mayList(key)), 'the service to refuse it');
    const left = JSON.parse((await place.run(['keys', 'ls', '--json'])).stdout) as unknown;
    assert.deepEqual(left, [{ keyId: viewer.keyId, tenant: 'shop', role: 'viewer', hashed: true }]);
  });

  it('leaves everything else in the file as it was, also when several edit it at once', async () => {
    const own = place.file('keys', '# ours\n\nshop:a-key-in-the-clear-1234 # old\n');
    const runs = await Promise.all(
      Array.from({ length: 6 }, (_, i) => place.run(['keys', 'add', '--tenant', `t${i}`, '--file', own])),
    );
    assert.deepEqual(
      runs.map(({ code }) => code),
      [0, 0, 0, 0, 0, 0],
    );
    const text = readFileSync(own, 'utf8');
    assert.match(text, /^# ours\n\nshop:a-key-in-the-clear-1234 # old\n(t\d:sha256=[0-9a-f]{64}:user\n){6}$/);
    const list = await place.run(['keys', 'ls', '--file', own]);
    assert.match(list.stderr, /^berth: 1 of them stand in .* as they are/);
    assert.doesNotMatch(list.stdout, /in-the-clear/);
    const id = createHash('sha256').update('a-key-in-the-clear-1234').digest('hex').slice(0, 12);
    assert.equal((await place.run(['keys', 'rm', id, '--file', own])).code, 0);
    assert.match(readFileSync(own, 'utf8'), /^# ours\n\n(t\d:[^\n]+\n){6}$/);
    assert.deepEqual(
      readdirSync(place.folder).filter((name) => name.startsWith('keys')),
      ['keys'],
    );
  });

  it('follows a link, keeps the owner, and refuses what it cannot keep right', async () => {
    const real = place.file('real', '');
    symlinkSync(real, join(place.folder, 'link'));
    assert.equal((await place.run(['keys', 'add', '--tenant', 'a', '--file', join(place.folder, 'link')])).code, 0);
    assert.match(readFileSync(real, 'utf8'), /^a:sha256=/);
    const broken = place.file('broken', 'shop:good-key-0123456789\nwhat is this\n');
    assertRefused(await place.run(['keys', 'add', '--tenant', 'a', '--file', broken]), 2, /has in line 2/);
    assertRefused(await place.run(['keys', 'ls', '--file', broken]), 2, /mend that line/);
    assert.equal(readFileSync(broken, 'utf8'), 'shop:good-key-0123456789\nwhat is this\n');
    assertRefused(await place.run(['keys', 'rm', '0123456789ab']), 3, /no key 0123456789ab/);
    assertRefused(await place.run(['keys', 'add', '--tenant', 'a:b']), 2, /--tenant is/);
    assertRefused(await place.run(['keys', 'add', '--tenant', 'a', '--note', 'two\nlines']), 2, /--note is one line/);
    assertRefused(await place.run(['keys', 'add', '--tenant', 'a', '--role', 'king']), 2, /admin, user, viewer/);
  });
});

describe('berth completion', () => {
  const place = new Place();
  let service: Service;
  before(async () => {
    service = await startService();
    place.env.BERTH_URL = service.url;
    await service.client.create({ sandboxId: 'tab-me' });
  });
  after(async () => {
    place.remove();
    await service.end();
  });

  /** What bash offers for the last of these words, after sourcing what it is meant to source. */
  async function inBash(...words: string[]): Promise<string[]> {
    const script = `eval "$(berth completion bash)"; complete -p berth >/dev/null || exit 9
      COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); _berth; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout, stderr, code } = await place.start(['-c', script, 'bash', ...words], {}, ['bash', '--norc']).ended;
    assert.equal(code, 0, stderr);
    return stdout.split('\n').filter(Boolean);
  }

  it('completes commands, flags, words and sandboxes in bash', async () => {
    assert.deepEqual(await inBash('berth', 're'), ['recordings']);
    assert.ok((await inBash('berth', '')).includes('doctor'));
    assert.ok(!(await inBash('berth', '')).includes('__complete'));
    assert.deepEqual(await inBash('berth', 'recordings', ''), ['ls', 'get', 'export', 'rm', 'help']);
    assert.deepEqual(await inBash('berth', 'create', '--record-q'), ['--record-quality']);
    assert.deepEqual(await inBash('berth', 'create', '--record-quality', ''), ['low', 'medium', 'high']);
    assert.deepEqual(await inBash('berth', 'snippet', 'p'), ['puppeteer', 'playwright', 'python']);
    assert.deepEqual(await inBash('berth', 'snippet', 'curl', ''), ['tab-me']);
    assert.deepEqual(await inBash('berth', 'rm', '--recordings', 'tab'), ['tab-me']);
    assert.deepEqual(await inBash('berth', 'rm', 'a', ''), ['tab-me']);
    assert.deepEqual(await inBash('berth', 'get', '$(touch owned)'), []);
    assert.deepEqual(await inBash('berth', 'run', ''), [], 'files, which the shell knows best');
    place.env.BERTH_URL = 'http://127.0.0.1:9';
    assert.deepEqual(await inBash('berth', 'get', ''), [], 'no service, no word');
    place.env.BERTH_URL = service.url;
    assert.ok(!existsSync(join(place.folder, 'owned')));
  });

  it('prints a script for zsh that asks the same', async (t) => {
    const script = (await place.run(['completion', 'zsh'])).stdout;
    assert.match(script, /^#compdef berth\n/);
    const zsh = await place.start(['--version'], {}, ['zsh']).ended.catch(() => undefined);
    if (!zsh) return t.diagnostic('there is no zsh to source it in');
    // Outside of completion its own builtins are not to be had; what they are called with is what counts.
    const line = `compdef() { :; }; eval "$(berth completion zsh)"; compadd() { shift; print -l -- "$@" }; _files() { print files }
      words=(berth snippet p); CURRENT=3; _berth; words=(berth get ""); _berth; words=(berth run ""); _berth`;
    const { stdout, stderr } = await place.start(['-f', '-c', line], {}, ['zsh']).ended;
    assert.equal(stdout, 'puppeteer\nplaywright\npython\ntab-me\nfiles\n', stderr);
  });
});
