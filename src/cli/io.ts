import type { Readable, Writable } from 'node:stream';

/** What the program's surroundings are; only `cmd/` has them, everything else is handed them. */
export interface Io {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  /** Opened when it is first looked at: that makes it non-blocking, which is not for programs that are started with it. */
  readonly stdin: () => Readable & { setRawMode?(mode: boolean): unknown };
  readonly stdinIsTTY: boolean;
  readonly stdout: Terminal;
  readonly stderr: Terminal;
  /** Aborted by the first SIGINT, SIGTERM or SIGHUP, its reason an {@link Interrupted}. */
  readonly signal: AbortSignal;
  /** Aborted when a write finds that nobody reads our output any more: the end of what only prints, and of nothing else. */
  readonly unread: AbortSignal;
  /** Calls `listener` at each of these signals, the first one too, until the answered function is called. */
  onSignal(listener: (signal: NodeJS.Signals) => void): () => void;
  /** Becomes the service, with `settings` above those of the environment. Does not come back: the service ends the process. */
  serve(settings: Readonly<Record<string, string>>): Promise<void>;
  /** The settings of a service that is started with `env`. Throws an error with one sentence. */
  machine(env: Readonly<Record<string, string | undefined>>): Promise<Machine>;
  /** Path of the service's program, for one in a process of its own. */
  readonly server: string;
}

export interface Terminal extends Writable {
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** What `berth doctor` and `berth keys` want to know of a service's settings. */
export interface Machine {
  readonly driver: 'local' | 'docker';
  readonly host: string;
  readonly port: number;
  readonly dataDir: string;
  /** Path of the file with API keys, whether it is there or not. */
  readonly keysFile: string;
  readonly dockerSocket: string;
  readonly runtimeImage: string;
  /** Of all sandboxes that fit; each takes about 300 MB. */
  readonly minFreeMemoryMb: number;
  /** Path of the browser; undefined where none is found. Only the local driver needs it. */
  readonly chromium: string | undefined;
}

/** Why {@link Io.signal} was aborted. */
export class Interrupted extends Error {
  readonly by: NodeJS.Signals;

  constructor(by: NodeJS.Signals) {
    super(`interrupted by ${by}`);
    this.name = 'Interrupted';
    this.by = by;
  }
}
