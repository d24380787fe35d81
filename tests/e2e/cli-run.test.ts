import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Place, type Run, type Running } from './cli.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { probe } from './video.ts';

/** The packages of this repository, for scripts that lie elsewhere. */
const PUPPETEER = import.meta.resolve('puppeteer-core');

const HANG = `process.on('SIGINT', () => {}); console.log('up'); setInterval(() => {}, 1000);`;

describe('berth run', { timeout: 3 * LIMIT.timeout }, () => {
  const place = new Place();
  let service: Service;
  before(async () => {
    service = await startService();
    place.env.BERTH_URL = service.url;
  });
  after(async () => {
    place.remove();
    await service.end();
  });

  const living = async (): Promise<number> =>
    (await service.client.list('READY')).length + (await service.client.list('CREATING')).length;
  /** However it went, the sandbox has gone. */
  const assertNoneLeft = async (): Promise<void> => assert.equal(await living(), 0);
  const assertRefused = async (run: Run, code: number, says: RegExp): Promise<void> => {
    assert.equal(run.code, code, run.stderr);
    assert.match(run.stderr, says);
    assert.match(run.stderr, /^berth: [^\n]+\n$/);
    await assertNoneLeft();
  };
  const up = (running: Running, text = 'up'): Promise<void> =>
    waitFor(
      () => running.stdout().includes(text),
      () => `"${text}" in ${running.stdout()}${running.stderr()}`,
    );

  it('gives a script a browser, its arguments and stdin, streams what it says, and passes its exit code on', async () => {
    place.file(
      'drive.mjs',
      `import puppeteer from '${PUPPETEER}';
       const browser = await puppeteer.connect({ browserWSEndpoint: process.env.BERTH_CDP_URL });
       console.log(await browser.version(), process.argv.slice(2).join());
       console.log(process.env.BERTH_LIVE_URL.endsWith('/sandboxes/' + process.env.BERTH_SANDBOX_ID + '/live'));
       await browser.disconnect();
       console.error('to stderr');
       for await (const chunk of process.stdin) process.stdout.write('read ' + chunk);
       process.exitCode = 7;`,
    );
    const running = place.start(['run', '-m', 'a=b', 'drive.mjs', '--json', '-x', '--', 'y']);
    await up(running, 'true\n');
    assert.equal(await living(), 1, 'what it prints comes while it runs');
    running.child.stdin?.end('a line\n');
    const { code, stdout, stderr } = await running.ended;
    assert.match(stdout, /^Chrome\/\S+ --json,-x,--,y\ntrue\nread a line\n$/);
    assert.deepEqual([code, stderr], [7, 'to stderr\n']);
    await assertNoneLeft();
  });

  it('runs Python, programs by themselves and programs on PATH, with more output than a pipe holds', async () => {
    place.file(
      'say.py',
      'import os, sys\nprint(os.environ["BERTH_CDP_URL"][:5], sys.argv[1])\nsys.stdout.write("x" * 1000000)\nsys.exit(3)',
    );
    const python = await place.run(['run', 'say.py', 'hello']);
    assert.equal(python.stdout, `ws:// hello\n${'x'.repeat(1e6)}`);
    assert.deepEqual([python.code, python.stderr], [3, '']);
    place.program('drive', 'echo "$BERTH_SANDBOX_ID"; exit 0');
    const byName = await place.run(['run', '--id', 'mine', '--', 'drive']);
    assert.deepEqual([byName.code, byName.stdout], [0, 'mine\n']);
    assert.equal((await place.run(['run', './bin/drive'])).code, 0);
    await assertNoneLeft();
  });

  it('refuses what it could not run before there is a sandbox for it', async () => {
    place.file('plain', 'not a program');
    mkdirSync(join(place.folder, 'folder.mjs'));
    const before = (await service.client.list()).length;
    await assertRefused(await place.run(['run', 'nope.mjs']), 2, /no file nope\.mjs/);
    await assertRefused(await place.run(['run', './nope']), 2, /no file/);
    await assertRefused(await place.run(['run', 'no-such-program']), 2, /neither here nor on PATH/);
    await assertRefused(await place.run(['run', './plain']), 2, /chmod \+x/);
    await assertRefused(await place.run(['run', 'folder.mjs']), 2, /is a folder/);
    await assertRefused(await place.run(['run', '--save-recording', 'a.avi', 'drive.mjs']), 2, /\.mkv or \.mp4/);
    await assertRefused(await place.run(['run', '--save-recording', 'no/a.mp4', 'drive.mjs']), 2, /no folder no/);
    await assertRefused(await place.run(['run', '--template', 'nope', 'drive.mjs']), 3, /template/);
    await assertRefused(
      await place.run(['run', 'drive.mjs'], { BERTH_URL: 'http://127.0.0.1:9' }),
      6,
      /Nothing answers/,
    );
    assert.equal((await place.run(['run'])).code, 2);
    assert.equal((await service.client.list()).length, before);
  });

  it('runs TypeScript where Node does, and says so where not', async () => {
    place.file('typed.ts', 'const said: string = "typed"; console.log(said);');
    const run = await place.run(['run', 'typed.ts']);
    const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
    if (major > 22 || (major === 22 && minor >= 6)) assert.deepEqual([run.code, run.stdout], [0, 'typed\n']);
    else await assertRefused(run, 2, /TypeScript, which Node runs from 22\.6 on/);
  });

  it('of a name that is taken it leaves the other one alone', async () => {
    await service.client.create({ sandboxId: 'taken' });
    const run = await place.run(['run', '--id', 'taken', 'drive.mjs']);
    assert.equal(run.code, 1);
    assert.match(run.stderr, /code 2002/);
    assert.equal((await service.client.get('taken')).status, 'READY');
    await service.client.delete('taken');
  });

  it('saves the recording as a film, and into a folder under its own name', async () => {
    place.file('wait.mjs', 'setTimeout(() => {}, 2000)');
    const film = await place.run(['run', '--save-recording', 'film.mp4', 'wait.mjs']);
    assert.equal(film.code, 0, film.stderr);
    assert.match(film.stderr, /^berth: recording saved: film\.mp4 \(.*\)\n$/);
    const { errors, codec, frames } = await probe(join(place.folder, 'film.mp4'));
    assert.deepEqual([errors, codec], ['', 'h264']);
    assert.ok(frames > 5, `${frames} frames`);
    mkdirSync(join(place.folder, 'films'));
    assert.equal((await place.run(['run', '--save-recording', 'films/', 'wait.mjs'])).code, 0);
    assert.match(readdirSync(join(place.folder, 'films')).join(), /^vnc_[0-9a-f-]{36}_\d{8}_\d{6}\.mkv$/);
    const none = await place.run(['run', '--save-recording', 'none.mkv', '--recording', 'off', 'wait.mjs']);
    assert.equal(none.code, 1);
    assert.match(none.stderr, /Nothing was recorded/);
    await assertNoneLeft();
  });

  it('a script that is killed or crashes leaves no sandbox', async () => {
    place.file('suicide.mjs', `process.kill(process.pid, 'SIGKILL'); setInterval(() => {}, 1000);`);
    assert.deepEqual((({ code, stdout }) => [code, stdout])(await place.run(['run', 'suicide.mjs'])), [137, '']);
    place.file('crash.mjs', 'throw new Error("of the script")');
    const crash = await place.run(['run', 'crash.mjs']);
    assert.equal(crash.code, 1);
    assert.match(crash.stderr, /of the script/);
    assert.doesNotMatch(crash.stderr, /berth:/, 'what the script says is enough');
    await assertNoneLeft();
  });

  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    it(`${signal} goes to the script, and then there is no sandbox`, async () => {
      place.file('up.mjs', `console.log('up'); setInterval(() => {}, 1000);`);
      const running = place.start(['run', 'up.mjs']);
      await up(running);
      running.child.kill(signal);
      assert.equal((await running.ended).code, code);
      await assertNoneLeft();
    });

    it(`${signal} while the sandbox starts leaves none`, async () => {
      const before = (await service.client.list()).length;
      const running = place.start(['run', 'up.mjs']);
      await waitFor(async () => (await service.client.list()).length > before, 'the create');
      running.child.kill(signal);
      const { code: ended, stdout } = await running.ended;
      // On a quick machine the sandbox may be there before the signal.
      if (!stdout.includes('up')) assert.equal(ended, code);
      await assertNoneLeft();
    });
  }

  it('a script may take its time after Ctrl-C, and a second one kills it', async () => {
    place.file(
      'tidy.mjs',
      `process.on('SIGINT', () => setTimeout(() => { console.log('tidied'); process.exit(5); }, 300)); ${HANG}`,
    );
    const tidy = place.start(['run', 'tidy.mjs']);
    await up(tidy);
    tidy.child.kill('SIGINT');
    assert.deepEqual((({ code, stdout }) => [code, stdout])(await tidy.ended), [5, 'up\ntidied\n']);
    place.file('hang.mjs', HANG);
    const hang = place.start(['run', '--save-recording', 'hang.mp4', 'hang.mjs']);
    await up(hang);
    hang.child.kill('SIGINT');
    const other = place.start(['run', 'up.mjs']);
    await up(other);
    assert.equal(hang.child.exitCode, null, 'one is not enough');
    other.child.kill('SIGTERM');
    hang.child.kill('SIGINT');
    assert.equal((await hang.ended).code, 137);
    await other.ended;
    assert.ok(!existsSync(join(place.folder, 'hang.mp4')), 'and nothing is waited for');
    await assertNoneLeft();
  });

  it('Ctrl-C in a terminal reaches the script once, and a second one kills it', async () => {
    place.file(
      'count.mjs',
      `let n = 0;
       process.on('SIGINT', () => console.log('interrupt ' + ++n));
       console.log('up ' + process.stdin.isTTY);
       setInterval(() => {}, 1000);`,
    );
    // A shell in between would tell of its own Ctrl-C.
    const running = place.terminal('exec berth run count.mjs');
    await up(running, 'up true');
    assert.match(running.stdout(), /starting a sandbox \d+s/, 'a terminal is told that it takes its time');
    running.child.stdin?.write('\u0003');
    await up(running, 'Ctrl-C once more kills it');
    await up(running, 'interrupt 1');
    assert.doesNotMatch(running.stdout(), /interrupt 2/);
    running.child.stdin?.write('\u0003');
    const { code, stdout } = await running.ended;
    assert.equal(code, 137, stdout);
    await assertNoneLeft();
  });

  it('a service that is gone is told, and does not hold the program for ever', async () => {
    const lost = await startService();
    try {
      place.file(
        'lost.mjs',
        `import puppeteer from '${PUPPETEER}';
         const browser = await puppeteer.connect({ browserWSEndpoint: process.env.BERTH_CDP_URL });
         browser.on('disconnected', () => process.exit(0));
         console.log('up');`,
      );
      const running = place.start(['run', 'lost.mjs'], { BERTH_URL: lost.url });
      await up(running);
      await lost.kill();
      const { code, stderr } = await running.ended;
      assert.equal(code, 6, stderr);
      assert.match(
        stderr,
        /^berth: The sandbox [0-9a-f-]{36} could not be ended and ends by its own clocks: Nothing answers at [^\n]+\n$/,
      );
      // The next one takes the sandbox over and ends it.
      await (await startService({ on: lost })).stop();
    } finally {
      await lost.clean();
    }
  });
});
