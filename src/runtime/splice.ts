import { type IncomingMessage, request, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { DEVTOOLS_PREFIX } from '../core/contracts.ts';

/** Chromium listens on the sandbox's own loopback (whatever one asks, since M113), so what comes from outside goes through here. */

/** The DevTools path behind {@link DEVTOOLS_PREFIX}, or undefined for other paths. */
export function devtoolsPath(url: string | undefined): string | undefined {
  return url?.startsWith(`${DEVTOOLS_PREFIX}/`) ? url.slice(DEVTOOLS_PREFIX.length) : undefined;
}

/** What browsers send is read into this and copied, which costs less than a new piece of memory for each read. */
const READ_BUFFER = Buffer.allocUnsafeSlow(256 * 1024);

/** Joins an upgrade request to Chromium: the handshake with our own credential taken out, then bytes under back-pressure both ways. */
export function spliceUpgrade(req: IncomingMessage, client: Duplex, head: Buffer, port: number, path: string): void {
  const onread = {
    buffer: READ_BUFFER,
    callback: (length: number): boolean => client.write(Buffer.from(READ_BUFFER.subarray(0, length))),
  };
  const browser = connect({ host: '127.0.0.1', port, noDelay: true, onread });
  let handshake = `GET ${path} HTTP/1.1\r\nHost: localhost\r\n`;
  for (const [name, value] of Object.entries(req.headers)) {
    if (name === 'connection' || name === 'upgrade' || name.startsWith('sec-websocket-'))
      handshake += `${name}: ${value}\r\n`;
  }
  browser.write(`${handshake}\r\n`);
  if (head.length > 0) browser.write(head);
  client.on('drain', () => browser.resume());
  browser.on('end', () => client.end());
  // By hand, since pipe() keeps ten functions for each connection.
  client.on('data', (chunk: Buffer) => {
    if (!browser.write(chunk)) client.pause();
  });
  browser.on('drain', () => client.resume());
  client.on('end', () => browser.end());
  const both = (): void => {
    browser.destroy();
    client.destroy();
  };
  browser.on('error', both);
  browser.on('close', both);
  client.on('error', both);
  client.on('close', both);
}

/** Passes a discovery request on. */
export function passOn(req: IncomingMessage, res: ServerResponse, port: number, path: string): void {
  const upstream = request(
    { host: '127.0.0.1', port, path, method: req.method, headers: { host: 'localhost' } },
    (answer) => {
      res.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(res);
    },
  );
  upstream.on('error', () => {
    if (!res.headersSent) res.writeHead(502);
    res.end();
  });
  res.on('close', () => upstream.destroy());
  upstream.end();
}
