/**
 * The test runner: `node dist/tests/run.js [part of a path…]` runs every compiled `*.test.js`, or those whose path
 * contains one of the parts. The last line it prints is always `N passed, N failed[, N skipped]`.
 *
 * Each file gets a `run()` of its own, because only so a bound per file holds on every Node: with one `run()` for
 * all, Node 24 waits forever for a file whose tests have passed but that keeps a handle open.
 */
import fs from 'node:fs';
import path from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';

const TESTS = path.dirname(fileURLToPath(import.meta.url));
/** Not tests: programs that measure, started by hand. */
const NOT_TESTS = ['bench'];
/** Files at work at the same time. Most wait for a browser, so a little more than the two cores of a CI machine. */
const CONCURRENCY = 3;
const WITH_CONTAINERS = /docker/;
/** Take minutes: they begin first, so that none is left alone at the end. */
const LONG = /faults\/|\/(lifetime|browser)\.test/;
/** `--file-timeout=SECONDS`, default 600: how long one file may take, from its start to the end of its process. */
const FILE_TIMEOUT_SECONDS = 600;
/** A file asked to end (SIGTERM) has this many milliseconds to clean up. */
const GRACE_MS = 5_000;

/** The part of a `node:test` event that counts; older versions leave out `details.type` for tests. */
interface TestEvent {
  readonly type: string;
  readonly data: {
    readonly name: string;
    readonly nesting: number;
    readonly details?: { readonly type?: string };
    readonly skip?: string | boolean;
    readonly todo?: string | boolean;
  };
}

/** What one file, or all of them, came to. `failed` and `skipped` hold one line each. */
interface Outcome {
  passed: number;
  failed: string[];
  skipped: string[];
}

/**
 * Counts the leaves among the events of one file. A suite or a test with subtests counts only when it failed by
 * itself (a hook, its own assertion) while nothing below it did; the wrapper that Node puts around the file, when
 * the file could not be loaded, ended badly or had to be ended.
 */
function count(file: string, events: readonly TestEvent[], wrapperFailure: string): Outcome {
  const outcome: Outcome = { passed: 0, failed: [], skipped: [] };
  const shown = path.relative(path.dirname(TESTS), file);
  const open: { name: string; parent: boolean; failedBelow: boolean }[] = [];
  for (const { type, data } of events) {
    if (type === 'test:start') {
      open.length = data.nesting;
      for (const above of open) above.parent = true;
      open.push({ name: data.name, parent: false, failedBelow: false });
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const wrapper = data.nesting === 0 && path.resolve(data.name) === file;
    const { parent, failedBelow } = open[data.nesting] ?? { parent: false, failedBelow: false };
    const above = open.slice(0, data.nesting);
    const line = `${shown}: ${wrapper ? wrapperFailure : [...above.map((test) => test.name), data.name].join(' > ')}`;
    if (data.skip !== undefined && data.skip !== false) {
      outcome.skipped.push(`${line} (${typeof data.skip === 'string' && data.skip ? data.skip : 'no reason given'})`);
    } else if (data.todo !== undefined && data.todo !== false) {
      outcome.skipped.push(`${line} (todo${typeof data.todo === 'string' ? `: ${data.todo}` : ''})`);
    } else if (type === 'test:fail') {
      if (!failedBelow) outcome.failed.push(line);
      for (const test of above) test.failedBelow = true;
    } else if (!wrapper && !parent && data.details?.type !== 'suite') {
      outcome.passed += 1;
    }
  }
  return outcome;
}

/** Our child processes, by number and command line. */
function children(): { pid: number; command: string }[] {
  const read = (file: string) => {
    try {
      return fs.readFileSync(file, 'utf8');
    } catch {
      return ''; // Gone meanwhile, or a system without /proc: there the SIGTERM of the abort has to do.
    }
  };
  const pids = read(`/proc/self/task/${process.pid}/children`).split(' ').filter(Boolean).map(Number);
  return pids.map((pid) => ({ pid, command: read(`/proc/${pid}/cmdline`) }));
}

/** Ends for good what `run()` left: it sends SIGTERM once (Node 20.10: never) and does not wait. */
function killChildren(commandPart: string): void {
  for (const { pid, command } of children()) {
    if (!command.includes(commandPart)) continue;
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // Gone meanwhile.
    }
  }
}

/** Node's readable report of the events. The totals of a `run()` of one file would only repeat what we count. */
async function report(events: readonly TestEvent[]): Promise<string> {
  const reporter = new spec();
  for (const event of events) {
    if (event.type !== 'test:summary' && !(event.type === 'test:diagnostic' && event.data.nesting === 0)) {
      reporter.write(event);
    }
  }
  reporter.end();
  let text = '';
  for await (const chunk of reporter) text += String(chunk);
  return text;
}

/** Runs one file, prints its report when it is done, and answers what it came to. */
async function runFile(file: string, timeoutSeconds: number, stop: AbortSignal): Promise<Outcome> {
  const since = performance.now();
  const late = AbortSignal.timeout(timeoutSeconds * 1000);
  const signal = AbortSignal.any([late, stop]);
  let kill: NodeJS.Timeout | undefined;
  signal.addEventListener('abort', () => {
    kill = setTimeout(() => killChildren(file), GRACE_MS);
  });
  const events: TestEvent[] = [];
  for await (const event of run({ files: [file], concurrency: 1, signal })) events.push(event as TestEvent);
  if (kill) {
    // The stream has ended, the process perhaps not: it keeps its grace, and we wait until one of the two ends it.
    while (children().some((child) => child.command.includes(file))) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    clearTimeout(kill);
  }
  let failure = 'the file itself failed (could not be loaded, or ended badly)';
  if (late.aborted) failure = `the file did not end within ${timeoutSeconds} s`;
  if (stop.aborted) failure = 'interrupted';
  const took = ((performance.now() - since) / 1000).toFixed(1);
  process.stdout.write(`\n${path.relative(path.dirname(TESTS), file)} (${took} s)\n${await report(events)}`);
  return count(file, events, failure);
}

function findFiles(folder: string): string[] {
  const entries = fs.readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  return entries.flatMap((entry) => {
    const name = path.join(folder, entry.name);
    if (entry.isDirectory()) return NOT_TESTS.includes(entry.name) ? [] : findFiles(name);
    return entry.name.endsWith('.test.js') ? [name] : [];
  });
}

async function main(): Promise<void> {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop.abort());

  const args = process.argv.slice(2);
  const timeout = args.find((arg) => /^--file-timeout=\d+$/.test(arg))?.split('=')[1];
  // People paste the path of the source.
  const parts = args.filter((arg) => !arg.startsWith('--')).map((arg) => arg.replace(/\.ts$/, '.js'));
  const shown = (file: string) => path.relative(path.dirname(TESTS), file);
  const queue = findFiles(TESTS).filter(
    (file) => parts.length === 0 || parts.some((part) => shown(file).includes(part)),
  );
  if (queue.length === 0) process.stdout.write(`No test file matches: ${parts.join(' ') || '*.test.js'}\n`);

  // With every container a network interface of the machine comes or goes, and each time a Chromium of this machine breaks
  // off what it loads (net::ERR_NETWORK_CHANGED). The sandboxes of the local driver are such, so containers come last.
  const inOrder = [...queue.filter((file) => LONG.test(file)), ...queue.filter((file) => !LONG.test(file))];
  const batches = [
    inOrder.filter((file) => !WITH_CONTAINERS.test(file)),
    inOrder.filter((file) => WITH_CONTAINERS.test(file)),
  ];

  const total: Outcome = { passed: 0, failed: [], skipped: [] };
  const worker = async (batch: string[]) => {
    for (let file = batch.shift(); file !== undefined; file = batch.shift()) {
      if (stop.signal.aborted) {
        total.failed.push(`${shown(file)}: not run, interrupted`);
        continue;
      }
      const outcome = await runFile(file, Number(timeout ?? FILE_TIMEOUT_SECONDS), stop.signal);
      total.passed += outcome.passed;
      total.failed.push(...outcome.failed);
      total.skipped.push(...outcome.skipped);
    }
  };
  for (const batch of batches) await Promise.all(Array.from({ length: CONCURRENCY }, () => worker(batch)));

  const lines = [...total.failed.map((line) => `FAILED ${line}`), ...total.skipped.map((line) => `SKIPPED ${line}`)];
  const skipped = total.skipped.length > 0 ? `, ${total.skipped.length} skipped` : '';
  lines.push(`${total.passed} passed, ${total.failed.length} failed${skipped}`);
  const code = total.failed.length > 0 || total.passed === 0 ? 1 : 0;
  // Exit by force, so that nothing left open holds up the answer, but not before it is written.
  process.stdout.write(`\n${lines.join('\n')}\n`, () => process.exit(code));
}

await main();
