import { stat } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';

/**
 * Takes a folder for this process until it closes the answer or ends, however it ends: an abstract unix socket (unix(7)), which
 * the kernel takes back, named after the folder itself and not after its path. Rejects with a sentence when another process has it.
 * Who has a network of its own, such as a container, is not seen.
 */
export async function takeFolder(folder: string, setting: string): Promise<Server> {
  const { dev, ino } = await stat(folder, { bigint: true });
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', (err: NodeJS.ErrnoException) => {
      const taken = `Another Berth already serves ${folder}: give this one its own ${setting}.`;
      reject(err.code === 'EADDRINUSE' ? new Error(taken, { cause: err }) : err);
    });
    server.listen(`\0berth-${dev}-${ino}`, resolve);
  });
  // What keeps the service alive is what it serves.
  return server.unref();
}
