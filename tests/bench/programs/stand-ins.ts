/**
 * What stands for sandboxes in the replay: browsers that answer at once, over WebSocket, and screens that change, on a TCP port as
 * VNC servers have them and, for proxies that cannot lead from one to the other, over WebSocket like those behind a websockify.
 */

import uWS from 'uWebSockets.js';
import { type AddressInfo, createServer } from 'node:net';
import { idIn, message, stepOf, UPDATE_BYTES, UPDATES_PER_SECOND } from '../conversation.ts';
import { serve } from './answer.ts';

const LIBUS_LISTEN_ANY_PORT = 0;
const MIB = 1024 * 1024;
const UPDATE = Buffer.alloc(UPDATE_BYTES, 7);
let screens = 0;

/** Sends the next update when it was asked for and the screen has changed. */
class Screen {
  #asked = false;
  #timer: NodeJS.Timeout;

  constructor(send: () => void) {
    const every = 1000 / UPDATES_PER_SECOND;
    const tick = (): void => {
      if (this.#asked) send();
      this.#asked = false;
    };
    // They do not all change at once.
    this.#timer = setTimeout(
      () => {
        this.#timer = setInterval(tick, every);
      },
      (screens++ * 7) % every,
    );
  }

  ask(): void {
    this.#asked = true;
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

/** What a VNC server says before it is asked for updates, as far as viewers here read it. */
const [VERSION, TYPES, OK] = [Buffer.from('RFB 003.008\n'), Buffer.of(1, 1), Buffer.alloc(4)];

const vnc = createServer({ noDelay: true }, (socket) => {
  const screen = new Screen(() => socket.write(UPDATE));
  socket.write(VERSION);
  // Its version, its security type, and what comes after that: each is waited for by who says the next.
  const answers = [TYPES, OK];
  socket.on('data', () => {
    const answer = answers.shift();
    if (answer) socket.write(answer);
    else screen.ask();
  });
  socket.on('error', () => {});
  socket.on('close', () => screen.close());
});
await new Promise<void>((resolve, reject) => vnc.once('error', reject).listen(0, '127.0.0.1', resolve));

const limits = { maxPayloadLength: 16 * MIB, idleTimeout: 0, maxBackpressure: 1024 * MIB };
uWS
  .App()
  .ws<{ screen?: Screen }>('/vnc/*', {
    ...limits,
    open: (ws) => {
      ws.getUserData().screen = new Screen(() => ws.send(UPDATE, true));
      for (const part of [VERSION, TYPES, OK]) ws.send(part, true);
    },
    message: (ws) => ws.getUserData().screen?.ask(),
    close: (ws) => ws.getUserData().screen?.close(),
  })
  .ws('/devtools/browser/*', {
    ...limits,
    message: (ws, data) => {
      const id = idIn(new Uint8Array(data));
      if (id === undefined) return void ws.end(1007, 'not a call of the conversation');
      const { events, answer } = stepOf(id);
      for (const event of events) ws.send(event);
      ws.send(message(id, answer));
    },
  })
  .listen('127.0.0.1', LIBUS_LISTEN_ANY_PORT, (socket) => {
    if (!socket) throw new Error('cannot listen');
    serve({ cdpPort: uWS.us_socket_local_port(socket), vncPort: (vnc.address() as AddressInfo).port });
  });
