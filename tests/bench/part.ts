/** What every part of the bench has: a temporary folder, programs that end with it, a time limit, a table and a JSON file. */
import { type ChildProcess, type ForkOptions, fork, type SpawnOptions, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { cpus, loadavg, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { DriverName } from '../e2e/drivers.ts';
import { type Service, startService } from '../e2e/service.ts';
import { isSpread, type Spread } from './measure.ts';

/** One line of a table: text, a number, or the median of rounds with the lowest and the highest of them. */
export type Row = Readonly<Record<string, string | number | Spread>>;
export type Table = { readonly title: string; readonly rows: readonly Row[] };

/** How long a program may take to say that it is ready or to answer, in milliseconds. */
const ANSWER_MS = 120_000;

/** A helper program of ours in a process of its own, that is asked and answers over Node's own channel. */
export interface Program {
  readonly pid: number;
  /** What it said when it was ready. */
  readonly ready: unknown;
  ask<T>(request: object): Promise<T>;
  stop(): Promise<void>;
}

export class Bench {
  /** Few and short: only to see that everything works. */
  readonly quick: boolean;
  /** Goes in the end. */
  readonly folder = mkdtempSync(join(tmpdir(), 'bt-bench-'));
  readonly #undo: (() => Promise<unknown>)[] = [];
  /** Said once each, under the table. */
  readonly notes = new Set<string>();

  constructor(quick: boolean) {
    this.quick = quick;
  }

  /** Numbers of rounds: at most so many, and after the third none that would begin when `seconds` have gone, as on a busy machine. */
  *rounds(most: number, seconds: number): Generator<number> {
    const since = performance.now();
    for (let round = 0; round < most; round++) {
      if (round > 2 && performance.now() - since > seconds * 1000) return;
      yield round;
    }
  }

  /** Starts a program of tests/bench/programs; in the network of process `inNetworkOf`, where that is given. */
  async program(name: string, args: readonly unknown[] = [], inNetworkOf?: number): Promise<Program> {
    const file = fileURLToPath(new URL(`./programs/${name}.js`, import.meta.url));
    const options: ForkOptions = { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] };
    if (inNetworkOf !== undefined) {
      options.execPath = 'nsenter';
      options.execArgv = [`--net=/proc/${inNetworkOf}/ns/net`, '--', process.execPath];
    }
    const child = fork(file, [JSON.stringify(args)], options);
    // uWebSockets.js warns of each upgrade; only the last words of a program that fails matter.
    let said = '';
    child.stderr?.on('data', (chunk) => {
      said = (said + chunk).slice(-2000);
    });
    child.once('exit', (code) => code && console.error(`${name} ended with ${code}: ${said}`));
    const stop = this.#ended(child);
    const ready = await answerOf(child, name);
    return {
      pid: child.pid as number,
      ready,
      async ask<T>(request: object): Promise<T> {
        child.send(request);
        return (await answerOf(child, name)) as T;
      },
      stop,
    };
  }

  /** Starts somebody else's program and waits until it listens on this port. */
  async server(
    command: string,
    args: readonly string[],
    port: number,
  ): Promise<{ pid: number; stop(): Promise<void> }> {
    const options: SpawnOptions = { cwd: this.folder, stdio: ['ignore', 'ignore', 'pipe'] };
    const child = spawn(command, args, options);
    let said = '';
    child.stderr?.on('data', (chunk) => (said += chunk));
    const stop = this.#ended(child);
    for (const deadline = Date.now() + 10_000; !(await listens(port)); await sleep(20)) {
      if (child.exitCode !== null || Date.now() > deadline) throw new Error(`${command} did not start: ${said}`);
    }
    return { pid: child.pid as number, stop };
  }

  async service(driver: DriverName, env: Readonly<Record<string, string>> = {}): Promise<Service> {
    const service = await startService({ driver, env });
    this.#undo.push(async () => {
      // Asked to, it ends its sandboxes itself; what is left of them then goes in any case.
      const ended = new Promise((resolve) => service.process.once('exit', resolve));
      if (service.process.kill('SIGTERM')) await Promise.race([ended, sleep(30_000, undefined, { ref: false })]);
      await service.clean();
    });
    return service;
  }

  /** Ends what was started, newest first. */
  async end(): Promise<void> {
    for (const undo of this.#undo.reverse()) await undo().catch((err: unknown) => console.error(err));
    this.#undo.length = 0;
    rmSync(this.folder, { recursive: true, force: true });
  }

  #ended(child: ChildProcess): () => Promise<void> {
    const exited = new Promise<void>((resolve) => {
      child.once('exit', () => resolve());
      child.once('error', () => resolve());
    });
    const stop = async (): Promise<void> => {
      child.kill('SIGKILL');
      await exited;
    };
    this.#undo.push(stop);
    return stop;
  }
}

function answerOf(child: ChildProcess, name: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const fail = (why: string): void => settle(() => reject(new Error(`${name} ${why}`)));
    const timer = setTimeout(() => fail(`did not answer within ${ANSWER_MS / 1000} s`), ANSWER_MS);
    const onMessage = (message: { failed?: string }): void =>
      settle(() => (message.failed ? reject(new Error(`${name}: ${message.failed}`)) : resolve(message)));
    const onExit = (): void => fail('has ended');
    const settle = (how: () => void): void => {
      clearTimeout(timer);
      child.off('message', onMessage).off('exit', onExit).off('error', onExit);
      how();
    };
    child.on('message', onMessage).on('exit', onExit).on('error', onExit);
  });
}

/** A port of this machine's loopback that is free now. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(port, '127.0.0.1', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}

/**
 * Runs one part: `node dist/tests/bench/<part>.js [--quick] [folder for the JSON file, default bench-output]`. What it has started
 * is ended also when it fails, takes more than `limitSeconds`, or is told to end.
 */
export async function runPart(
  name: string,
  limitSeconds: number,
  measure: (bench: Bench) => Promise<Table[]>,
): Promise<void> {
  const args = process.argv.slice(2);
  const bench = new Bench(args.includes('--quick'));
  const folder = args.find((arg) => !arg.startsWith('--')) ?? 'bench-output';
  const stopped = new Promise<never>((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => reject(new Error(`ended by ${signal}`)));
    }
    setTimeout(() => reject(new Error(`not done within ${limitSeconds} s`)), limitSeconds * 1000).unref();
  });
  stopped.catch(() => {});
  const loadBefore = load();
  const since = performance.now();
  let code = 0;
  try {
    const tables = await Promise.race([measure(bench), stopped]);
    const seconds = Math.round((performance.now() - since) / 1000);
    const loadAfter = load();
    mkdirSync(folder, { recursive: true });
    const machine = {
      cpu: cpus()[0]?.model,
      cpus: cpus().length,
      memoryMb: Math.round(totalmem() / 1e6),
      ...versions(),
    };
    const result = {
      part: name,
      quick: bench.quick,
      at: new Date().toISOString(),
      seconds,
      machine,
      loadBefore,
      loadAfter,
    };
    writeFileSync(
      join(folder, `${name}.json`),
      `${JSON.stringify({ ...result, tables, notes: [...bench.notes] }, null, 2)}\n`,
    );
    for (const table of tables) print(table);
    for (const note of bench.notes) console.log(note);
    console.log(
      `${name}: ${seconds} s, load average ${loadBefore} before, ${loadAfter} after, ${cpus().length} CPUs\n`,
    );
  } catch (err) {
    console.error(`${name}:`, err);
    code = 1;
  }
  await bench.end();
  process.exit(code);
}

function load(): number {
  return Math.round((loadavg()[0] as number) * 10) / 10;
}

function versions(): { node: string; kernel: string } {
  return { node: process.version, kernel: readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim() };
}

function cell(value: string | number | Spread | undefined): string {
  if (isSpread(value) && value.low === value.high) return round(value.median);
  if (isSpread(value)) return `${round(value.median)} (${round(value.low)}-${round(value.high)})`;
  return typeof value === 'number' ? round(value) : (value ?? '');
}

function round(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function print({ title, rows }: Table): void {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const lines = [columns, ...rows.map((row) => columns.map((column) => cell(row[column])))];
  const widths = columns.map((_, i) => Math.max(...lines.map((line) => (line[i] as string).length)));
  console.log(`\n${title}`);
  for (const line of lines) {
    console.log(
      line
        .map((text, i) => (i === 0 ? text.padEnd(widths[i] as number) : text.padStart(widths[i] as number)))
        .join('  '),
    );
  }
}
