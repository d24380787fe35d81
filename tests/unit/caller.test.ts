import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, request, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Counters } from '../../src/core/counters.ts';
import type { Sandboxes } from '../../src/core/sandboxes.ts';
import { Callers, plainAddress } from '../../src/gateway/caller.ts';
import type { Front, GatewayOptions } from '../../src/gateway/connect.ts';
import { Gateway } from '../../src/gateway/server.ts';
import { WsGateway } from '../../src/gateway/ws-server.ts';
import { noAudit, openAccess } from './doors.ts';

const callers = new Callers(['10.0.0.0/8', '::1', '2001:db8::/32', '192.0.2.7'], false);

describe('Who is calling', () => {
  // biome-ignore format: a table
  const CASES: readonly (readonly [what: string, peer: string, forwardedFor: string | string[] | undefined, address: string])[] = [
    ['nobody else is spoken for', '203.0.113.9', undefined, '203.0.113.9'],
    ['a stranger speaks for itself, whatever it says', '203.0.113.9', '127.0.0.1', '203.0.113.9'],
    ['a proxy speaks for its client', '10.1.2.3', '203.0.113.9', '203.0.113.9'],
    ['a proxy that says nothing is the client', '10.1.2.3', undefined, '10.1.2.3'],
    ['of a chain, the last that is not ours is the client', '10.1.2.3', '1.2.3.4, 203.0.113.9, 192.0.2.7', '203.0.113.9'],
    ['in several headers too', '10.1.2.3', ['1.2.3.4', '203.0.113.9', '192.0.2.7'], '203.0.113.9'],
    ['what a client wrote in front of it counts for nothing', '10.1.2.3', '127.0.0.1, 203.0.113.9', '203.0.113.9'],
    ['a chain of ours alone begins with the first', '10.1.2.3', '10.9.9.9, 192.0.2.7', '10.9.9.9'],
    ['a word that is no address ends the chain', '10.1.2.3', '1.2.3.4, unknown', '10.1.2.3'],
    ['an empty one too', '10.1.2.3', '1.2.3.4, ', '10.1.2.3'],
    ['ports are no part of it', '10.1.2.3', '203.0.113.9:1234', '203.0.113.9'],
    ['IPv6', '::1', '2001:db9::5', '2001:db9::5'],
    ['IPv6 with a port', '2001:db8::1', '[2001:db9::5]:443', '2001:db9::5'],
    ['IPv4 on a socket for both', '::ffff:10.1.2.3', '203.0.113.9', '203.0.113.9'],
    ['and as uWebSockets.js writes it', '0000:0000:0000:0000:0000:ffff:0a01:0203', '::ffff:203.0.113.9', '203.0.113.9'],
  ];
  for (const [what, peer, forwarded, address] of CASES) {
    it(what, () => {
      const given = forwarded === undefined ? {} : { 'x-forwarded-for': forwarded };
      const caller = callers.of(peer, given);
      assert.equal(caller.address, address);
      assert.equal(caller.headers['x-real-ip'], address);
    });
  }

  it('a stranger says nothing about scheme, host and address, and a proxy all of it', () => {
    const said = {
      host: 'berth:3000',
      accept: '*/*',
      forwarded: 'for=1.1.1.1;host=evil;proto=https',
      'x-real-ip': '1.1.1.1',
      'x-forwarded-for': '1.1.1.1',
      'x-forwarded-host': 'shop.example:8443',
      'x-forwarded-proto': 'https',
      'x-forwarded-port': '1',
      'x-original-url': '/metrics',
    };
    const plain = { host: 'berth:3000', accept: '*/*', 'x-forwarded-proto': 'http', 'x-real-ip': '9.9.9.9' };
    assert.deepEqual(callers.of('9.9.9.9', said).headers, plain);
    const through = { ...plain, host: 'shop.example:8443', 'x-forwarded-proto': 'https', 'x-real-ip': '1.1.1.1' };
    assert.deepEqual(callers.of('10.0.0.1', said).headers, through);
    assert.equal(new Callers([], true).of('9.9.9.9', said).headers['x-forwarded-proto'], 'https');
  });

  it('a scheme or host that is none is not taken over', () => {
    for (const [proto, host] of [
      ['gopher', 'a b'],
      ['', 'evil/path'],
      ['javascript:', 'u:p@evil'],
      ['https\u0000', '[::1'],
    ] as const) {
      const { headers } = callers.of('::1', { host: 'b', 'x-forwarded-proto': proto, 'x-forwarded-host': host });
      assert.deepEqual([headers.host, headers['x-forwarded-proto']], ['b', 'http']);
    }
    const { headers } = callers.of('::1', {
      'x-forwarded-proto': 'wss, http',
      'x-forwarded-host': '[2001:db9::1]:8, x',
    });
    assert.deepEqual([headers.host, headers['x-forwarded-proto']], ['[2001:db9::1]:8', 'https']);
  });

  it('an IPv4 address is itself in any form', () => {
    for (const form of ['1.2.3.4', '::ffff:1.2.3.4', '::FFFF:1.2.3.4', '::ffff:102:304'])
      assert.equal(plainAddress(form), '1.2.3.4');
    assert.equal(plainAddress('fe80::1%eth0'), 'fe80::1');
  });
});

const FRONTS: Readonly<Record<string, (options: GatewayOptions) => Front>> = {
  'uWebSockets.js': (options) => new Gateway(options),
  'the ws package': (options) => new WsGateway(options),
};

for (const [name, open] of Object.entries(FRONTS)) {
  describe(`What the API is told through ${name}`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'bt-caller-'));
    let api: Server;
    const fronts: Front[] = [];
    const ports: number[] = [];

    before(async () => {
      const apiSocket = join(folder, 'api');
      api = createServer((req, res) => res.end(JSON.stringify(req.headers)));
      await new Promise<void>((resolve) => api.listen(apiSocket, resolve));
      const log = { info() {}, warn() {}, error() {} };
      for (const trustedProxies of [[], ['127.0.0.1']]) {
        const counters = new Counters();
        const front = open({
          access: openAccess(),
          sandboxes: {} as Sandboxes,
          apiSocket,
          counters,
          audit: noAudit,
          log,
          trustedProxies,
        });
        fronts.push(front);
        ports.push(await front.listen('127.0.0.1', 0));
      }
    });
    after(async () => {
      for (const front of fronts) front.close();
      api.closeAllConnections();
      await new Promise((resolve) => api.close(resolve));
      rmSync(folder, { recursive: true, force: true });
    });

    const told = (port: number | undefined): Promise<IncomingHttpHeaders> =>
      new Promise((resolve, reject) => {
        const headers = {
          host: 'berth',
          'X-Real-IP': '1.1.1.1',
          'X-Forwarded-For': ['5.5.5.5', '6.6.6.6'],
          'X-Forwarded-Proto': 'https',
          'X-Forwarded-Host': 'shop.example',
          Forwarded: 'for=7.7.7.7',
        };
        const req = request({ port, host: '127.0.0.1', headers, agent: false }, (res) => {
          let text = '';
          res.on('data', (chunk) => (text += chunk));
          res.on('end', () => resolve(JSON.parse(text)));
        });
        req.once('error', reject);
        req.end();
      });
    const said = ({ host, forwarded, ...headers }: IncomingHttpHeaders) => [
      host,
      headers['x-real-ip'],
      headers['x-forwarded-proto'],
      headers['x-forwarded-host'] ?? headers['x-forwarded-for'] ?? forwarded,
    ];

    it('is the peer, for everybody', async () => {
      assert.deepEqual(said(await told(ports[0])), ['berth', '127.0.0.1', 'http', undefined]);
    });
    it('is what a trusted proxy says', async () => {
      assert.deepEqual(said(await told(ports[1])), ['shop.example', '6.6.6.6', 'https', undefined]);
    });
  });
}
