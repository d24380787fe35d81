/** A WebSocket server that is far quicker than any proxy: it sends back what it gets, and N bytes for a message `G<N>`. */
import uWS from 'uWebSockets.js';
import { serve } from './answer.ts';

const MIB = 1024 * 1024;
const LIBUS_LISTEN_ANY_PORT = 0;

uWS
  .App()
  .ws('/*', {
    maxPayloadLength: 256 * MIB,
    idleTimeout: 0,
    maxBackpressure: 1024 * MIB,
    message: (ws, message, binary) => {
      const size = message.byteLength < 20 ? /^G(\d+)$/.exec(Buffer.from(message).toString())?.[1] : undefined;
      ws.send(size ? Buffer.alloc(Number(size), 97) : message, size ? false : binary);
    },
  })
  .listen('127.0.0.1', LIBUS_LISTEN_ANY_PORT, (socket) => {
    if (!socket) throw new Error('cannot listen');
    serve({ port: uWS.us_socket_local_port(socket) });
  });
