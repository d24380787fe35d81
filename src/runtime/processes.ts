import { type ChildProcess, spawn } from 'node:child_process';

/** How to start a child of the runtime. */
export interface ChildSpec {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Run as this user; null is ourselves. */
  readonly user: { readonly uid: number; readonly gid: number } | null;
  /** Pass a pipe to the child as file descriptor 3 (`-displayfd 3`). */
  readonly pipe3?: boolean;
  /** Its standard output is data for whoever started it, and no words of its own. */
  readonly ownStdout?: boolean;
}

/** How a child ended; both are null for one that could not be started. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Kept of a child's output, for the sentence that says why it died. */
const TAIL_BYTES = 4096;

/** A running child: every helper of the sandbox, be it browser or ffmpeg, is started and ended through this class. */
export class Child {
  readonly name: string;
  readonly process: ChildProcess;
  /** Resolves once, however the child ends. Never rejects. */
  readonly exited: Promise<Exit>;
  #running = true;
  #tail = '';
  #stopping: Promise<Exit> | undefined;
  readonly #lineListeners = new Set<(line: string) => void>();

  constructor(spec: ChildSpec) {
    this.name = spec.name;
    // setpriv execs the program, so its pid is the program's. The death signal is set after the change of user, which
    // would clear it: prctl(2), PR_SET_PDEATHSIG. It is what ends our children when the runtime itself is killed by -9.
    const as = spec.user
      ? [`--reuid=${spec.user.uid}`, `--regid=${spec.user.gid}`, '--clear-groups', '--pdeathsig', 'KILL']
      : ['--pdeathsig', 'KILL'];
    this.process = spawn('setpriv', [...as, '--', spec.command, ...spec.args], {
      cwd: spec.cwd,
      env: spec.env,
      stdio: ['ignore', 'pipe', 'pipe', ...(spec.pipe3 ? (['pipe'] as const) : [])],
    });
    this.exited = new Promise((resolve) => {
      this.process.once('error', (err) => {
        this.#running = false;
        this.#tail += String(err);
        resolve({ code: null, signal: null });
      });
      // 'exit', not 'close': a grandchild may keep the pipes open for long.
      this.process.once('exit', (code, signal) => {
        this.#running = false;
        resolve({ code, signal });
      });
    });
    let rest = '';
    const onOutput = (chunk: Buffer): void => {
      const text = chunk.toString('latin1');
      this.#tail = (this.#tail + text).slice(-TAIL_BYTES);
      if (this.#lineListeners.size === 0) return;
      const lines = (rest + text).slice(-TAIL_BYTES * 4).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) for (const listener of this.#lineListeners) listener(line);
    };
    if (!spec.ownStdout) this.process.stdout?.on('data', onOutput);
    this.process.stderr?.on('data', onOutput);
  }

  get running(): boolean {
    return this.#running;
  }

  /** The last output in one line, to end a sentence that says why the child died: a colon and the words, or nothing. */
  get lastWords(): string {
    const words = this.#tail.trim().split('\n').slice(-3).join(' | ').slice(-500);
    return words === '' ? '' : `: ${words}`;
  }

  /** Resolves with the first output line that matches; rejects when the child ends first or the signal fires. */
  line(pattern: RegExp, signal: AbortSignal): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const listener = (line: string): void => {
        const match = pattern.exec(line);
        if (match) done(() => resolve(match));
      };
      const onAbort = (): void =>
        done(() => reject(new Error(`${this.name} did not get ready in time${this.lastWords}`)));
      const done = (settle: () => void): void => {
        this.#lineListeners.delete(listener);
        signal.removeEventListener('abort', onAbort);
        settle();
      };
      this.#lineListeners.add(listener);
      signal.addEventListener('abort', onAbort);
      if (signal.aborted) onAbort();
      void this.exited.then((exit) =>
        done(() => reject(new Error(`${this.name} ${describeExit(exit)}${this.lastWords}`))),
      );
    });
  }

  /** Signals in turn, each with the milliseconds to wait before the next. One stop for all callers; ends with SIGKILL. */
  stop(phases: readonly (readonly [NodeJS.Signals, number])[] = [['SIGTERM', 2000]]): Promise<Exit> {
    this.#stopping ??= this.#stop(phases);
    return this.#stopping;
  }

  async #stop(phases: readonly (readonly [NodeJS.Signals, number])[]): Promise<Exit> {
    for (const [signal, patience] of phases) {
      if (!this.#running) break;
      this.process.kill(signal);
      let timer: NodeJS.Timeout | undefined;
      await Promise.race([
        this.exited,
        new Promise((resolve) => {
          timer = setTimeout(resolve, patience);
        }),
      ]);
      clearTimeout(timer);
    }
    if (this.#running) this.process.kill('SIGKILL');
    return this.exited;
  }
}

/** "was killed by SIGSEGV", "exited with code 1". */
export function describeExit(exit: Exit): string {
  return exit.signal ? `was killed by ${exit.signal}` : `exited with code ${exit.code ?? 'unknown'}`;
}

/** Calls `start` again after each unexpected end, at most `limit` times in `windowMs`; then `giveUp`. */
export class Keeper {
  readonly #start: () => Promise<Child>;
  readonly #giveUp: (why: string) => void;
  readonly #mayEnd: boolean;
  readonly #limit: number;
  readonly #windowMs: number;
  readonly #deaths: number[] = [];
  #child: Child | undefined;
  #stopped = false;
  restarts = 0;

  constructor(options: {
    start: () => Promise<Child>;
    giveUp: (why: string) => void;
    limit?: number;
    windowMs?: number;
    /** An end in order is no fault, however often: clients may close the browser. */
    mayEnd?: boolean;
  }) {
    this.#start = options.start;
    this.#giveUp = options.giveUp;
    this.#mayEnd = options.mayEnd ?? false;
    this.#limit = options.limit ?? 3;
    this.#windowMs = options.windowMs ?? 60_000;
  }

  /** Starts the child for the first time; a failure here is the caller's. */
  async start(): Promise<Child> {
    const child = await this.#start();
    this.#child = child;
    if (this.#stopped) await child.stop([['SIGKILL', 2000]]);
    else void child.exited.then((exit) => this.#onExit(child, exit));
    return child;
  }

  async stop(phases?: readonly (readonly [NodeJS.Signals, number])[]): Promise<void> {
    this.#stopped = true;
    await this.#child?.stop(phases);
  }

  async #onExit(child: Child, exit: Exit): Promise<void> {
    if (this.#stopped) return;
    const now = performance.now();
    if (exit.code !== 0 || !this.#mayEnd) this.#deaths.push(now);
    const recent = this.#deaths.filter((at) => now - at < this.#windowMs);
    this.#deaths.splice(0, this.#deaths.length, ...recent);
    if (recent.length >= this.#limit) {
      this.#giveUp(
        `${child.name} ${describeExit(exit)}, ${recent.length} times within ${this.#windowMs / 1000} s${child.lastWords}`,
      );
      return;
    }
    this.restarts += 1;
    try {
      await this.start();
    } catch (err) {
      if (!this.#stopped) this.#giveUp(err instanceof Error ? err.message : String(err));
    }
  }
}
