import type { Duplex } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';

/** Longest line, in characters, when nobody says otherwise: a status is below 2 KiB. */
const MAX_LINE = 64 * 1024;

/**
 * Hands on each whole line as parsed JSON. A line that was cut off, by a kill -9 of the other end for instance, is
 * dropped (readline would hand it on at the end), and what is not our protocol ends the connection.
 */
export function onJsonLines<T>(socket: Duplex, onMessage: (message: T) => void, maxLine = MAX_LINE): void {
  let rest: string[] = [];
  let length = 0;
  // HTTP's sockets do not let themselves be given an encoding.
  const decoder = new StringDecoder('utf8');
  socket.on('data', (chunk: Buffer) => {
    const text = decoder.write(chunk);
    let from = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
      const line = rest.join('') + text.slice(from, end);
      rest = [];
      length = 0;
      from = end + 1;
      let message: T;
      try {
        message = JSON.parse(line) as T;
      } catch {
        return void socket.destroy();
      }
      onMessage(message);
    }
    rest.push(text.slice(from));
    length += text.length - from;
    if (length > maxLine) socket.destroy();
  });
}
