import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, get as plainGet } from 'node:http';
import { request } from 'node:https';
import { connect as connectPlainly } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { encryptKey, makeCertificate } from './certificates.ts';
import { LIMIT, SERVER, type Service, startService, waitFor, withService } from './service.ts';
import { openSocket } from './sockets.ts';

const KEY = 'key-of-the-tls-tests';
/** From dist/tests/e2e. */
const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/** A program of its own, since Node reads NODE_EXTRA_CA_CERTS only at its start. */
const CLIENT = `
import { BerthClient } from './dist/src/client/client.js';
import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';
const client = new BerthClient(process.env.BERTH_URL, process.env.BERTH_API_KEY);
const { sandboxId, cdpUrl, vncUrl, liveViewUrl } = await client.create();
const over = await puppeteer.connect({ browserWSEndpoint: cdpUrl });
const byPuppeteer = await (await over.newPage()).evaluate(() => 6 * 7);
await over.disconnect();
const versions = [];
for (const endpoint of [cdpUrl, process.env.BERTH_URL + '/sandboxes/' + sandboxId]) {
  const headers = { 'X-API-Key': process.env.BERTH_API_KEY };
  const browser = await chromium.connectOverCDP(endpoint, { headers });
  versions.push(browser.version());
  await browser.close();
}
const discovered = await fetch(process.env.BERTH_URL + '/sandboxes/' + sandboxId + '/json/version', { headers: { 'X-API-Key': process.env.BERTH_API_KEY } });
const { webSocketDebuggerUrl } = await discovered.json();
await client.delete(sandboxId);
console.log(JSON.stringify({ cdpUrl, vncUrl, liveViewUrl, webSocketDebuggerUrl, byPuppeteer, versions }));
`;

/** A TLS connection, once it is there. */
function shakeHands(service: Service, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const { port } = new URL(service.url);
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false, ...options }, () =>
      resolve(socket),
    );
    socket.once('error', reject);
  });
}

async function certificateOf(service: Service): Promise<string> {
  const socket = await shakeHands(service);
  const { CN } = socket.getPeerCertificate().subject;
  socket.destroy();
  return CN as string;
}

function health(service: Service): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const req = request(
      `${service.url}/health`,
      { rejectUnauthorized: false, agent: false },
      (res: IncomingMessage) => {
        res.resume();
        res.once('end', () => resolve(res.statusCode));
      },
    );
    req.once('error', reject);
    req.end();
  });
}

describe('TLS', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bt-tls-'));
  const first = makeCertificate(folder, 'first');
  const second = makeCertificate(folder, 'second');
  // As a manager of certificates keeps them: the configured paths are links, which it replaces.
  const live = { cert: join(folder, 'live.crt'), key: join(folder, 'live.key') };
  const link = (to: string, at: string): void => {
    symlinkSync(to, `${at}.new`);
    renameSync(`${at}.new`, at);
  };
  const env = {
    BERTH_TLS_CERT: live.cert,
    BERTH_TLS_KEY: live.key,
    BERTH_API_KEYS: `a:${KEY}`,
    BERTH_ENV: 'production',
  };
  let service: Service;

  before(async () => {
    link(first.cert, live.cert);
    link(first.key, live.key);
    service = await startService({ env });
  });
  after(async () => {
    await service.end();
    rmSync(folder, { recursive: true, force: true });
  });

  it('carries Puppeteer and Playwright, at the addresses that it hands out', LIMIT, async () => {
    assert.match(service.url, /^https:/);
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', CLIENT], {
      cwd: ROOT,
      env: { PATH: process.env.PATH, NODE_EXTRA_CA_CERTS: first.cert, BERTH_URL: service.url, BERTH_API_KEY: KEY },
    });
    const said = JSON.parse(stdout);
    assert.equal(said.byPuppeteer, 42);
    assert.equal(said.versions.length, 2);
    const ws = service.url.replace('https:', 'wss:');
    for (const url of [said.cdpUrl, said.vncUrl, said.webSocketDebuggerUrl]) assert.ok(url.startsWith(`${ws}/`), url);
    assert.ok(said.liveViewUrl.startsWith(`${service.url}/`), said.liveViewUrl);
  });

  it('is 1.2 or newer, and never HTTP/2', LIMIT, async () => {
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' } as const;
    await assert.rejects(shakeHands(service, old), /protocol version|alert/i);
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const socket = await shakeHands(service, { minVersion: version, maxVersion: version });
      assert.equal(socket.getProtocol(), version);
      socket.destroy();
    }
    const socket = await shakeHands(service, { ALPNProtocols: ['h2', 'http/1.1'] });
    assert.notEqual(socket.alpnProtocol, 'h2');
    socket.destroy();
  });

  it('survives what is no TLS, and its absence survives TLS', LIMIT, async () => {
    const { port } = new URL(service.url);
    await assert.rejects(
      new Promise((resolve, reject) => plainGet({ port, host: '127.0.0.1' }, resolve).once('error', reject)),
    );
    for (const bytes of [
      '',
      '\x16\x03\x01',
      '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
      'RFB 003.008\n',
      '\0'.repeat(9999),
    ]) {
      const socket = connectPlainly(Number(port), '127.0.0.1');
      socket.on('error', () => {});
      socket.end(Buffer.from(bytes, 'latin1'));
      await new Promise((resolve) => socket.resume().once('close', resolve));
    }
    assert.equal(await health(service), 200);
    await withService({}, async (plain) => {
      await assert.rejects(shakeHands(plain), /wrong version number|packet length|socket disconnected|ECONNRESET/i);
      assert.equal((await fetch(`${plain.url}/health`)).status, 200);
    });
  });

  it(
    'takes a renewed certificate over while connections go on; a pair that is no pair is not taken',
    LIMIT,
    async () => {
      assert.equal(await certificateOf(service), 'first');
      const { cdpUrl, sandboxId } = await created(service);
      const socket = await openSocket(cdpUrl, [], { rejectUnauthorized: false });
      let answers = 0;
      socket.on('message', () => answers++);
      socket.once('close', () => assert.fail('the connection was dropped'));
      const call = async (): Promise<void> => {
        const wanted = answers + 1;
        socket.send(JSON.stringify({ id: wanted, method: 'Browser.getVersion' }));
        await waitFor(() => answers === wanted, 'an answer on the connection from before');
      };
      await call();

      // The certificate is there and its key is not yet.
      link(second.cert, live.cert);
      await waitFor(() => service.log().includes('the certificate was not renewed'), 'the log to say so');
      assert.match(service.log(), /live\.key is not the key of the certificate/);
      assert.equal(await certificateOf(service), 'first');
      link(second.key, live.key);
      await waitFor(async () => (await certificateOf(service)) === 'second', 'the new certificate');
      for (let i = 0; i < 20; i++) assert.equal(await certificateOf(service), 'second');
      await call();

      // Written in place, half of it first.
      const [third, whole] = [makeCertificate(folder, 'third'), join(folder, 'place')];
      copyFileSync(second.cert, `${whole}.crt`);
      copyFileSync(second.key, `${whole}.key`);
      link(`${whole}.crt`, live.cert);
      link(`${whole}.key`, live.key);
      copyFileSync(third.key, `${whole}.key`);
      writeFileSync(`${whole}.crt`, readFileSync(third.cert, 'utf8').slice(0, 200));
      await waitFor(() => service.log().includes('holds no certificate'), 'the log to say so');
      assert.equal(await certificateOf(service), 'second');
      copyFileSync(third.cert, `${whole}.crt`);
      await waitFor(async () => (await certificateOf(service)) === 'third', 'the third certificate');
      await call();
      socket.removeAllListeners('close');
      socket.terminate();
      await ask(service, 'DELETE', `/sandboxes/${sandboxId}`);
    },
  );

  it('without a certificate and a key that fit there is no start', LIMIT, async () => {
    const [garbage, encrypted] = [join(folder, 'garbage'), join(folder, 'encrypted')];
    writeFileSync(garbage, 'nothing\n');
    encryptKey(first.key, encrypted);
    for (const [cert, key, says] of [
      [
        first.cert,
        second.key,
        /^berth: BERTH_TLS_KEY: .*second\.key is not the key of the certificate in .*first\.crt\.\n$/,
      ],
      [first.cert, encrypted, /^berth: BERTH_TLS_KEY: .* is encrypted; .*\.\n$/],
      [first.cert, garbage, /^berth: BERTH_TLS_KEY: .* holds no private key in PEM\.\n$/],
      [garbage, first.key, /^berth: BERTH_TLS_CERT: .* holds no certificate in PEM\.\n$/],
      [first.cert, join(folder, 'nowhere'), /^berth: BERTH_TLS_KEY: .* cannot be read: ENOENT[^\n]*\.\n$/],
    ] as const) {
      const data = { BERTH_DATA_DIR: join(folder, 'd'), BERTH_RUN_DIR: join(folder, 'r'), BERTH_PORT: '0' };
      const run = () =>
        execFileSync(process.execPath, [SERVER], {
          env: { PATH: process.env.PATH, ...data, BERTH_TLS_CERT: cert, BERTH_TLS_KEY: key },
          stdio: 'pipe',
        });
      assert.throws(run, (err: { stderr: Buffer }) => {
        assert.match(err.stderr.toString(), says);
        return true;
      });
    }
  });
});

async function created(service: Service): Promise<{ cdpUrl: string; sandboxId: string }> {
  const { data } = JSON.parse(await ask(service, 'POST', '/sandboxes'));
  return data;
}

function ask(service: Service, method: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { method, rejectUnauthorized: false, headers: { 'x-api-key': KEY }, agent: false };
    const req = request(service.url + path, options, (res) => {
      let text = '';
      res.on('data', (chunk) => (text += chunk));
      res.once('end', () => resolve(text));
    });
    req.once('error', reject);
    req.end();
  });
}
