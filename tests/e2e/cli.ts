/** Runs `berth` as people and programs do: in a pipe, and in a pseudo-terminal. */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LIMIT } from './service.ts';

export const BERTH = fileURLToPath(new URL('../../cmd/berth.js', import.meta.url));

export interface Run {
  /** 128 and its number for a signal, as a shell has it. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  stdout(): string;
  stderr(): string;
  readonly ended: Promise<Run>;
}

/** A place for one test file: home, profiles, and whatever commands write. */
export class Place {
  readonly folder = mkdtempSync(join(tmpdir(), 'berth-cli-'));
  readonly env: Record<string, string> = {};

  constructor() {
    // The test's own name for it, so that the caller's profiles do not count.
    mkdirSync(join(this.folder, 'home'));
    mkdirSync(join(this.folder, 'bin'));
    this.program('berth', `exec ${process.execPath} ${BERTH} "$@"`);
  }

  /** A program on the PATH of what runs here, before all others. */
  program(name: string, script: string): void {
    const file = join(this.folder, 'bin', name);
    writeFileSync(file, `#!/bin/sh\n${script}\n`);
    chmodSync(file, 0o755);
  }

  /** A file here; its path. */
  file(name: string, text: string): string {
    const file = join(this.folder, name);
    writeFileSync(file, text);
    return file;
  }

  /** Starts it; nothing of the caller's environment but PATH counts. */
  start(
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
    command = [process.execPath, BERTH],
  ): Running {
    const [program = '', ...first] = command;
    const options: SpawnOptions = {
      cwd: this.folder,
      env: {
        PATH: `${join(this.folder, 'bin')}:${process.env.PATH}`,
        HOME: join(this.folder, 'home'),
        ...this.env,
        ...env,
      },
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: LIMIT.timeout,
      killSignal: 'SIGKILL',
    };
    const child = spawn(program, [...first, ...args], options);
    let stdout = '';
    let stderr = '';
    child.stdout?.on('data', (chunk) => (stdout += chunk));
    child.stderr?.on('data', (chunk) => (stderr += chunk));
    child.stdin?.on('error', () => {}); // it may end without reading all
    const ended = new Promise<Run>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) =>
        resolve({ code: code ?? (signal === 'SIGKILL' ? 137 : null), stdout, stderr }),
      );
    });
    return { child, stdout: () => stdout, stderr: () => stderr, ended };
  }

  /** Runs it to its end, with `input` on stdin and no terminal. */
  run(args: readonly string[], env: Readonly<Record<string, string>> = {}, input = ''): Promise<Run> {
    const running = this.start(args, env);
    running.child.stdin?.end(input);
    return running.ended;
  }

  /** Starts a line of sh in a terminal: what is typed goes to `child.stdin`, what it shows is in `stdout`. */
  terminal(line: string, env: Readonly<Record<string, string>> = {}): Running {
    return this.start(['-qec', line, '/dev/null'], { TERM: 'xterm', SHELL: '/bin/sh', ...env }, ['script']);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
