/** The proxies that Berth is measured beside, each in front of the same port of this machine. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Endpoint } from '../../src/core/contracts.ts';
import type { FrontName } from '../../src/gateway/front.ts';
import { findProgram } from './measure.ts';
import { type Bench, freePort } from './part.ts';

export interface Relay {
  readonly name: string;
  readonly port: number;
  /** All its processes. */
  readonly pids: readonly number[];
  stop(): Promise<void>;
}
export type StartRelay = (bench: Bench, upstream: number) => Promise<Relay>;

/** Debian's nginx, haproxy where they are installed, and http-proxy. */
export function peers(bench: Bench): StartRelay[] {
  const found: StartRelay[] = [];
  for (const [name, start] of [
    ['nginx', nginx],
    ['haproxy', haproxy],
  ] as const) {
    const program = findProgram(name);
    if (program) found.push((...where) => start(program, ...where));
    else bench.notes.add(`${name} is not installed (apt-get install ${name}): its rows are left out.`);
  }
  return [...found, httpProxy];
}

/** `more` stands beside the location that passes everything on. */
export async function nginx(program: string, bench: Bench, upstream: number, more = ''): Promise<Relay> {
  const port = await freePort();
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((n) => `${n}_temp_path ${bench.folder}/n;`);
  const config = join(bench.folder, `nginx-${port}.conf`);
  writeFileSync(
    config,
    `daemon off; master_process off; pid ${bench.folder}/nginx-${port}.pid; error_log stderr error; worker_rlimit_nofile 20000;
events { worker_connections 20000; }
http {
  access_log off; ${temp.join(' ')}
  server { listen 127.0.0.1:${port}; location / {
    proxy_pass http://127.0.0.1:${upstream}; proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 1h;
    proxy_set_header Host localhost; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
  } ${more} }
}\n`,
  );
  const { pid, stop } = await bench.server(program, ['-p', bench.folder, '-e', 'stderr', '-c', config], port);
  return { name: 'nginx', port, pids: [pid], stop };
}

async function haproxy(program: string, bench: Bench, upstream: number): Promise<Relay> {
  const port = await freePort();
  const config = join(bench.folder, `haproxy-${port}.cfg`);
  writeFileSync(
    config,
    `global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
listen relay
  bind 127.0.0.1:${port}
  http-request set-header Host localhost
  server upstream 127.0.0.1:${upstream}\n`,
  );
  const { pid, stop } = await bench.server(program, ['-db', '-f', config], port);
  return { name: 'haproxy', port, pids: [pid], stop };
}

async function httpProxy(bench: Bench, upstream: number): Promise<Relay> {
  const { pid, ready, stop } = await bench.program('http-proxy', [upstream]);
  return { name: 'http-proxy', port: (ready as { port: number }).port, pids: [pid], stop };
}

/** Berth's gateway as with the local driver: nothing between it and the browser. */
export function gatewayAlone(bench: Bench, upstream: number): Promise<Relay> {
  return gateway(bench, 'berth, local', { host: '127.0.0.1', port: upstream });
}

/** The same on the front for where uWebSockets.js does not load; in front of a browser when it is told the path of its socket. */
export function gatewayOnWs(bench: Bench, upstream: number, browserPath = '/'): Promise<Relay> {
  return gateway(bench, 'berth, ws front', { host: '127.0.0.1', port: upstream }, browserPath, 'ws');
}

let splices = 0;

/** Berth's gateway and, on a unix socket behind it, the hop of a container's runtime. */
export async function gatewayAndRuntime(bench: Bench, upstream: number): Promise<Relay> {
  const path = join(bench.folder, `splice-${++splices}`);
  const splice = await bench.program('splice', [upstream, path]);
  const { name, port, pids, stop } = await gateway(bench, 'berth, docker', { path });
  const stopBoth = async (): Promise<void> => {
    await stop();
    await splice.stop();
  };
  return { name, port, pids: [...pids, splice.pid], stop: stopBoth };
}

async function gateway(
  bench: Bench,
  name: string,
  endpoint: Endpoint,
  browserPath = '/',
  front: FrontName = 'auto',
): Promise<Relay> {
  const { pid, ready, stop } = await bench.program('gateway', [endpoint, browserPath, front]);
  return { name, port: (ready as { port: number }).port, pids: [pid], stop };
}

/** The gateway alone knows one sandbox, by any id. */
export const SANDBOX_PATH = '/sandboxes/bench/ws/automation';

/** Where a client of the echo server connects to: the gateway knows paths of sandboxes only. */
export function echoUrl({ name, port }: Relay): string {
  return `ws://127.0.0.1:${port}${name.startsWith('berth') ? SANDBOX_PATH : '/'}`;
}
