import { EXIT, Failure, failureOf } from '../failure.ts';
import type { Io } from '../io.ts';
import { json, type Paint, plain } from '../output.ts';
import { type CommonFlags, openSession, talker } from '../session.ts';
import { type Finding, failed, ok, warning } from './finding.ts';
import { CHECKS, node } from './machine.ts';
import { trial, trySandbox } from './trial.ts';

interface DoctorFlags extends CommonFlags {
  /** Looks at the service that the other commands talk to, instead of at this machine. */
  readonly service?: true;
  /** False with `--no-trial`. */
  readonly trial?: boolean;
}

/** Looks at everything, tells each finding as it comes, and fails when anything stands in the way of a sandbox. */
export async function doctor(io: Io, flags: DoctorFlags): Promise<void> {
  const { paint, during } = talker(io, flags);
  const findings: Finding[] = [];
  const look = async (what: string, check: () => Promise<Finding | Finding[]>): Promise<void> => {
    const found = [await during(what, check)].flat();
    findings.push(...found);
    if (!flags.json) for (const finding of found) io.stdout.write(textOf(finding, paint));
  };
  await (flags.service ? examineService(io, flags, look) : examineMachine(io, flags, look));
  const bad = findings.filter(({ status }) => status === 'failed').length;
  if (flags.json) io.stdout.write(`${json({ ok: bad === 0, findings }, 2)}\n`);
  if (bad > 0)
    throw new Failure(EXIT.failed, `${bad} of ${findings.length} checks failed; do what they say and look again.`);
}

type Look = (what: string, check: () => Promise<Finding | Finding[]>) => Promise<void>;

async function examineMachine(io: Io, flags: DoctorFlags, look: Look): Promise<void> {
  await look('looking', async () => node());
  const machine = await io.machine(io.env).catch((err: Error) => err);
  if (machine instanceof Error) {
    await look('looking', async () => failed('Settings', machine.message, 'Set or unset what is named there.'));
    return;
  }
  await look('looking', async () => ok('Settings', `driver ${machine.driver}, data in ${machine.dataDir}`));
  for (const check of CHECKS) await look('looking', () => check(io, machine));
  if (flags.trial !== false) await look('starting a service and a sandbox', () => trial(io));
}

async function examineService(io: Io, flags: DoctorFlags, look: Look): Promise<void> {
  const { client, url } = await openSession(io, flags);
  let answers = false;
  await look('asking the service', async () => {
    try {
      const { status, archive } = await client.ready();
      answers = true;
      if (status === 'ok') return ok('Service', `${url} is ready`);
      return warning(
        'Service',
        `${url} is ${status}: its archive is ${archive}.`,
        'See that its bucket can be reached; recordings wait on its disk.',
      );
    } catch (err) {
      io.signal.throwIfAborted();
      const { message, exitCode } = failureOf(err, url);
      answers = exitCode !== EXIT.unreachable;
      return failed('Service', message, 'berth doctor, on the machine that it runs on, looks for the cause.');
    }
  });
  if (!answers) return;
  let known = false;
  await look('asking the service', async () => {
    try {
      await client.list();
      known = true;
      return ok('Key', 'the service takes it, or wants none');
    } catch (err) {
      io.signal.throwIfAborted();
      return failed('Key', failureOf(err, url).message, 'berth keys add, on the machine of the service, makes one.');
    }
  });
  if (known && flags.trial !== false) await look('starting a sandbox', () => trySandbox(io, client, url));
}

function textOf({ check, status, message, fix }: Finding, paint: Paint): string {
  const word = { ok: paint.green, warning: paint.yellow, failed: paint.red }[status](status.padEnd(7));
  const line = `${word}  ${check.padEnd(10)}  ${plain(message)}\n`;
  return fix === undefined ? line : `${line}${' '.repeat(21)}${paint.bold('To do:')} ${plain(fix)}\n`;
}
