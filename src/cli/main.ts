import { type Command, CommanderError } from 'commander';
import { EXIT, type Failure, failureOf } from './failure.ts';
import { Interrupted, type Io } from './io.ts';
import { plain } from './output.ts';
import { buildProgram } from './program.ts';

/** Runs one command line, without the program's own name; resolves with the exit code. Nothing is thrown. */
export async function main(io: Io, args: readonly string[], version: string): Promise<number> {
  let code: number = EXIT.ok;
  const program = buildProgram(io, version, (own) => {
    code = own;
  });
  let where = program;
  for (const command of everyCommand(program)) {
    command.configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void io.stderr.write(text),
      // Told below, in our own words.
      outputError: () => {},
      getOutHelpWidth: () => Math.min(io.stdout.columns || 110, 120),
      getErrHelpWidth: () => Math.min(io.stderr.columns || 110, 120),
    });
    command.exitOverride((err) => {
      where = command;
      throw err;
    });
  }
  try {
    await program.parseAsync(args, { from: 'user' });
    return code;
  } catch (err) {
    if (err instanceof CommanderError) return misread(io, err, where);
    // `… | head`: whoever closed the pipe has what they wanted.
    if (io.unread.aborted && (err as NodeJS.ErrnoException).code === 'EPIPE') return EXIT.ok;
    return tell(io, io.signal.aborted ? io.signal.reason : err);
  }
}

function everyCommand(command: Command): Command[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}

/** A command line that makes no sense: the sentence, and where there is more to read. */
function misread(io: Io, err: CommanderError, command: Command): number {
  if (err.exitCode === 0) return EXIT.ok;
  // Help that was printed because a word is missing.
  if (err.code === 'commander.help') return EXIT.usage;
  const [, sentence = err.message, nearest] =
    /^error: (.*?)\.?(?:\n\(Did you mean (.*?)\?\))?$/s.exec(err.message) ?? [];
  const said = sentence
    .replace('. Allowed choices are ', '; it is one of ')
    .replace(' is invalid. It is ', ' is wrong: it is ');
  const name = fullName(command);
  const next = nearest === undefined ? `${name} --help shows what there is` : `did you mean ${nearest}?`;
  io.stderr.write(`berth: ${plain(said)}; ${next}${nearest === undefined ? '.' : ''}\n`);
  return EXIT.usage;
}

function fullName(command: Command): string {
  return command.parent ? `${fullName(command.parent)} ${command.name()}` : command.name();
}

function tell(io: Io, err: unknown): number {
  const failure: Failure = failureOf(err);
  // Whoever pressed Ctrl-C knows.
  if (!(err instanceof Interrupted)) io.stderr.write(`berth: ${plain(failure.message)}\n`);
  if (io.env.BERTH_DEBUG) io.stderr.write(`${failure.cause instanceof Error ? failure.cause.stack : failure.stack}\n`);
  return failure.exitCode;
}
