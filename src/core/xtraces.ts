import { readdir, rm, stat } from 'node:fs/promises';
import { connect } from 'node:net';

/** Younger files may belong to a server that is about to start, in milliseconds. */
const SETTLED_MS = 2000;
const X_SOCKETS = '/tmp/.X11-unix';

/**
 * Removes what dead X servers of a sandbox's user (null: ours) left: their sockets, and the compiled keymap that each has in
 * /tmp for a moment at its start. A keymap that stays keeps every other user's server off that display number.
 */
export async function removeTracesOfX(user: { readonly uid: number } | null): Promise<void> {
  // A user of its own has no other X server that could be about to start.
  const [uid, settledMs] = user ? [user.uid, 0] : [process.getuid?.() ?? 0, SETTLED_MS];
  const sockets = (await readdir(X_SOCKETS)).map((name) => `${X_SOCKETS}/${name}`);
  const keymaps = (await readdir('/tmp'))
    .filter((name) => /^server-\d+\.xkm$/.test(name))
    .map((name) => `/tmp/${name}`);
  for (const path of [...sockets, ...keymaps]) {
    try {
      const found = await stat(path);
      if (found.uid !== uid || Date.now() - found.mtimeMs <= settledMs) continue;
      // Whoever has a user of its own is asked only when it is over: one that has been killed may hold its socket a little longer.
      if (user || !found.isSocket() || !(await isListening(path))) await rm(path, { force: true });
    } catch (err) {
      // Somebody else was faster.
      if ((err as NodeJS.ErrnoException).code !== 'ENOENT') throw err;
    }
  }
}

function isListening(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path: socket });
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    // Only "connection refused" means that nobody is there.
    probe.once('error', (err: NodeJS.ErrnoException) => resolve(err.code !== 'ECONNREFUSED'));
  });
}
