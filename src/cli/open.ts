/** `berth open` and `berth snippet`: what is at hand for people. */
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Sandbox } from '../client/client.ts';
import { type SnippetKind, snippet } from '../client/snippets.ts';
import { EXIT, Failure } from './failure.ts';
import type { Io } from './io.ts';
import { type CommonFlags, openSession } from './session.ts';

interface OpenFlags extends CommonFlags {
  readonly print?: true;
  /** A link for others, who can look and nothing else. */
  readonly viewOnly?: true;
  /** How long such a link counts, in seconds. */
  readonly ttl?: number;
}

/** Shows the live view in the system's browser; where there is none it prints the address, which is also what `--print` does. */
export async function open(io: Io, id: string, flags: OpenFlags): Promise<void> {
  const session = await openSession(io, flags);
  const sandbox = await session.client.get(id);
  const viewOnly = flags.viewOnly && sandbox.endedReason === undefined;
  const { liveViewUrl } = viewOnly
    ? await session.client.ticket(id, { role: 'view', ...(flags.ttl === undefined ? {} : { ttlSeconds: flags.ttl }) })
    : sandbox;
  if (liveViewUrl === undefined) throw withoutAddress(sandbox);
  const opener = flags.print || session.json ? undefined : findOpener(io);
  if (opener !== undefined && (await start(opener, liveViewUrl))) session.note(`${id} is shown in your browser.`);
  else session.print({ sandboxId: sandbox.sandboxId, liveViewUrl }, () => `${liveViewUrl}\n`);
}

/** Prints lines that drive the sandbox. */
export async function printSnippet(io: Io, kind: SnippetKind, id: string, flags: CommonFlags): Promise<void> {
  const session = await openSession(io, flags);
  const sandbox = await session.client.get(id);
  const text = snippet(kind, sandbox);
  if (text === undefined) throw withoutAddress(sandbox);
  session.print({ sandboxId: sandbox.sandboxId, kind, snippet: text }, () => text);
}

/** What an address was wanted for that is not handed out. */
export function withoutAddress({ sandboxId, endedReason }: Sandbox): Failure {
  return endedReason === undefined
    ? new Failure(EXIT.denied, `This key may look at ${sandboxId} but not use it; take one of the role user or admin.`)
    : new Failure(EXIT.notFound, `${sandboxId} has ended: ${endedReason.replace(/\.$/, '')}.`);
}

/** The program that opens addresses; undefined where there is none, or no screen for it to open one on. */
function findOpener({ env }: Io): string | undefined {
  if (process.platform === 'darwin') return findOnPath('open', env.PATH);
  if (!env.DISPLAY && !env.WAYLAND_DISPLAY) return undefined;
  return findOnPath('xdg-open', env.PATH);
}

/** The path of a program that the shell would find under this name. */
export function findOnPath(name: string, path = ''): string | undefined {
  const candidates = path.split(delimiter).map((folder) => join(folder || '.', name));
  return candidates.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** False when it could not be started, or said at once that it cannot. Some openers stay as long as the browser, and are left alone. */
function start(opener: string, url: string): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn(opener, [url], { detached: true, stdio: 'ignore' });
    const timer = setTimeout(() => resolve(true), 1500);
    const done = (opened: boolean): void => {
      clearTimeout(timer);
      resolve(opened);
    };
    child.once('error', () => done(false));
    child.once('exit', (code) => done(code === 0));
    child.unref();
  });
}
