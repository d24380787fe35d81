/**
 * From a bare clone to a running program: `node cmd/setup.mjs <server|demo|test|berth> [args…]`.
 *
 * Runs before anything is installed, so it is plain JavaScript on Node's own modules. Each step looks first and does
 * nothing when its work is done; what it does is told in one line on stderr, so stdout stays the program's own.
 */
import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const TARGETS = {
  server: 'dist/cmd/server.js',
  demo: 'dist/cmd/demo.js',
  test: 'dist/tests/run.js',
  berth: 'dist/cmd/berth.js',
};

/** Any one of `names` on PATH satisfies a need; `debian` is the package that brings it. */
const PROGRAMS = [
  { names: ['Xvfb'], debian: 'xvfb' },
  { names: ['openbox'], debian: 'openbox' },
  { names: ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'], debian: 'chromium' },
  { names: ['X0tigervnc'], debian: 'tigervnc-scraping-server' },
  { names: ['ffmpeg'], debian: 'ffmpeg' },
  { names: ['ffprobe'], debian: 'ffmpeg' },
  { names: ['setpriv'], debian: 'util-linux' },
  // For the example that lists and downloads recordings.
  { names: ['curl'], debian: 'curl' },
];
/** Without any font Chromium draws boxes. Fonts cannot be looked up on PATH, so they come along with the rest. */
const FONTS = 'fonts-liberation';

const MINUTE = 60_000;
const APT_LIMIT = 15 * MINUTE;
const NPM_LIMIT = 15 * MINUTE;
const TSC_LIMIT = 5 * MINUTE;
const BUNDLE_LIMIT = MINUTE;
/** Longer than all steps of another setup together. */
const LOCK_WAIT_LIMIT = 36 * MINUTE;
/** The holder touches its lock every `LOCK_BEAT`; after `LOCK_DEAD` of silence the holder counts as gone. */
const LOCK_BEAT = 5_000;
const LOCK_DEAD = MINUTE;

/** A failure that needs no stack: the sentence says it all. */
class SetupError extends Error {}

const inRoot = (...parts) => path.join(ROOT, ...parts);
const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;
const say = (text) => process.stderr.write(text);

function readText(file) {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

/** Prints `what …` at once and the time, or the failure, at the end of the same line. */
async function step(what, work) {
  const since = performance.now();
  say(`setup: ${what} … `);
  try {
    await work();
    say(`${seconds(since)}\n`);
  } catch (err) {
    say(`failed after ${seconds(since)}\n`);
    throw err;
  }
}

// --- children ------------------------------------------------------------------------------------------------------

/** Ends the child that runs now, if one does. */
let endChild = () => {};
/** The signal that asked us to end. The child is given time to, so that nobody finds the lock free while it still writes. */
let interrupted;

function onSignal(signal) {
  if (interrupted) process.exit(128 + os.constants.signals[signal]);
  interrupted = signal;
  endChild();
}

/** Waits for `line` to end well; on a failure or past `limit` (ms) throws, with all that it printed attached. */
function execute(name, line, limit) {
  return new Promise((resolve, reject) => {
    const [command, ...args] = line;
    // A group of its own, so that the time limit also ends grandchildren (npm's and apt's helpers).
    const child = spawn(command, args, { cwd: ROOT, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    const kill = (signal) => {
      try {
        process.kill(-child.pid, signal);
      } catch {
        // Already gone, or owned by root after sudo, where `timeout` (see installPackages) does it.
      }
    };
    endChild = () => {
      kill('SIGTERM');
      setTimeout(() => kill('SIGKILL'), 5_000).unref();
    };
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output = (output + text).slice(-200_000);
      });
    }
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      endChild();
    }, limit);
    const settle = (why) => {
      clearTimeout(timer);
      endChild = () => {};
      // A grandchild that keeps the pipes open must not keep us.
      child.stdout?.destroy();
      child.stderr?.destroy();
      if (!why) resolve();
      else reject(Object.assign(new SetupError(`${name} ${why}.`), { output }));
    };
    child.on('error', (err) => settle(`could not be started (${err.code})`));
    const ended = (code, signal) => {
      if (late) settle(`was not done within ${Math.round(limit / 1000)} s`);
      else settle(code === 0 ? undefined : `ended with ${signal ?? `code ${code}`}`);
    };
    child.on('close', ended);
    child.on('exit', (...how) => setTimeout(ended, 1000, ...how).unref());
  });
}

// --- one setup at a time -------------------------------------------------------------------------------------------

const LOCK = inRoot('.setup-lock');

/** Whether the holder described by `owner` ("pid host random") is gone. The beat covers other hosts and reused pids. */
function isDead(owner) {
  const [pid, host] = owner.split(' ');
  if (host === os.hostname()) {
    try {
      process.kill(Number(pid), 0);
    } catch (err) {
      if (err.code === 'ESRCH') return true;
    }
  }
  return Date.now() - fs.statSync(LOCK).mtimeMs > LOCK_DEAD;
}

/**
 * Removes a lock whose holder died. The holder's file is unique, so of several setups that see it dead exactly one
 * unlinks it, and nobody can take away a lock that was made since.
 */
function breakIfDead() {
  try {
    const [owner] = fs.readdirSync(LOCK);
    if (owner === undefined ? Date.now() - fs.statSync(LOCK).mtimeMs > LOCK_BEAT : isDead(owner)) {
      if (owner !== undefined) fs.unlinkSync(path.join(LOCK, owner));
      fs.rmdirSync(LOCK);
    }
  } catch (err) {
    if (err.code !== 'ENOENT' && err.code !== 'ENOTEMPTY') throw err;
  }
}

/** Takes the lock if it is free and answers the function that gives it back. */
function tryLock() {
  const owner = path.join(LOCK, `${process.pid} ${os.hostname()} ${randomUUID()}`);
  try {
    fs.mkdirSync(LOCK);
    fs.writeFileSync(owner, '');
  } catch (err) {
    // ENOENT: somebody took our empty directory for an abandoned one between the two calls.
    if (err.code === 'EEXIST' || err.code === 'ENOENT') return undefined;
    throw err;
  }
  const beat = setInterval(() => fs.utimes(LOCK, new Date(), new Date(), () => {}), LOCK_BEAT);
  const release = () => {
    clearInterval(beat);
    fs.rmSync(owner, { force: true });
    try {
      fs.rmdirSync(LOCK);
    } catch {
      // Broken by somebody who thought us dead; it is theirs now.
    }
  };
  return fs.readdirSync(LOCK).length === 1 ? release : release();
}

async function lock() {
  const since = performance.now();
  let told = false;
  for (;;) {
    if (interrupted) throw new SetupError('interrupted');
    const release = tryLock();
    if (release) {
      if (told) say(`${seconds(since)}\n`);
      return release;
    }
    breakIfDead();
    if (!told && performance.now() - since > 1000) {
      say('setup: waiting for another setup of this directory … ');
      told = true;
    }
    if (performance.now() - since > LOCK_WAIT_LIMIT) {
      say('\n');
      throw new SetupError(`Another setup holds ${LOCK} for too long; remove it if none is running.`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100 + Math.random() * 200));
  }
}

// --- steps: each answers undefined when there is nothing to do, else the work ---------------------------------------

function onPath(name) {
  return (process.env.PATH ?? '').split(path.delimiter).some((folder) => {
    try {
      fs.accessSync(path.join(folder, name), fs.constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function missingPrograms() {
  return PROGRAMS.filter(({ names }) => {
    if (names.includes('chromium') && process.env.BERTH_CHROMIUM) return false;
    return !names.some(onPath);
  });
}

async function mayBeRoot() {
  if (process.getuid?.() === 0) return [];
  if (!onPath('sudo')) return undefined;
  return execute('sudo', ['sudo', '-n', 'true'], 10_000).then(
    () => ['sudo', '-n'],
    () => undefined,
  );
}

/** apt-get with the lists it has; when there are none, or they are too old to install from, refreshed first. */
async function installPackages(prefix, packages) {
  const deadline = Date.now() + APT_LIMIT;
  const apt = (...args) => {
    const left = Math.max(1, Math.ceil((deadline - Date.now()) / 1000));
    // `env` and `timeout` run behind sudo: it drops our environment, and we may not signal what it starts.
    const line = [...prefix, 'env', 'DEBIAN_FRONTEND=noninteractive', 'timeout', '-k', '10', String(left), 'apt-get'];
    return execute(`apt-get ${args[0]}`, [...line, '-o', 'DPkg::Lock::Timeout=300', ...args], left * 1000 + 15_000);
  };
  const install = () => apt('install', '-y', '--no-install-recommends', ...packages);
  const lists = fs.existsSync('/var/lib/apt/lists') ? fs.readdirSync('/var/lib/apt/lists') : [];
  if (lists.some((name) => /_(Packages|InRelease)/.test(name))) {
    try {
      return await install();
    } catch {
      // Lists as old as their image name versions that the mirror no longer has.
    }
  }
  await apt('update');
  return install();
}

async function systemPackages() {
  const missing = missingPrograms();
  if (missing.length === 0) return undefined;
  const names = missing.map((program) => program.names[0]).join(', ');
  if (!onPath('apt-get'))
    throw new SetupError(`Missing on PATH: ${names}. Install them; there is no apt-get to do it with.`);
  const packages = [...new Set([...missing.map((program) => program.debian), FONTS])];
  const prefix = await mayBeRoot();
  if (!prefix) {
    const line = `sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages.join(' ')}`;
    throw new SetupError(`Missing: ${names}. Installing them needs root; run: ${line}`);
  }
  return async () => {
    await step(`installing system packages: ${packages.join(' ')}`, () => installPackages(prefix, packages));
    const still = missingPrograms().map((program) => program.names.join(' or '));
    if (still.length > 0) throw new SetupError(`Still missing on PATH after apt-get: ${still.join(', ')}.`);
  };
}

/** The mark left by a finished `npm ci`; Node's major counts because native packages bring one binary per major. */
function npmMark() {
  const lockFile = fs.readFileSync(inRoot('package-lock.json'));
  return `${createHash('sha256').update(lockFile).digest('hex')} node${process.versions.node.split('.')[0]}\n`;
}

function npmPackages() {
  const markFile = inRoot('node_modules/.berth-lock');
  const mark = npmMark();
  if (readText(markFile) === mark) return undefined;
  // Under `npm start` the very npm that runs us; its path ends so. Otherwise the one on PATH.
  const own = process.env.npm_execpath ?? '';
  const npm = own.endsWith('npm-cli.js') ? [process.execPath, own] : ['npm'];
  // The build needs the development packages whatever NODE_ENV says; no package of ours has an install script to run.
  const line = [...npm, 'ci', '--include=dev', '--ignore-scripts', '--no-audit', '--no-fund'];
  return () =>
    step('installing npm packages', async () => {
      fs.rmSync(markFile, { force: true });
      await execute('npm ci', line, NPM_LIMIT);
      fs.writeFileSync(markFile, mark);
    });
}

/** Calls `visit(file path from ROOT, stat)` for every file below `folder`, in a stable order. */
function walk(folder, visit) {
  if (!fs.existsSync(inRoot(folder))) return;
  const entries = fs.readdirSync(inRoot(folder), { withFileTypes: true });
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const name = path.join(folder, entry.name);
    if (entry.isDirectory()) walk(name, visit);
    else if (entry.isFile()) visit(name);
  }
}

/** Paths, sizes and modification times of everything the build reads. Contents would be surer, and slower on each start. */
function sourcesFingerprint() {
  const hash = createHash('sha256');
  const add = (name) => {
    const { size, mtimeMs } = fs.statSync(inRoot(name));
    hash.update(`${name}\0${size}\0${mtimeMs}\n`);
  };
  for (const folder of ['src', 'cmd', 'tests', 'examples']) walk(folder, add);
  const tops = fs.readdirSync(ROOT).filter((name) => name.endsWith('.json') || name === 'openapi.yaml');
  tops.sort().forEach(add);
  return `${hash.digest('hex')}\n`;
}

/** A test or command whose source is gone must not run on. Only what tsc wrote has a map beside it. */
function removeStale() {
  walk('dist', (name) => {
    if (!name.endsWith('.js.map')) return;
    const script = name.slice(0, -'.map'.length);
    if (['.ts', '.tsx'].some((end) => fs.existsSync(inRoot(path.relative('dist', script).replace(/\.js$/, end)))))
      return;
    fs.rmSync(inRoot(name), { force: true });
    fs.rmSync(inRoot(script), { force: true });
  });
}

function build(entry) {
  // A shipped image has the compiled program only.
  if (!fs.existsSync(inRoot('tsconfig.json'))) return undefined;
  const markFile = inRoot('dist/.fingerprint');
  const mark = sourcesFingerprint();
  const complete = fs.existsSync(inRoot(entry));
  if (complete && readText(markFile) === mark) return undefined;
  return () =>
    step('building', async () => {
      removeStale();
      // tsc believes its own notes about what it wrote; when dist was emptied by hand they lie.
      if (!complete) fs.rmSync(inRoot('dist/.tsbuildinfo'), { force: true });
      await execute('tsc', [process.execPath, inRoot('node_modules/typescript/bin/tsc')], TSC_LIMIT);
      await execute('bundle', [process.execPath, inRoot('cmd/bundle.mjs')], BUNDLE_LIMIT);
      fs.writeFileSync(markFile, mark);
    });
}

/**
 * All steps in order. Each looks again under the lock, because whoever held it before may have done the work. `programs` are
 * the ones of a sandbox: whoever only talks to a service, maybe on another machine, needs none of them.
 */
async function prepare(entry, programs) {
  const shipped = !fs.existsSync(inRoot('tsconfig.json'));
  const nothing = () => undefined;
  const steps = [programs ? systemPackages : nothing, shipped ? nothing : npmPackages, () => build(entry)];
  let release;
  try {
    for (const look of steps) {
      if (!(await look())) continue;
      release ??= await lock();
      const work = await look();
      if (work) await work();
      if (interrupted) throw new SetupError('interrupted');
    }
  } finally {
    release?.();
  }
}

async function main() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 11)) {
    throw new SetupError(`Berth needs Node 20.11 or newer; this is ${process.version}.`);
  }
  const [target, ...args] = process.argv.slice(2);
  if (!Object.hasOwn(TARGETS, target ?? '')) {
    throw new SetupError(`Usage: node cmd/setup.mjs <${Object.keys(TARGETS).join('|')}> [arguments]`);
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  for (const signal of signals) process.on(signal, onSignal);
  await prepare(TARGETS[target], target !== 'berth' || args[0] === 'serve');
  for (const signal of signals) process.off(signal, onSignal);

  const program = inRoot(TARGETS[target]);
  if (!fs.existsSync(program)) throw new SetupError(`There is no ${TARGETS[target]} in this checkout.`);
  process.argv = [process.execPath, program, ...args];
  return { program };
}

main().then(
  // Outside main's error handling: what the program throws is the program's, with its stack.
  ({ program }) => import(pathToFileURL(program).href),
  (err) => {
    if (!(err instanceof SetupError)) throw err;
    if (err.output && !interrupted) say(`${err.output.trimEnd()}\n`);
    say(`setup: ${interrupted ? `interrupted by ${interrupted}.` : err.message}\n`);
    process.exitCode = interrupted ? 128 + os.constants.signals[interrupted] : 1;
  },
);
