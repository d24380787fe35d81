import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { LIMIT, withService } from '../service.ts';
import { withRaw } from '../sockets.ts';

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
const PACKAGE = 'uWebSockets.js';

describe('An installation whose uWebSockets.js has no binary for this Node and platform', () => {
  let copy: string;

  before(() => {
    copy = mkdtempSync(join(tmpdir(), 'bt-front-'));
    for (const part of ['package.json', 'openapi.yaml', 'dist/src', 'dist/cmd']) {
      cpSync(join(ROOT, part), join(copy, part), { recursive: true });
    }
    linkPackages(join(ROOT, 'node_modules'), join(copy, 'node_modules'));
  });

  after(() => rmSync(copy, { recursive: true, force: true }));

  it('serves all the same, with one warning that says why, and drives browsers', LIMIT, async () => {
    const program = join(copy, 'dist/cmd/server.js');
    await withService({ program, env: { BERTH_FRONT: 'auto' } }, async (service) => {
      const lines = service
        .log()
        .split('\n')
        .filter((line) => line.includes(PACKAGE));
      assert.equal(lines.length, 1, service.log());
      const { level, why } = JSON.parse(lines[0] as string);
      assert.equal(level, 40);
      assert.match(why, /Cannot find module '.*uws_.*\.node'/);
      assert.doesNotMatch(service.log(), /^(?!\{)./m, 'nothing but lines of the log');
      const { cdpUrl } = await service.client.create();
      await withRaw(cdpUrl as string, async (raw) => {
        assert.match((await raw.send('Browser.getVersion')).product, /^Chrome\//);
      });
    });
  });

  it('where the binary is there, no word is said about it', LIMIT, async () => {
    await withService({ env: { BERTH_FRONT: 'auto' } }, async (service) => {
      assert.ok(!service.log().includes(PACKAGE), service.log());
    });
  });
});

describe('The front on the ws package', () => {
  it('answers requests that offer another protocol as if they did not', LIMIT, async () => {
    await withService({ env: { BERTH_FRONT: 'ws' } }, async (service) => {
      const offer = { connection: 'Upgrade, HTTP2-Settings', upgrade: 'h2c', 'http2-settings': 'AAMAAABkAAQAAP__' };
      assert.deepEqual(await ask(service.url, 'GET', '/health', offer), { status: 200, code: undefined });
      // The body comes behind the offer, and the answer is to it.
      assert.deepEqual(await ask(service.url, 'POST', '/sandboxes', offer, '{"sandboxId":7}'), {
        status: 400,
        code: 1001,
      });
      assert.deepEqual(await ask(service.url, 'GET', '/sandboxes/x/ws/automation', offer), { status: 426, code: 1007 });
    });
  });
});

/** All packages where they are, and of this one all files but its binaries. */
function linkPackages(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(from)) {
    if (name !== PACKAGE) symlinkSync(join(from, name), join(to, name));
  }
  cpSync(join(from, PACKAGE), join(to, PACKAGE), {
    recursive: true,
    filter: (source) => !source.endsWith('.node'),
  });
}

function ask(
  url: string,
  method: string,
  path: string,
  headers: Readonly<Record<string, string>>,
  body = '',
): Promise<{ status: number | undefined; code: number | undefined }> {
  return new Promise((resolve, reject) => {
    const req = request(url + path, {
      method,
      agent: false,
      timeout: 20_000,
      headers: { ...headers, 'content-length': body.length },
    });
    req.once('error', reject);
    req.once('timeout', () => req.destroy(new Error(`${path} was not answered`)));
    req.once('response', (res) => {
      let text = '';
      res.on('data', (chunk) => (text += chunk));
      res.once('end', () => resolve({ status: res.statusCode, code: JSON.parse(text).code }));
    });
    req.end(body);
  });
}
