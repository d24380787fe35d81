import type { Duplex } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';

/** Longest line of the control connection, in characters: a status is below 2 KiB. */
const MAX_LINE = 64 * 1024;

/**
 * Hands on each whole line as parsed JSON. A line that was cut off, by a kill -9 of the other end for instance, is
 * dropped (readline would hand it on at the end), and what is not our protocol ends the connection.
 */
export function onJsonLines<T>(socket: Duplex, onMessage: (message: T) => void): void {
  let rest = '';
  // HTTP's sockets do not let themselves be given an encoding.
  const decoder = new StringDecoder('utf8');
  socket.on('data', (chunk: Buffer) => {
    const lines = (rest + decoder.write(chunk)).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > MAX_LINE) return void socket.destroy();
    for (const line of lines) {
      let message: T;
      try {
        message = JSON.parse(line) as T;
      } catch {
        return void socket.destroy();
      }
      onMessage(message);
    }
  });
}
