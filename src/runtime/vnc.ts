import { execFile } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RuntimeConfig } from '../core/contracts.ts';
import { VNC_PASSWORD_FILE } from '../core/view-only.ts';
import { childEnv } from './desktop.ts';
import { Child } from './processes.ts';

/** Starts TigerVNC on the display; resolves once it has sent its RFB banner. */
export async function startVnc(config: RuntimeConfig, display: number, signal: AbortSignal): Promise<Child> {
  const socket = config.vncSocket;
  rmSync(socket, { force: true });
  const passwords = join(config.dir, 'vncpasswd');
  writeFileSync(passwords, VNC_PASSWORD_FILE, { mode: 0o644 });
  const child = new Child({
    name: 'TigerVNC',
    command: 'X0tigervnc',
    args: [
      ...['-display', `:${display}`, '-rfbport', '-1', '-rfbunixpath', socket, '-rfbunixmode', '0600'],
      // Who may look is decided at the gateway; the socket is reachable by nobody else. A password is for those who only look.
      ...['-SecurityTypes', 'None,VncAuth', '-PasswordFile', passwords, '-AlwaysShared', '-AcceptSetDesktopSize=0'],
      // Each connection that stops before the handshake ends, such as our own probe, counts as a failed login;
      // after five of them TigerVNC would turn everybody away.
      '-UseBlacklist=0',
      ...((await takesPrimary(config, display)) ? ['-SendPrimary=0'] : []),
      ...['-desktop', config.spec.id],
    ],
    env: childEnv(config, display),
    cwd: config.dir,
    user: config.user,
  });
  await awaitBanner(child, socket, signal);
  return child;
}

/**
 * Whether this TigerVNC would tell viewers of what is merely marked (X's PRIMARY), as 1.15 does, the first with a clipboard.
 * Nobody has copied that. And Chromium takes PRIMARY along with each copy: TigerVNC asks for both through one property of
 * its window (`transferProperty` in its XSelection.cxx), so on a busy machine the one's answer is read as the other's and
 * the viewer hears of neither. A version that does not know the parameter would not start with it.
 */
async function takesPrimary(config: RuntimeConfig, display: number): Promise<boolean> {
  return new Promise((resolve) => {
    const options = { env: childEnv(config, display), timeout: 5000 };
    // With -help it ends with a code of failure, and writes to stderr.
    execFile('X0tigervnc', ['-help'], options, (_err, stdout, stderr) => resolve(/SendPrimary/.test(stdout + stderr)));
  });
}

async function awaitBanner(child: Child, socket: string, signal: AbortSignal): Promise<void> {
  while (!(await hasBanner(socket))) {
    if (!child.running) throw new Error(`TigerVNC ended at its start${child.lastWords}`);
    if (signal.aborted) throw new Error(`TigerVNC did not get ready in time${child.lastWords}`);
    await sleep(10);
  }
}

/** How often the VNC server is asked for its banner, in milliseconds, and how many times in a row it may fail to send it. */
const ASK_EVERY_MS = 4000;
const MAX_MISSES = 3;

/** Ends a VNC server that accepts connections but no longer greets; its keeper starts the next one. */
export function endWhenStuck(child: Child, socket: string): void {
  let misses = 0;
  const timer = setInterval(async () => {
    misses = (await hasBanner(socket)) ? 0 : misses + 1;
    if (misses !== MAX_MISSES || !child.running) return;
    console.error('TigerVNC no longer greets: it is killed');
    void child.stop([['SIGKILL', 2000]]);
  }, ASK_EVERY_MS);
  void child.exited.then(() => clearInterval(timer));
}

/** Whether an RFB server greets on the socket ("RFB 003.008\n", RFC 6143 section 7.1.1). Bounded by half a second. */
function hasBanner(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path: socket });
    const done = (answer: boolean): void => {
      probe.destroy();
      resolve(answer);
    };
    probe.setTimeout(500, () => done(false));
    probe.once('error', () => done(false));
    probe.once('data', (chunk) => done(chunk.toString('latin1').startsWith('RFB ')));
    probe.once('close', () => done(false));
  });
}
