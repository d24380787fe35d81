import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** An egress process that has been killed is back within this time, in milliseconds. */
const PATIENCE_MS = 3000;
const AGAIN_MS = 50;
/** For whoever asks while there is no service: it ends with it, and begins again with the next. */
const CLOSED =
  'HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\nThe way out of this sandbox is closed: its Berth service is down.\n';

/**
 * Chromium speaks to proxies over TCP only, and our way out is a unix socket: what comes to this port of our own loopback goes
 * there, byte for byte. Resolves with the port.
 */
export async function listenForBrowser(egressSocket: string): Promise<number> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (browser) => void join(browser, egressSocket));
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

async function join(browser: Socket, path: string): Promise<void> {
  browser.on('error', () => browser.destroy());
  const egress = await connected(path, browser);
  if (!egress) {
    browser.end(CLOSED);
    return;
  }
  egress.on('error', () => browser.destroy());
  browser.pipe(egress);
  egress.pipe(browser);
  browser.once('close', () => egress.destroy());
  egress.once('close', () => browser.destroySoon());
}

/** Undefined when nobody listens there in time. */
async function connected(path: string, browser: Socket): Promise<Socket | undefined> {
  for (const deadline = performance.now() + PATIENCE_MS; ; await sleep(AGAIN_MS)) {
    const socket = connect({ path, allowHalfOpen: true });
    const up = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    if (up) return socket;
    if (browser.destroyed || performance.now() > deadline) return undefined;
  }
}
