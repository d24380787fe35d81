/** The tree of commands: names, flags, help. What they do is loaded when they are called, so that help and completion come at once. */
import { Argument, Command, type Help, Option } from 'commander';
import type { Io } from './io.ts';
import { decimal, entry, moment, oneOf, seconds, viewport, whole } from './values.ts';

/** As src/client/snippets.ts has them, which would load the client. */
const SNIPPETS = ['puppeteer', 'playwright', 'python', 'browser-use', 'curl', 'ws'];
const STATES = ['CREATING', 'READY', 'TERMINATED', 'FAILED'];

const CONNECTION = 'Which service:';
const SANDBOX = 'What the sandbox is to be:';

/** Builds it anew for each run; `exit` is told the exit code of those that ended well but not with 0. */
export function buildProgram(io: Io, version: string, exit: (code: number) => void): Command {
  const program = new Command('berth')
    .description('Browser sandboxes: a real Chromium on a real desktop, driven over CDP, watched over VNC, recorded.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .configureHelp({ sortSubcommands: false, subcommandTerm, showGlobalOptions: false })
    .addHelpText('after', PROGRAM_HELP);
  connectable(program);
  serviceCommands(program, io);
  sandboxCommands(program, io);
  runCommand(program, io, exit);
  recordingCommands(program, io);
  keyCommands(program, io);
  profileCommands(program, io);
  completionCommands(program, io);
  return program;
}

const PROGRAM_HELP = `
Which service: --url before BERTH_URL before the profile before http://127.0.0.1:3000.
Which key: --api-key-file before BERTH_API_KEY before the profile's.

Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 not found or ended, 4 key missing or not allowed,
5 no capacity, 6 service unreachable, 128+n ended by signal n; berth run: the script's own.
BERTH_DEBUG=1 shows where an error comes from.`;

function subcommandTerm(this: Help, command: Command): string {
  const args = command.registeredArguments.map(
    (one) =>
      ` ${one.required ? `<${one.name()}` : `[${one.name()}`}${one.variadic ? '...' : ''}${one.required ? '>' : ']'}`,
  );
  return `${command.name()}${args.join('')}`;
}

function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}\n`).join('')}`;
}

/** Flags that say which service is meant. They may stand before the command or behind it. */
function connectable(command: Command): Command {
  return command
    .optionsGroup(CONNECTION)
    .option('--url <url>', 'address of the service')
    .option('--profile <name>', 'profile to use; counts as flags, so before BERTH_URL and BERTH_API_KEY')
    .option('--api-key-file <file>', 'file with the API key; - is stdin')
    .option('--api-key <key>', 'the API key; others on this machine see it in the list of processes')
    .optionsGroup('How:')
    .option('--json', 'print JSON, in the shapes of the API')
    .option('--no-color', 'no colours; NO_COLOR=1 says so, too');
}

/** Runs `call` with the command's arguments and all flags, those before the command included. */
function act(
  command: Command,
  // biome-ignore lint/suspicious/noExplicitAny: commander parses flags; each command says what its own are
  call: (flags: any, args: any[]) => Promise<unknown>,
): Command {
  return command.action(async (...given: unknown[]) => {
    const last = given.at(-1) as Command;
    await call(flagsOf(last), given.slice(0, -2));
  });
}

/** Those of the command and of those above it: the nearer counts, and what was said counts before what is so by default. */
function flagsOf(command: Command): Record<string, unknown> {
  const own = command.opts();
  if (!command.parent) return own;
  const above = flagsOf(command.parent);
  const said = Object.keys(own).filter(
    (name) => command.getOptionValueSource(name) !== 'default' || above[name] === undefined,
  );
  return { ...above, ...Object.fromEntries(said.map((name) => [name, own[name]])) };
}

function serviceCommands(program: Command, io: Io): void {
  program.commandsGroup('The service:');
  const serve = program
    .command('serve')
    .description('start the service here, in the foreground')
    .option('--host <address>', 'BERTH_HOST')
    .option('--port <port>', 'BERTH_PORT')
    .option('--driver <driver>', 'BERTH_DRIVER')
    .option('--data-dir <folder>', 'BERTH_DATA_DIR')
    .addHelpText(
      'after',
      `\nAll settings are environment variables; the README lists them. Ctrl-C or SIGTERM ends it.\n${examples('berth serve', 'BERTH_DRIVER=docker berth serve --port 8080')}`,
    );
  act(serve, ({ host, port, driver, dataDir }) => {
    const given = { BERTH_HOST: host, BERTH_PORT: port, BERTH_DRIVER: driver, BERTH_DATA_DIR: dataDir };
    return io.serve(Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)));
  });
  const doctor = program
    .command('doctor')
    .description('look for what stands in the way of a sandbox, and say what to do about it')
    .option('--service', 'look at the service that the other commands talk to, not at this machine')
    .option('--no-trial', 'start no sandbox to see whether it works')
    .addHelpText(
      'after',
      `\nWith the settings of the environment. Exits with 0 when sandboxes will start.\n${examples('berth doctor', 'BERTH_DRIVER=docker berth doctor', 'berth doctor --service --json')}`,
    );
  act(connectable(doctor), async (flags) => (await import('./doctor/doctor.ts')).doctor(io, flags));
}

function sandboxFlags(command: Command): Command {
  return command
    .optionsGroup(SANDBOX)
    .option('--template <name>', 'defaults for what is not said here')
    .option('--id <id>', 'its name; otherwise the service makes one up')
    .option('--record', 'record it from the start (--recording always)')
    .addOption(oneOf('--recording <mode>', 'when to record', ['off', 'manual', 'always']))
    .option('--record-fps <n>', 'frames a second, 1 to 30', whole)
    .option('--record-scale <n>', 'size of the picture, 0.1 to 1', decimal)
    .addOption(oneOf('--record-quality <quality>', 'of the picture', ['low', 'medium', 'high']))
    .option('--record-segment <time>', 'length of a file', seconds)
    .option('--no-record-cursor', 'leave the mouse pointer out')
    .option('--viewport <size>', 'of the screen, such as 1280x720', viewport)
    .option('--idle-timeout <time>', 'end it after so long without activity', seconds)
    .option('--lifetime <time>', 'end it at this age', seconds)
    .option('--connect-timeout <time>', 'end it when nobody has connected by then', seconds)
    .addOption(oneOf('--activity <what>', 'what counts as activity', ['any', 'automation']))
    .addOption(
      oneOf('--on-browser-close <what>', "what a client's Browser.close does", ['restart', 'terminate', 'keep']),
    )
    .option('-m, --metadata <key=value>', 'text for your own use; may be repeated', entry)
    .option('--body <file>', 'JSON with fields of POST /sandboxes, for what has no flag; - is stdin');
}

function sandboxCommands(program: Command, io: Io): void {
  program.commandsGroup('Sandboxes:');
  const create = sandboxFlags(program.command('create'))
    .description('start a sandbox')
    .optionsGroup('How:')
    .option('--no-wait', 'answer at once, while it still starts')
    .option('--idempotency-key <key>', 'repeated with the same key, it is the same sandbox')
    .addHelpText(
      'after',
      `\nTimes are seconds, or such as 90s, 30m, 2h, 1d.\n${examples('berth create', 'berth create --template wide --record -m job=42', 'berth create --json | jq -r .cdpUrl')}`,
    );
  act(connectable(create), async (flags) => (await import('./create.ts')).create(io, flags));

  const list = program
    .command('ls')
    .description('list the sandboxes that run')
    .option('-a, --all', 'those that have ended, too')
    .addOption(oneOf('--status <status>', 'only those', STATES))
    .option('-m, --metadata <key=value>', 'only those that have it; may be repeated', entry)
    .addHelpText('after', examples('berth ls', 'berth ls --status FAILED', "berth ls --json | jq -r '.[].sandboxId'"));
  act(connectable(list), async (flags) => (await import('./sandboxes.ts')).list(io, flags));

  const get = program.command('get').description('show all about a sandbox').argument('<sandbox>', 'its id');
  get.addHelpText('after', examples('berth get 3f0c…', 'berth get 3f0c… --json'));
  act(connectable(get), async (flags, [id]) => (await import('./sandboxes.ts')).get(io, id, flags));

  const remove = program
    .command('rm')
    .description('end sandboxes')
    .argument('[sandboxes...]', 'their ids')
    .option('-a, --all', 'all that run')
    .option('-y, --yes', 'do not ask')
    .option('--recordings', 'delete their recordings, too')
    .addHelpText('after', examples('berth rm 3f0c… 9a1b…', 'berth rm --all --yes'));
  act(connectable(remove), async (flags, [ids]) => (await import('./sandboxes.ts')).remove(io, ids, flags));

  const open = program
    .command('open')
    .description('show a sandbox in your browser')
    .argument('<sandbox>', 'its id')
    .option('-p, --print', 'only print the address')
    .option('--view-only', 'with a link that lets nobody type or click')
    .option('--ttl <time>', 'how long that link counts, 1s to 7d; default 1h', seconds)
    .addHelpText(
      'after',
      `\nPrints the address where there is no browser to show it in.\n${examples('berth open 3f0c…', 'berth open 3f0c… --print --view-only --ttl 1d')}`,
    );
  act(connectable(open), async (flags, [id]) => (await import('./open.ts')).open(io, id, flags));

  const snippet = program
    .command('snippet')
    .description('print lines that drive a sandbox')
    .addArgument(new Argument('<kind>', 'for what').choices(SNIPPETS))
    .argument('<sandbox>', 'its id')
    .addHelpText(
      'after',
      `\nThe address in them has a ticket: whoever sees it can drive the sandbox.\n${examples('berth snippet playwright 3f0c… > drive.mjs', 'sh -c "$(berth snippet curl 3f0c…)"')}`,
    );
  act(connectable(snippet), async (flags, [kind, id]) => (await import('./open.ts')).printSnippet(io, kind, id, flags));

  const screenshot = program
    .command('screenshot')
    .description("take a picture of a sandbox's page")
    .argument('<sandbox>', 'its id')
    .argument('[file]', 'ends in .png, .jpg or .webp; - is stdout; default <sandbox>.png')
    .option('--page <id>', 'which page; default the first')
    .option('--full-page', 'also what is below the fold')
    .addHelpText('after', examples('berth screenshot 3f0c…', 'berth screenshot 3f0c… page.jpg --full-page'));
  act(connectable(screenshot), async (flags, [id, file]) =>
    (await import('./screenshot.ts')).screenshot(io, id, file, flags),
  );

  const events = program
    .command('events')
    .description('print what happened')
    .argument('[sandbox]', 'only to this one')
    .option('-f, --follow', 'and what happens, until Ctrl-C or until the sandbox has ended')
    .option('-n, --last <n>', 'only the last ones; with -f ten', whole)
    .option('--after <event>', 'only those after the event of this id')
    .addHelpText(
      'after',
      `\nWith --json one event a line.\n${examples('berth events -f', 'berth events 3f0c… --json | jq .type')}`,
    );
  act(connectable(events), async (flags, [id]) => (await import('./events.ts')).events(io, id, flags));
}

function runCommand(program: Command, io: Io, exit: (code: number) => void): void {
  const run = sandboxFlags(program.command('run'))
    .description('run a program with a sandbox of its own')
    .argument('<script>', '.js, .mjs, .cjs and .ts run on node, .py on python3, anything else by itself')
    .argument('[args...]', 'its arguments; they need no --')
    .passThroughOptions()
    .optionsGroup('How:')
    .option('--save-recording <file>', 'record it, and save that as .mkv or .mp4, or into a folder')
    .addHelpText(
      'after',
      `
The program finds the sandbox in BERTH_CDP_URL, BERTH_SANDBOX_ID and BERTH_LIVE_URL. Its stdin, stdout and stderr are yours.
The sandbox is ended when the program ends, on Ctrl-C, SIGTERM and SIGHUP, too, which go to the program; a second one kills it.
Flags behind the program's name are the program's.
${examples('berth run scrape.mjs https://example.com', 'berth run --save-recording tour.mp4 tour.py', 'berth run --template wide -- npx playwright test')}`,
    );
  act(connectable(run), async (flags, [script, args]) =>
    exit(await (await import('./run.ts')).run(io, script, args, flags)),
  );
}

function recordingCommands(program: Command, io: Io): void {
  const recordings = program.command('recordings').description('list, fetch and delete recordings');
  const filters = (command: Command): Command =>
    command
      .option('--sandbox <id>', 'only of this one')
      .option('--since <time>', 'only those that began then or later', moment)
      .option('--until <time>', 'only those that began before', moment)
      .addOption(oneOf('--status <status>', 'only those', ['recording', 'completed']))
      .option('-m, --metadata <key=value>', 'only those whose sandbox had it; may be repeated', entry);

  const list = filters(recordings.command('ls').description('list recordings, the newest first'));
  list.addHelpText(
    'after',
    examples('berth recordings ls --sandbox 3f0c…', 'berth recordings ls --since 2026-01-31 --json'),
  );
  act(connectable(list), async (flags) => (await import('./recordings.ts')).listRecordings(io, flags));

  const get = recordings
    .command('get')
    .description('download one file')
    .argument('<filename>', 'as ls has it')
    .argument('[file]', 'where to; a folder, or - for stdout; default here')
    .addHelpText('after', examples('berth recordings get vnc_film_20260131_080000_seg000.mkv'));
  act(connectable(get), async (flags, [name, file]) =>
    (await import('./recordings.ts')).getRecording(io, name, file, flags),
  );

  const exported = recordings
    .command('export')
    .description('download a session as one file')
    .argument('<session>', 'a session, one of its files, or a sandbox, of which the newest session is meant')
    .argument('[file]', 'where to; a folder, or - for stdout; default here')
    .addOption(oneOf('--format <format>', "default as the file's name says, else mkv", ['mkv', 'mp4']))
    .addHelpText('after', examples('berth recordings export 3f0c… film.mp4'));
  act(connectable(exported), async (flags, [what, file]) =>
    (await import('./recordings.ts')).exportRecording(io, what, file, flags),
  );

  const remove = filters(
    recordings.command('rm').description('delete recordings').argument('[filenames...]', 'as ls has them'),
  )
    .option('-a, --all', 'all that the filters find')
    .option('-y, --yes', 'do not ask')
    .addHelpText('after', examples('berth recordings rm --sandbox 3f0c… --yes'));
  act(connectable(remove), async (flags, [names]) =>
    (await import('./recordings.ts')).removeRecordings(io, names, flags),
  );
}

function keyCommands(program: Command, io: Io): void {
  program.commandsGroup('Keys, profiles, shells:');
  const keys = program
    .command('keys')
    .description('manage the API keys of a service on this machine')
    .addHelpText(
      'after',
      '\nThey edit the file BERTH_API_KEYS_FILE, default <BERTH_DATA_DIR>/keys, which a running service reads anew by itself.',
    );
  const local = (command: Command): Command =>
    command
      .option('--file <file>', 'another keys file')
      .option('--json', 'print JSON')
      .option('--no-color', 'no colours');

  const add = local(keys.command('add'))
    .description('make a key and print it; only its hash is stored')
    .requiredOption('--tenant <name>', 'whose sandboxes it is for')
    .addOption(
      oneOf('--role <role>', 'admin: everything of everybody; user: its own; viewer: only looks', [
        'admin',
        'user',
        'viewer',
      ]).default('user'),
    )
    .option('--note <text>', 'who has it, what for')
    .addHelpText(
      'after',
      examples('berth keys add --tenant shop --note "nightly tests"', 'berth keys add --tenant ops --role admin > key'),
    );
  act(add, async (flags) => (await import('./keys.ts')).addKey(io, flags));
  const list = local(keys.command('ls')).description('list keys by their ids; the keys themselves are nowhere');
  act(list, async (flags) => (await import('./keys.ts')).listKeys(io, flags));
  const remove = local(keys.command('rm')).description('remove keys').argument('<ids...>', 'as ls has them');
  remove.addHelpText('after', examples('berth keys rm 1f2e3d4c5b6a'));
  act(remove, async (flags, [ids]) => (await import('./keys.ts')).removeKeys(io, ids, flags));
}

function profileCommands(program: Command, io: Io): void {
  const profile = program
    .command('profile')
    .description('store addresses and keys under names')
    .addHelpText(
      'after',
      '\nIn ~/.config/berth/config.json, or below XDG_CONFIG_HOME, which only you can read. BERTH_PROFILE names the one to use.',
    );
  const add = profile
    .command('add')
    .description('store an address and its key, which is asked for where there is a terminal')
    .argument('<name>', 'its name')
    .argument('<url>', 'address of the service')
    .option('--api-key-file <file>', 'file with the API key; - is stdin')
    .option('--api-key <key>', 'the API key; others on this machine see it in the list of processes')
    .addHelpText(
      'after',
      examples(
        'berth profile add home http://127.0.0.1:3000',
        'berth profile add shop https://berth.example.com --api-key-file - < key',
      ),
    );
  act(add, async (flags, [name, url]) => (await import('./profile.ts')).addProfile(io, name, url, flags));
  const list = profile
    .command('ls')
    .description('list them; the one in use has a star')
    .option('--json', 'print JSON')
    .option('--no-color', 'no colours');
  act(list, async (flags) => (await import('./profile.ts')).listProfiles(io, flags));
  const use = profile.command('use').description('use this one from now on').argument('<name>', 'its name');
  act(use, async (_, [name]) => (await import('./profile.ts')).useProfile(io, name));
  const remove = profile.command('rm').description('forget one').argument('<name>', 'its name');
  act(remove, async (_, [name]) => (await import('./profile.ts')).removeProfile(io, name));
}

function completionCommands(program: Command, io: Io): void {
  const completion = program
    .command('completion')
    .description('print what makes a shell complete these commands')
    .addArgument(new Argument('<shell>', 'which').choices(['bash', 'zsh']))
    .addHelpText(
      'after',
      examples(
        'eval "$(berth completion bash)"     # in ~/.bashrc',
        'eval "$(berth completion zsh)"      # in ~/.zshrc, behind compinit',
      ),
    );
  act(completion, async (_, [shell]) => {
    io.stdout.write((await import('./completion.ts')).SCRIPTS[shell as 'bash' | 'zsh']);
  });
  const complete = program
    .command('__complete', { hidden: true })
    .argument('[words...]')
    .addOption(new Option('--json').hideHelp());
  act(complete, async (_, [words]) => {
    const found = await (await import('./completion.ts')).candidates(io, program, words);
    io.stdout.write(found.map((word) => `${word}\n`).join(''));
  });
}
