/** What a shell asks for when somebody presses Tab: the shells' own scripts only pass on the words, and the tree of commands answers. */
import type { Command, Option } from 'commander';
import { BerthClient } from '../client/client.ts';
import { connect } from './connection.ts';
import type { Io } from './io.ts';

/** A shell waits for us at every Tab; a service that needs longer than this, in milliseconds, is not asked further. */
const PATIENCE_MS = 1_000;

/** For `eval "$(berth completion bash)"`. Candidates are taken as they are: `compgen -W` would run what is in them. */
const BASH = `# berth completion bash: put  eval "$(berth completion bash)"  into ~/.bashrc
_berth() {
  local IFS=$'\\n'
  mapfile -t COMPREPLY < <(berth __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  if [ "\${COMPREPLY[0]-}" = __files__ ]; then
    COMPREPLY=()
    compopt -o default 2>/dev/null
  fi
}
complete -F _berth berth
`;

const ZSH = `#compdef berth
# berth completion zsh: put  eval "$(berth completion zsh)"  into ~/.zshrc, behind compinit
_berth() {
  local -a found
  found=(\${(f)"$(berth __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)"})
  if [[ "\${found[1]-}" == __files__ ]]; then _files; else compadd -- "\${found[@]}"; fi
}
compdef _berth berth
`;

export const SCRIPTS = { bash: BASH, zsh: ZSH } as const;

/** What may stand in place of the last of `words`, which is begun. `__files__` alone leaves it to the shell. */
export async function candidates(io: Io, program: Command, words: readonly string[]): Promise<string[]> {
  const begun = words.at(-1) ?? '';
  const { command, positional, pending } = walk(program, words.slice(0, -1));
  const found = await offered(io, command, positional, pending, begun);
  return found.filter((word) => word === '__files__' || word.startsWith(begun));
}

interface Place {
  readonly command: Command;
  /** Words of the command so far that are no options. */
  readonly positional: readonly string[];
  /** The option whose value comes next. */
  readonly pending: Option | undefined;
}

function walk(program: Command, words: readonly string[]): Place {
  let command = program;
  let positional: string[] = [];
  let pending: Option | undefined;
  for (const word of words) {
    if (pending) pending = undefined;
    else if (word.startsWith('-')) pending = optionOf(command, word);
    else {
      const next = command.commands.find((one) => one.name() === word || one.aliases().includes(word));
      if (next && positional.length === 0) command = next;
      else positional = [...positional, word];
    }
  }
  return { command, positional, pending };
}

/** The option of this name, if a value has to follow it. */
function optionOf(command: Command, word: string): Option | undefined {
  const option = command.options.find((one) => one.long === word || one.short === word);
  return option?.required ? option : undefined;
}

async function offered(
  io: Io,
  command: Command,
  positional: readonly string[],
  pending: Option | undefined,
  begun: string,
): Promise<string[]> {
  if (pending)
    return pending.argChoices ? [...pending.argChoices] : pending.long === '--sandbox' ? ids(io) : ['__files__'];
  if (begun.startsWith('-')) {
    return [...command.options.filter((one) => !one.hidden).flatMap((one) => one.long ?? []), '--help'];
  }
  if (command.commands.length > 0)
    return [
      ...command
        .createHelp()
        .visibleCommands(command)
        .map((one) => one.name()),
    ];
  const wanted = command.registeredArguments;
  const argument = wanted[positional.length] ?? (wanted.at(-1)?.variadic ? wanted.at(-1) : undefined);
  if (argument?.argChoices) return [...argument.argChoices];
  if (argument && /^(sandbox|sandboxes)$/.test(argument.name())) return ids(io);
  return argument || command.name() === 'run' ? ['__files__'] : [];
}

/** Sandboxes that run, as far as the service says so in time. Only names that no shell can misread. */
async function ids(io: Io): Promise<string[]> {
  try {
    const { url, apiKey } = await connect(io, {});
    const client = new BerthClient(url, apiKey, AbortSignal.timeout(PATIENCE_MS));
    const running = [...(await client.list('READY')), ...(await client.list('CREATING'))];
    return running.map(({ sandboxId }) => sandboxId).filter((id) => /^[\w-]+$/.test(id));
  } catch {
    return [];
  }
}
