import { type Connection, type ConnectionFlags, connect } from './connection.ts';
import type { Io } from './io.ts';
import { json, type Paint, paintFor } from './output.ts';
import { Progress } from './progress.ts';

/** Flags that every command has which talks to a service. */
export interface CommonFlags extends ConnectionFlags {
  readonly json?: boolean;
  /** False with `--no-color`. */
  readonly color?: boolean;
}

/** One run of one command: whom it talks to, and how it says what it found. */
export interface Session extends Connection {
  readonly io: Io;
  readonly json: boolean;
  readonly paint: Paint;
  /** What was asked for, to stdout: as JSON for programs, else as `human` writes it. */
  print(value: unknown, human: () => string): void;
  /** What it is good to know besides, to stderr. */
  note(text: string): void;
  /** Shows on a terminal that something takes its time, until it is done. */
  during<T>(what: string, work: (progress: Progress) => Promise<T>): Promise<T>;
}

export async function openSession(io: Io, flags: CommonFlags): Promise<Session> {
  return { ...(await connect(io, flags)), ...talker(io, flags) };
}

/** The part of a session that needs no service. */
export function talker(io: Io, flags: CommonFlags): Omit<Session, keyof Connection> {
  return {
    io,
    json: flags.json === true,
    paint: paintFor(io, io.stdout, flags.color !== false),
    print: (value, human) => void io.stdout.write(flags.json ? `${json(value, 2)}\n` : human()),
    note: (text) => void io.stderr.write(`berth: ${text}\n`),
    during: async (what, work) => {
      const progress = new Progress(io.stderr, what);
      try {
        return await work(progress);
      } finally {
        progress.end();
      }
    },
  };
}

/** Asks on the terminal; anything but y or yes is a no. */
export async function confirm(io: Io, question: string): Promise<boolean> {
  const { createInterface } = await import('node:readline/promises');
  const lines = createInterface({ input: io.stdin(), output: io.stderr, terminal: false });
  try {
    io.stderr.write(`${question} [y/N] `);
    // The end of the input leaves the question open for ever.
    const closed = new Promise<string>((resolve) => lines.once('close', () => resolve('')));
    const answer = await Promise.race([lines.question('', { signal: io.signal }), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}
