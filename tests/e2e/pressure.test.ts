/** What a side that stops reading costs, and how much one message may hold. The deadline of a slow client makes this file slow. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type WebSocket from 'ws';
import type { Sandbox } from '../../src/client/client.ts';
import { goesFirst, type Site, serveSite, signalPart } from './drivers.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';
import { openSocket, type Raw, withRaw } from './sockets.ts';

const MIB = 1024 * 1024;
/** A client must mask, but the key is its own business, and zero is the cheapest. */
const UNMASKED = { generateMask: (mask: Buffer) => mask.fill(0) };

let service: Service;
let site: Site;
let box: Sandbox;
/** Of the client that must notice nothing of what the others do. */
let bystander: Sandbox;

before(async () => {
  service = await startService();
  site = await serveSite((_req, res) => res.setHeader('content-type', 'text/html').end('<!doctype html>'));
  [box, bystander] = await Promise.all([service.client.create(), service.client.create()]);
}, LIMIT);

after(async () => {
  site?.close();
  await service.end();
}, LIMIT);

describe('A side that stops reading', () => {
  it(
    'Of a client that takes nothing 200 MB wait in the browser; after 30 s it is closed with a reason.',
    LIMIT,
    async () => {
      const socket = await openSocket(box.cdpUrl as string);
      const closed = closeOf(socket);
      const sessionId = await attach(socket, 'about:blank');
      await whileOthersWork(48 * MIB, async (trips) => {
        socket.pause();
        const params = { expression: `'x'.repeat(${8 * MIB})`, returnByValue: true };
        for (let id = 100; id < 125; id++)
          socket.send(JSON.stringify({ id, method: 'Runtime.evaluate', params, sessionId }));
        await trips(3);
        await waitFor(
          async () => (await service.client.get(box.sandboxId)).clients === 0,
          'the service to give the client up',
          90_000,
        );
      });
      // What waited for it, the reason last, is there for a few seconds more.
      socket.resume();
      assert.deepEqual(await closed, { code: 1008, reason: 'the client does not read what is sent to it' });
    },
  );

  it(
    'A browser that takes nothing gets at most 128 MiB ahead; then its client is closed with a reason.',
    LIMIT,
    async () => {
      let close = await flooded();
      for (let again = 2; again > 0 && TOO_BUSY.test(close.reason); again--) close = await flooded();
      assert.deepEqual(close, { code: 1008, reason: 'the browser does not read what is sent to it' });
    },
  );
});

/** Sends a browser that is frozen as much as it can; how that ends. */
async function flooded(): Promise<{ code: number; reason: string }> {
  const victim = await service.client.create();
  const socket = await openSocket(victim.cdpUrl as string, [], UNMASKED);
  const closed = closeOf(socket);
  await signalPart(service, victim.sandboxId, 'chromium', 'SIGSTOP');
  // The queue, and as much again for what is on its way into it.
  await whileOthersWork(256 * MIB, async (trips) => {
    const message = Buffer.alloc(4 * MIB, ' ');
    for (let i = 0; i < 64 && socket.readyState === socket.OPEN; i++) {
      await new Promise((resolve) => socket.send(message, { binary: false }, resolve));
      if (i === 16) await trips(3);
    }
    await closed;
  });
  await service.client.delete(victim.sandboxId);
  return closed;
}

/** Why a browser is started again that has done nothing else for 10 s; on a busy machine that is not its fault. */
const TOO_BUSY = /the browser did not answer for 10 s/;

describe('One message', () => {
  it('of 256 MB from the browser arrives byte by byte.', LIMIT, async () => {
    const { data, sha256 } = await unlessTooBusy(async (socket) => {
      const sessionId = await attach(socket, `${site.url}/`);
      return makeText(socket, sessionId, 256_000_000);
    });
    const from = data.indexOf('"value":"') + 9;
    const text = data.subarray(from, from + 256_000_000);
    assert.equal(data[from + 256_000_000], 0x22, 'the text ends where it should');
    assert.equal(createHash('sha256').update(text).digest('hex'), sha256);
  });

  it('of 100 MB to the browser arrives byte by byte.', LIMIT, async () => {
    const text = randomText(100_000_000);
    const answer = await unlessTooBusy((socket) => digestInPage(socket, text));
    assert.equal(answer, createHash('sha256').update(text).digest('hex'));
  });

  it(
    'of more than 100 MiB to the browser closes its client with 1009 and a reason, and nobody else.',
    LIMIT,
    async () => {
      await withRaw(box.cdpUrl as string, async (other) => {
        const socket = await openSocket(box.cdpUrl as string, [], UNMASKED);
        const closed = closeOf(socket);
        socket.send(Buffer.alloc(100 * MIB + 1, ' '), { binary: false }, () => {});
        assert.deepEqual(await closed, { code: 1009, reason: 'a message to the browser may have 104857600 bytes' });
        assert.match((await other.send('Browser.getVersion')).product, /^Chrome/);
      });
    },
  );
});

/**
 * Chromium does nothing else while it reads or writes a message of this size. On a machine with much else to do that may be
 * more than the 10 s after which it is taken for hung and started again. So it goes first there, if we are allowed to say so, and
 * gets another try, twice at most, in a sandbox of its own: one whose browser was started again three times is given up.
 */
async function unlessTooBusy<T>(use: (socket: WebSocket) => Promise<T>, again = 2): Promise<T> {
  const own = await service.client.create();
  await goesFirst(service, own.sandboxId);
  const socket = await openSocket(own.cdpUrl as string, [], UNMASKED);
  try {
    return await use(socket);
  } catch (err) {
    if (again === 0 || !TOO_BUSY.test(String(err))) throw err;
  } finally {
    socket.terminate();
    await service.client.delete(own.sandboxId);
  }
  return unlessTooBusy(use, again - 1);
}

/**
 * Does something while another sandbox's client goes on with its round trips, and the service's memory is looked at: it
 * may grow by so many bytes. What is done may ask for some of those round trips before it goes on.
 */
async function whileOthersWork(
  mostBytes: number,
  use: (trips: (count: number) => Promise<void>) => Promise<void>,
): Promise<void> {
  const before = rss();
  let most = before;
  let trips = 0;
  const more = (count: number): Promise<void> => {
    const wanted = trips + count;
    return waitFor(() => trips >= wanted, `${count} round trips of another client`);
  };
  let over = false;
  await withRaw(bystander.cdpUrl as string, async (other: Raw) => {
    const work = async (): Promise<void> => {
      while (!over) {
        assert.match((await other.send('Browser.getVersion')).product, /^Chrome/);
        trips++;
        most = Math.max(most, rss());
        await sleep(20);
      }
    };
    const working = work();
    await Promise.race([use(more), working]).finally(() => {
      over = true;
    });
    await working;
  });
  const grown = Math.round((most - before) / MIB);
  assert.ok(most - before <= mostBytes, `the service has grown by ${grown} MiB`);
}

/** Resident memory of the service, in bytes. */
function rss(): number {
  const status = readFileSync(`/proc/${service.process.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) * 1024;
}

function closeOf(socket: WebSocket): Promise<{ code: number; reason: string }> {
  socket.on('error', () => {});
  return new Promise((resolve) => {
    socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() }));
  });
}

/** The message, as it came, that answers this call; looks only at its ends, since it may be huge. */
function answerTo(socket: WebSocket, id: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const onMessage = (data: Buffer): void => {
      if (!data.subarray(0, 64).includes(`{"id":${id},`)) return;
      socket.off('message', onMessage);
      resolve(data);
    };
    socket.on('message', onMessage);
    socket.once('close', (code, reason) => reject(new Error(`closed with ${code} "${reason}"`)));
  });
}

let lastId = 1000;

function call(socket: WebSocket, method: string, params: object, sessionId?: string): Promise<Buffer> {
  const id = ++lastId;
  const answer = answerTo(socket, id);
  socket.send(JSON.stringify({ id, method, params, sessionId }));
  return answer;
}

/** A page of its own for this client; its session. */
async function attach(socket: WebSocket, url: string): Promise<string> {
  const { targetId } = JSON.parse((await call(socket, 'Target.createTarget', { url })).toString()).result;
  const attached = await call(socket, 'Target.attachToTarget', { targetId, flatten: true });
  const { sessionId } = JSON.parse(attached.toString()).result;
  const secure = { expression: 'isSecureContext && document.readyState', returnByValue: true };
  if (url !== 'about:blank') {
    await waitFor(
      async () => (await call(socket, 'Runtime.evaluate', secure, sessionId)).includes('"complete"'),
      'the page to load',
    );
  }
  return sessionId;
}

/** In the page: the SHA-256 of a text of ASCII. */
const DIGEST = `async (text) => {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)));
  return [...hash].map((b) => b.toString(16).padStart(2, '0')).join('');
}`.replaceAll('\n', ' ');

/** Sends the page this text in one message; what the page says its SHA-256 is. */
async function digestInPage(socket: WebSocket, text: Uint8Array): Promise<string> {
  const sessionId = await attach(socket, `${site.url}/`);
  const head = `{"id":1,"sessionId":"${sessionId}","method":"Runtime.evaluate","params":{"expression":"(${DIGEST})('`;
  const tail = `')","awaitPromise":true,"returnByValue":true}}`;
  const answer = answerTo(socket, 1);
  socket.send(Buffer.concat([Buffer.from(head), text, Buffer.from(tail)]), { binary: false });
  return JSON.parse((await answer).toString()).result.result.value;
}

/** Has the page make so many bytes of text; the message that brings them, and what the page says their SHA-256 is. */
async function makeText(
  socket: WebSocket,
  sessionId: string,
  bytes: number,
): Promise<{ data: Buffer; sha256: string }> {
  const make = `(${randomText})(${bytes})`;
  const expression = `globalThis.text = new TextDecoder('ascii').decode(${make}); (${DIGEST})(text)`;
  const digest = await call(
    socket,
    'Runtime.evaluate',
    { expression, awaitPromise: true, returnByValue: true },
    sessionId,
  );
  const data = await call(socket, 'Runtime.evaluate', { expression: 'text', returnByValue: true }, sessionId);
  return { data, sha256: JSON.parse(digest.toString()).result.result.value };
}

/** Digits and capital letters, four at a time (xorshift), without a period that would hide a part in the wrong place. Runs in pages too. */
function randomText(bytes: number): Uint8Array {
  const words = new Uint32Array(bytes / 4);
  let state = 0x9e3779b9;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = (state & 0x07070707) + 0x30303030;
  }
  return new Uint8Array(words.buffer);
}
