import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Recording, Sandbox, SandboxEvent } from '../../src/client/client.ts';
import { SNIPPETS, snippet } from '../../src/client/snippets.ts';
import { Place, type Run } from './cli.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { probe } from './video.ts';

const KEY = 'key-of-the-shop-0123456789';
const VIEWER = 'key-of-a-viewer-0123456789';
const PNG = '\x89PNG\r\n\x1a\n';
const ESCAPE = '\u001b';

/** Everything but the rest of a sentence. */
function assertSentence({ stderr }: Run, pattern: RegExp): void {
  assert.match(stderr, pattern);
  assert.match(stderr, /^berth: [^\n]+\n$/, 'one line');
  assert.doesNotMatch(stderr, /\n\s+at |Error:/, 'no stack');
}

describe('berth, the commands for sandboxes', { timeout: 3 * LIMIT.timeout }, () => {
  const place = new Place();
  let service: Service;
  before(async () => {
    service = await startService({
      apiKey: KEY,
      env: { BERTH_API_KEYS: `shop:${KEY},shop:${VIEWER}:viewer`, BERTH_MAX_SANDBOXES: '3' },
    });
    Object.assign(place.env, { BERTH_URL: service.url, BERTH_API_KEY: KEY });
  });
  after(async () => {
    place.remove();
    await service.end();
  });

  const ok = async (...args: string[]): Promise<string> => {
    const run = await place.run(args);
    assert.equal(run.code, 0, `berth ${args.join(' ')}: ${run.stdout}${run.stderr}`);
    return run.stdout;
  };
  const parsed = async <T>(...args: string[]): Promise<T> => JSON.parse(await ok(...args, '--json')) as T;

  it('create takes every flag to the field that it means', async () => {
    const flags =
      '--id one --record-fps 5 --record-scale 0.5 --record-quality low --record-segment 5s --no-record-cursor --viewport 800x600 ' +
      '--recording manual --idle-timeout 10m --lifetime 1h --connect-timeout 90 --activity automation --on-browser-close keep -m a=b=c -m d=';
    const made = await parsed<Sandbox>('create', ...flags.split(' '));
    assert.equal(made.sandboxId, 'one');
    assert.equal(made.status, 'READY');
    assert.deepEqual(made.viewport, { width: 800, height: 600 });
    assert.deepEqual(made.metadata, { a: 'b=c', d: '' });
    assert.equal(made.recording.mode, 'manual');
    assert.deepEqual(
      [
        made.sandboxIdleTimeoutSeconds,
        made.maxLifetimeSeconds,
        made.connectTimeoutSeconds,
        made.activity,
        made.onBrowserClose,
      ],
      [600, 3600, 90, 'automation', 'keep'],
    );
    assert.match(made.cdpUrl ?? '', /\?ticket=/);
    assert.deepEqual(Object.keys(await parsed<Sandbox>('get', 'one')), Object.keys(made));
  });

  it('create takes fields without a flag from a file, flags before them, and does not wait when it is told so', async () => {
    const body = place.file(
      'body.json',
      JSON.stringify({ recording: 'always', recordingSegmentSeconds: 5, metadata: { a: '1', b: '2' } }),
    );
    const made = await parsed<Sandbox>('create', '--body', body, '--id', 'two', '-m', 'b=3', '--no-wait');
    assert.equal(made.recording.mode, 'always');
    assert.deepEqual(made.metadata, { a: '1', b: '3' });
    await waitFor(async () => (await service.client.get('two')).status === 'READY', 'two to be READY');
    assert.deepEqual((await parsed<Sandbox>('create', '--idempotency-key', 'k', '--id', 'three')).sandboxId, 'three');
    assert.deepEqual((await parsed<Sandbox>('create', '--idempotency-key', 'k', '--id', 'three')).sandboxId, 'three');
  });

  it('ls is a table for people and a list of what the API has for programs', async () => {
    const lines = (await ok('ls')).trimEnd().split('\n');
    assert.match(lines[0] ?? '', /^SANDBOX +STATUS +TEMPLATE +AGE +ENDS IN +CLIENTS +VIEWERS +RECORDING +NOTES$/);
    assert.deepEqual(
      lines
        .slice(1)
        .map((line) => line.split(/ +/).slice(0, 3))
        .sort(),
      [
        ['one', 'READY', 'default'],
        ['three', 'READY', 'default'],
        ['two', 'READY', 'default'],
      ],
    );
    assert.doesNotMatch(lines.join(''), new RegExp(ESCAPE), 'no colours in a pipe');
    const all = await parsed<Sandbox[]>('ls');
    assert.deepEqual(all.map(({ sandboxId }) => sandboxId).sort(), ['one', 'three', 'two']);
    assert.deepEqual(
      (await parsed<Sandbox[]>('ls', '-m', 'b=3')).map(({ sandboxId }) => sandboxId),
      ['two'],
    );
    assert.deepEqual(await parsed('ls', '--status', 'FAILED'), []);
  });

  it('ls has colours in a terminal, unless nobody wants them', async () => {
    const shown = (await place.terminal('berth ls').ended).stdout;
    assert.match(shown, new RegExp(`${ESCAPE}\\[32mREADY${ESCAPE}\\[39m`));
    for (const [line, env] of [
      ['berth ls --no-color', {}],
      ['berth ls', { NO_COLOR: '1' }],
      ['berth ls', { TERM: 'dumb' }],
      ['berth ls --json', {}],
    ] as const) {
      const { stdout, code } = await place.terminal(line, env).ended;
      assert.equal(code, 0);
      assert.match(stdout, /READY/);
      assert.doesNotMatch(stdout, new RegExp(`${ESCAPE}\\[3`), line);
    }
  });

  it('what others chose cannot command a terminal', async () => {
    await service.client.http.PATCH('/sandboxes/{id}', {
      params: { path: { id: 'one' } },
      body: { metadata: { evil: '\u001b]0;owned\u0007\u009b31m\nfake READY\u202e' } },
    });
    for (const args of [['ls'], ['get', 'one'], ['ls', '--json'], ['get', 'one', '--json']]) {
      const text = await ok(...args);
      for (const one of [ESCAPE, '\u0007', '\u009b', '\u202e', '\nfake'])
        assert.ok(!text.includes(one), args.join(' '));
      if (args.includes('--json')) assert.match(JSON.stringify(JSON.parse(text)), /owned/);
    }
  });

  it('a reader that has seen enough is no error', async () => {
    const { stdout, stderr, code } = await place.start(
      ['-c', 'set -o pipefail; berth ls --json --all | head -1; berth events | head -1; berth --help | head -1'],
      {},
      ['bash'],
    ).ended;
    assert.equal(code, 0, stderr);
    assert.equal(stderr, '');
    assert.match(stdout, /^\[\n20\S+ +sandbox.creating.*\nUsage: berth/);
  });

  it('open starts the opener, and prints the address where there is none or no screen', async () => {
    const opened = join(place.folder, 'opened');
    place.program('xdg-open', `echo "$1" > ${opened}`);
    const { stdout, code } = await place.run(['open', 'one'], { DISPLAY: ':7' });
    assert.deepEqual([code, stdout], [0, '']);
    assert.match(readFileSync(opened, 'utf8'), /\/sandboxes\/one\/live\?ticket=/);
    rmSync(opened);
    const address = /^http:\/\/127\.0\.0\.1:\d+\/sandboxes\/one\/live\?ticket=\S+\n$/;
    assert.match(await ok('open', 'one'), address);
    assert.match((await place.run(['open', 'one', '--print'], { DISPLAY: ':7' })).stdout, address);
    assert.ok(!existsSync(opened));
    place.program('xdg-open', 'exit 3');
    assert.match((await place.run(['open', 'one'], { DISPLAY: ':7' })).stdout, address);
    assert.match((await parsed<{ liveViewUrl: string }>('open', 'one')).liveViewUrl, /ticket=/);
    const shared = (await ok('open', 'one', '--view-only', '--ttl', '60')).trim();
    const { tickets } =
      (await service.client.http.GET('/sandboxes/{id}/tickets', { params: { path: { id: 'one' } } })).data?.data ??
      assert.fail();
    assert.deepEqual(
      tickets.map(({ role }) => role),
      ['view'],
    );
    assert.match(shared, /live\?ticket=/);
  });

  it('snippet prints lines with the ticketed address, and those for curl run', async () => {
    const sandbox = await service.client.get('one');
    for (const kind of SNIPPETS) {
      const text = await ok('snippet', kind, 'one');
      assert.match(text, /\/sandboxes\/one\/(ws\/automation|json\/version)\?ticket=[\w.-]+/, kind);
      assert.equal(snippet(kind, { ...sandbox, cdpUrl: undefined } as never), undefined);
    }
    const { stdout } = await place.start(['-c', await ok('snippet', 'curl', 'one')], {}, ['sh']).ended;
    assert.match(stdout, /"webSocketDebuggerUrl"/);
    assert.deepEqual(Object.keys(await parsed('snippet', 'ws', 'one')), ['sandboxId', 'kind', 'snippet']);
  });

  it('snippets quote what an address may have in it', () => {
    const cdpUrl = `ws://h/sandboxes/x/ws/automation?ticket='"$(touch x)\``;
    assert.match(
      snippet('curl', { cdpUrl }) ?? '',
      /^curl -sS 'http:\/\/h\/sandboxes\/x\/json\/version\?ticket=%27%22\$\(touch%20x\)`'\n$/,
    );
    assert.match(
      snippet('ws', { cdpUrl }) ?? '',
      /"ws:\/\/h\/sandboxes\/x\/ws\/automation\?ticket='\\"\$\(touch x\)`"/,
    );
  });

  it('screenshot writes what the browser shows', async () => {
    assert.match(await ok('screenshot', 'one'), /^one\.png \(/);
    const bytes = readFileSync(join(place.folder, 'one.png'));
    assert.equal(bytes.toString('latin1', 0, 8), PNG);
    assert.equal(bytes.readUInt32BE(16), 800);
    assert.deepEqual(Object.keys(await parsed('screenshot', 'one', 'a.jpg', '--full-page')), [
      'sandboxId',
      'file',
      'format',
      'bytes',
    ]);
    assert.equal(readFileSync(join(place.folder, 'a.jpg')).readUInt16BE(0), 0xffd8);
    const piped = await place.start(['-c', 'berth screenshot one - | head -c 4 | tail -c 3'], {}, ['bash']).ended;
    assert.equal(piped.stdout, 'PNG');
    const cases = [
      [['one', 'a.gif'], 2, /has to end in/],
      [['one', 'nowhere/a.png'], 1, /nowhere\/a\.png cannot be written \(ENOENT\)/],
      [['one', 'b.png', '--page', 'none'], 3, /no page none/],
      [['nope'], 3, /sandbox not found/],
    ] as const;
    for (const [args, code, says] of cases) {
      const run = await place.run(['screenshot', ...args]);
      assert.equal(run.code, code, run.stderr);
      assertSentence(run, says);
    }
    assert.deepEqual(
      readdirSync(place.folder).filter((name) => name.includes('.part')),
      [],
    );
  });

  it('no capacity has an exit code of its own', async () => {
    const run = await place.run(['create']);
    assert.equal(run.code, 5, run.stderr);
    assertSentence(run, /BERTH_MAX_SANDBOXES.*\(code 2006, request [0-9a-f-]{36}\)/);
  });

  it('events are those that were, and with -f those to come, until the sandbox has ended', async () => {
    const before = (await ok('events', 'two')).trimEnd().split('\n');
    assert.match(before[0] ?? '', /^\S+Z?\S* +sandbox\.creating +two$/);
    assert.equal((await ok('events', '-n', '2')).trimEnd().split('\n').length, 2);
    const follower = place.start(['events', '-f', 'two', '--json', '-n', '0']);
    const others = place.start(['events', '-f']);
    await waitFor(() => others.stdout() !== '', 'the events before');
    assert.equal(await ok('rm', 'two'), 'two\n');
    const { code, stdout } = await follower.ended;
    assert.equal(code, 0);
    const types = stdout
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as SandboxEvent).type);
    assert.equal(types.at(-1), 'sandbox.ended');
    await waitFor(() => /sandbox\.ended +two/.test(others.stdout()), 'the event in the other');
    others.child.kill('SIGINT');
    assert.deepEqual((({ code, stderr }) => [code, stderr])(await others.ended), [130, '']);
  });

  it('recordings are listed, fetched, exported with a bar, and deleted', async () => {
    await waitFor(
      async () => (await service.client.recordings('two')).every(({ durationSeconds }) => durationSeconds !== null),
      'its facts',
    );
    const [first, ...more] = await parsed<Recording[]>(
      'recordings',
      'ls',
      '--sandbox',
      'two',
      '--status',
      'completed',
      '--since',
      '2020-01-01',
    );
    assert.ok(first);
    assert.match(await ok('recordings', 'ls', '-m', 'b=3'), new RegExp(`^RECORDING .*\n${first.filename} +completed`));
    assert.deepEqual(await parsed('recordings', 'ls', '--until', '2020-01-01'), []);
    assert.match(await ok('recordings', 'get', first.filename), new RegExp(`^${first.filename} \\(`));
    assert.equal(readFileSync(join(place.folder, first.filename)).length, first.size);
    const shown = await place.terminal(`berth recordings export two film.mp4`).ended;
    assert.equal(shown.code, 0, shown.stdout);
    assert.match(shown.stdout, /film\.mp4 \(/);
    const film = await probe(join(place.folder, 'film.mp4'));
    assert.deepEqual([film.errors, film.codec], ['', 'h264']);
    assert.match(
      await ok('recordings', 'export', first.filename, place.folder),
      new RegExp(`${first.sessionId}\\.mkv`),
    );
    const piped = await place.start(['-c', `berth recordings get ${first.filename} - | wc -c`], {}, ['bash']).ended;
    assert.equal(Number(piped.stdout), first.size);
    assert.deepEqual(
      (({ code, stdout }) => [code, stdout])(await place.run(['recordings', 'rm', '--sandbox', 'two'])),
      [2, ''],
      'asks where somebody can answer',
    );
    const asked = place.terminal('berth recordings rm --sandbox two');
    await waitFor(() => asked.stdout().includes('[y/N]'), 'the question');
    asked.child.stdin?.write('n\n');
    assert.equal((await asked.ended).code, 1);
    assert.equal((await service.client.recordings('two')).length, 1 + more.length);
    assert.equal(await ok('recordings', 'rm', first.filename), `${first.filename}\n`);
    await ok('recordings', 'rm', '--sandbox', 'two', '--yes');
    const gone = await place.run(['recordings', 'get', first.filename]);
    assert.equal(gone.code, 3);
    assertSentence(gone, /code 3002/);
    assert.equal((await place.run(['recordings', 'export', 'two'])).code, 3);
  });

  it('wrong keys, roles, ids and services each have their exit code and say what to do', async () => {
    const cases: [string[], Record<string, string>, number, RegExp][] = [
      [['get', 'nope'], {}, 3, /berth ls --all/],
      [['rm', 'nope'], {}, 3, /sandbox not found/],
      [['get', 'two', '--api-key', 'wrong'], {}, 4, /not known.*--api-key-file/],
      [['ls'], { BERTH_API_KEY: '' }, 4, /API key is needed/],
      [['create'], { BERTH_API_KEY: VIEWER }, 4, /may look/],
      [['screenshot', 'two'], {}, 3, /two has ended: deleted/],
      [['create', '--lifetime', '0'], {}, 2, /maxLifetimeSeconds/],
      [['create', '--template', 'nope'], {}, 3, /template/i],
      [['create', '--body', 'nope.json'], {}, 2, /nope\.json cannot be read/],
      [['ls', '--url', 'http://127.0.0.1:9'], {}, 6, /Nothing answers at http:\/\/127\.0\.0\.1:9 .*berth serve/],
      [['ls', '--url', 'http://nowhere.invalid'], {}, 6, /is the address right/],
      [['ls', '--url', 'ftp://x'], {}, 2, /not the address/],
      [['ls', '--url', 'http://me:secret@x'], {}, 2, /no user/],
      [['ls', '--api-key-file', 'nope'], {}, 2, /nope cannot be read/],
    ];
    for (const [args, env, code, says] of cases) {
      const run = await place.run(args, env);
      assert.equal(run.code, code, `${args.join(' ')}: ${run.stderr}`);
      assert.equal(run.stdout, '');
      assertSentence(run, says);
      assert.doesNotMatch(run.stderr, /secret@/);
    }
  });

  it('something else than Berth is told so', async () => {
    const other = createServer((req, res) => {
      res.statusCode = req.url?.startsWith('/sandboxes/') ? 502 : 200;
      res.setHeader('Content-Type', 'text/html');
      res.end('<h1>\u001b[31mhello</h1>');
    });
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    try {
      const env = { BERTH_URL: `http://127.0.0.1:${(other.address() as AddressInfo).port}` };
      const list = await place.run(['ls'], env);
      assert.equal(list.code, 1);
      assertSentence(list, /no Berth service/);
      const one = await place.run(['get', 'x'], env);
      assert.equal(one.code, 6);
      assertSentence(one, /502.*no answer of a Berth service/);
    } finally {
      other.close();
      other.closeAllConnections();
    }
  });

  it('BERTH_DEBUG shows where an error comes from, and only it', async () => {
    assert.match((await place.run(['get', 'nope'], { BERTH_DEBUG: '1' })).stderr, /BerthError.*\n\s+at /);
  });

  it('a reader that leaves ends what only prints, and nothing that is under way', async () => {
    const line =
      'berth events -f | head -1 & p=$!; sleep 1; berth create --id five >/dev/null; wait $p; berth rm five three | (exec <&-; sleep 2)';
    const { code, stderr } = await place.start(['-c', line], {}, ['bash']).ended;
    assert.deepEqual([code, stderr], [0, '']);
    assert.deepEqual(
      (await service.client.list('READY')).map(({ sandboxId }) => sandboxId),
      ['one'],
    );
    await service.client.create({ sandboxId: 'six' });
  });

  it('rm ends several, tells of those that it cannot, and asks before it ends all', async () => {
    const some = await place.run(['rm', 'nope', 'one']);
    assert.deepEqual([some.code, some.stdout], [3, 'one\n']);
    assert.match(some.stderr, /not found: nope.*\nberth: 1 of 2 could not be ended\.\n$/);
    assert.equal((await place.run(['rm'])).code, 2);
    const unasked = await place.run(['rm', '--all']);
    assert.equal(unasked.code, 2);
    assertSentence(unasked, /end 1 sandbox.*--yes/);
    const asked = place.terminal('berth rm --all');
    await waitFor(() => asked.stdout().includes('End 1 sandbox? [y/N]'), 'the question');
    asked.child.stdin?.write('y\n');
    assert.equal((await asked.ended).code, 0);
    assert.deepEqual(await parsed('ls'), []);
    assert.deepEqual(await parsed('rm', '--all'), []);
    assert.ok((await parsed<Sandbox[]>('ls', '--all')).length >= 3);
  });
});
