import { spawn } from 'node:child_process';
import { EXIT, signalCode } from './failure.ts';
import type { Io } from './io.ts';

/** The program that `berth run` runs, on our own stdin, stdout and stderr, so nothing stands between it and whoever looks. */
export class Script {
  /** Resolves with its exit code, 128 and the number for a signal. */
  readonly ended: Promise<number>;
  #signals = 0;
  #forced = false;

  constructor(
    io: Io,
    [command, ...args]: readonly [string, ...string[]],
    env: Record<string, string>,
    note: (text: string) => void,
  ) {
    const child = spawn(command, args, { stdio: 'inherit', env });
    const off = io.onSignal((signal) => {
      this.#signals++;
      if (this.#signals > 1) {
        this.#forced = true;
        child.kill('SIGKILL');
        return;
      }
      // A terminal sends Ctrl-C to all that runs in it; the script has it already, and two would mean "at once" to many.
      if (signal !== 'SIGINT' || !io.stdinIsTTY) child.kill(signal);
      if (signal === 'SIGINT' && io.stderr.isTTY) note('waiting for the script to end; Ctrl-C once more kills it.');
    });
    this.ended = new Promise<number>((resolve) => {
      child.once('error', (err: NodeJS.ErrnoException) => {
        note(`${command} could not be started (${err.code}).`);
        resolve(EXIT.failed);
      });
      child.once('exit', (code, signal) => resolve(signal ? signalCode(signal) : (code ?? EXIT.failed)));
    }).finally(() => {
      off();
    });
  }

  /** Whether it was killed because somebody would not wait. */
  get forced(): boolean {
    return this.#forced;
  }
}
