/** What sandboxes must not reach, what they may, and the tricks in between. */
import { createSocket } from 'node:dgram';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net';
import { networkInterfaces } from 'node:os';

/** A loopback address stands for the internet: the only one that the tests' operator opens. */
export const PUBLIC = '127.7.7.7';

/** An address of this machine that is not loopback. */
export const MACHINE = Object.values(networkInterfaces())
  .flatMap((all) => all ?? [])
  .find(({ family, internal }) => family === 'IPv4' && !internal)?.address;

export interface Listener {
  readonly port: number;
  close(): void;
}

/** Serves on this address; connections too are kept from outliving it. */
export async function serveOn(
  host: string,
  port: number,
  handler: RequestListener,
): Promise<Listener & { server: Server }> {
  const server = createServer(handler);
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, host, resolve));
  return {
    server,
    port: (server.address() as AddressInfo).port,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** What the machine's own services have heard. */
export interface Inner extends Listener {
  readonly heard: string[];
}

/** A service on loopback and all other addresses of this machine but {@link PUBLIC}, at one port, that no page may reach. */
async function serveInner(port: number): Promise<Inner> {
  const heard: string[] = [];
  const note = (req: IncomingMessage): void => void heard.push(`${req.method} ${req.headers.host}${req.url}`);
  const hosts = ['127.0.0.1', '::1', ...(MACHINE ? [MACHINE] : [])];
  const all: Awaited<ReturnType<typeof serveOn>>[] = [];
  const close = (): void => {
    for (const one of all) one.close();
  };
  try {
    for (const host of hosts) {
      all.push(
        await serveOn(host, port, (req, res) => {
          note(req);
          res.setHeader('access-control-allow-origin', '*').end('INNER');
        }),
      );
    }
  } catch (err) {
    close();
    throw err;
  }
  for (const { server } of all) {
    server.on('upgrade', (req, socket) => {
      note(req);
      socket.destroy();
    });
  }
  return { port, heard, close };
}

/** The open site and what pages must not reach, at the same port: only the address tells them apart. */
export async function serveBoth(handler: RequestListener): Promise<{ site: Listener; inner: Inner }> {
  for (let tries = 0; ; tries++) {
    const site = await serveOn(PUBLIC, 0, handler);
    try {
      return { site, inner: await serveInner(site.port) };
    } catch (err) {
      // Somebody has it on another address.
      site.close();
      if ((err as NodeJS.ErrnoException).code !== 'EADDRINUSE' || tries > 20) throw err;
    }
  }
}

/** Hears datagrams, such as a STUN client's. */
export async function listenUdp(): Promise<Listener & { heard: number[] }> {
  const heard: number[] = [];
  const socket = createSocket('udp4', (message) => void heard.push(message.length));
  await new Promise<void>((resolve) => socket.bind(0, '0.0.0.0', resolve));
  return { port: socket.address().port, heard, close: () => socket.close() };
}

/** A DNS server (RFC 1035) for A records of which `answer` decides, each time anew. No address: there is no such name. */
export async function serveDns(answer: (name: string) => string | undefined): Promise<Listener & { asked: string[] }> {
  const asked: string[] = [];
  const socket = createSocket('udp4', (query, { port, address }) => {
    const labels: string[] = [];
    let at = 12;
    for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
      labels.push(query.toString('latin1', at + 1, at + 1 + length));
      at += length + 1;
    }
    const question = query.subarray(12, at + 5);
    const wantsA = query.readUInt16BE(at + 1) === 1;
    const name = labels.join('.').toLowerCase();
    const found = wantsA ? answer(name) : undefined;
    if (wantsA) asked.push(name);
    const head = Buffer.alloc(12);
    query.copy(head, 0, 0, 2);
    head.writeUInt16BE(found === undefined && wantsA ? 0x8183 : 0x8180, 2);
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(found === undefined ? 0 : 1, 6);
    // A pointer to the name in the question, A, IN, a TTL of 0, four bytes.
    const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, ...(found ?? '').split('.').map(Number)]);
    socket.send(Buffer.concat([head, question, ...(found === undefined ? [] : [record])]), port, address);
  });
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  return { port: socket.address().port, asked, close: () => socket.close() };
}

/** A SOCKS5 proxy (RFC 1928) that asks for user and password (RFC 1929) and takes names to this port of {@link PUBLIC}. */
export async function serveSocks(
  user: string,
  password: string,
  port: number,
): Promise<Listener & { heard: string[] }> {
  const heard: string[] = [];
  const server = createTcpServer((client) => {
    let step = 0;
    client.on('error', () => client.destroy());
    client.on('data', function onData(data: Buffer) {
      step++;
      if (step === 1) client.write(Buffer.from([5, 2]));
      else if (step === 2) {
        const length = data[1] ?? 0;
        const given = [data.toString('utf8', 2, 2 + length), data.toString('utf8', 3 + length)];
        const right = given[0] === user && given[1] === password;
        client.write(Buffer.from([1, right ? 0 : 1]));
        if (!right) client.end();
      } else {
        client.off('data', onData);
        heard.push(data[3] === 3 ? data.toString('latin1', 5, 5 + (data[4] ?? 0)) : 'an address');
        const target = connect(port, PUBLIC, () => {
          client.write(Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
          client.pipe(target).pipe(client);
        });
        target.on('error', () => client.destroy());
        client.on('close', () => target.destroy());
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, PUBLIC, resolve));
  return { port: (server.address() as AddressInfo).port, heard, close: () => server.close() };
}
