import { Gateway } from '../../src/gateway/server.ts';
import { describeWebSocket } from './websocket.ts';

// Seen with the pinned version; a newer one that has mended them fails here, and they can go.
describeWebSocket('uWebSockets.js', (options) => new Gateway(options), {
  readsUnmasked: true,
  joinsBinary: true,
  refusedCodes: [3000, 3999],
});
