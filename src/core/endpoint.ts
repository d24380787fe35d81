import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { connect, type Socket, type TcpNetConnectOpts } from 'node:net';
import type { Endpoint } from './contracts.ts';

/** linux/fcntl.h: a handle on the place itself, without opening what is there. Node has no name for it. */
const O_PATH = 0o10000000;

/**
 * Connects to a sandbox. A socket file may lie in a folder that a hostile browser can write to, and a link planted in its
 * place could lead us to the engine's own socket; so the place is taken hold of without following links, looked at, and
 * connected to through that very handle. Throws what the file system says, or EINVAL when it is no socket.
 */
export function connectTo(endpoint: Endpoint, options: Omit<TcpNetConnectOpts, 'port' | 'host'> = {}): Socket {
  if (!('path' in endpoint)) return connect({ ...options, host: endpoint.host, port: endpoint.port });
  const handle = openSync(endpoint.path, O_PATH | constants.O_NOFOLLOW);
  try {
    if (!fstatSync(handle).isSocket())
      throw Object.assign(new Error(`${endpoint.path} is not a socket`), { code: 'EINVAL' });
    // connect(2) happens before this returns, so the handle is no longer needed afterwards.
    return connect({ ...options, path: `/proc/self/fd/${handle}` });
  } finally {
    closeSync(handle);
  }
}

/** Whether somebody accepts connections there now. */
export function accepts(endpoint: Endpoint): Promise<boolean> {
  return new Promise((resolve) => {
    try {
      const probe = connectTo(endpoint);
      probe.once('connect', () => {
        probe.destroy();
        resolve(true);
      });
      probe.once('error', () => resolve(false));
    } catch {
      resolve(false); // no socket yet
    }
  });
}
