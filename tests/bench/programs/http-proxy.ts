/** The relay of browserless and Steel, in its maintained edition, in front of a port. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import httpProxy from 'http-proxy';
import { args, serve } from './answer.ts';

const [port] = args as [number];
const proxy = httpProxy.createProxyServer({ target: `http://127.0.0.1:${port}`, ws: true, changeOrigin: true });
proxy.on('error', () => {});
const server = createServer((req, res) => proxy.web(req, res));
server.on('upgrade', (req, socket, head) => proxy.ws(req, socket, head));
server.listen(0, '127.0.0.1', () => serve({ port: (server.address() as AddressInfo).port }));
