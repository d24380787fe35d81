// Plain CDP over a plain WebSocket: node examples/raw-cdp.mjs
import WebSocket from 'ws';

const { BERTH_URL = 'http://127.0.0.1:3000', BERTH_API_KEY = '', BERTH_CDP_URL } = process.env;
const create = () => fetch(`${BERTH_URL}/sandboxes`, { method: 'POST', headers: { 'X-API-Key': BERTH_API_KEY } });
const endpoint = BERTH_CDP_URL ?? (await (await create()).json()).data.cdpUrl;

const socket = new WebSocket(endpoint, { perMessageDeflate: false });
socket.on('open', () => socket.send('{"id":1,"method":"Browser.getVersion"}'));
socket.on('message', (message) => {
  console.log(JSON.parse(message).result.product);
  socket.close();
});
socket.on('error', (err) => {
  console.error(err.message);
  process.exitCode = 1;
});
