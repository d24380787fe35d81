import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { Harness, Pair } from './websocket-gateway.ts';
import type { Cut, Message, Peer } from './websocket-peer.ts';

/** Where a front's library reads the client's frames in a way of its own, which is not ours to mend. */
export interface Quirks {
  /** A frame without a mask is read as if it had one: its first four bytes are the mask, and as many more belong to it. */
  readonly readsUnmasked?: boolean;
  /** A binary frame within a message is read as the next fragment, and ends the message when it is a whole one. */
  readonly joinsBinary?: boolean;
  /** Close codes that RFC 6455 allows and that are taken for illegal. */
  readonly refusedCodes?: readonly number[];
}

/** A front under test. The harness is there once the tests run. */
export interface Suite {
  readonly harness: () => Harness;
  readonly quirks: Quirks;
}

type Case = (from: Peer, to: Peer, pair: Pair) => Promise<void>;

/** A test on a connection of its own, with the client sending. */
export function fromClient(suite: Suite, what: string, use: Case): void {
  it(`${what}, client to browser`, () => suite.harness().with((pair) => use(pair.client, pair.browser, pair)));
}

/** A test on a connection of its own, with the browser sending. */
export function fromBrowser(suite: Suite, what: string, use: Case): void {
  it(`${what}, browser to client`, () => suite.harness().with((pair) => use(pair.browser, pair.client, pair)));
}

/** Two tests: the same in both directions. */
export function bothWays(suite: Suite, what: string, use: Case): void {
  fromClient(suite, what, use);
  fromBrowser(suite, what, use);
}

export function text(data: string | Buffer): Message {
  return { binary: false, data: Buffer.from(data as string) };
}

export function binary(data: string | Buffer): Message {
  return { binary: true, data: Buffer.from(data as string) };
}

/** Bytes, or as text ASCII, that do not repeat within what one read takes. */
export function content(length: number, isBinary: boolean): Buffer {
  const data = Buffer.alloc(length);
  for (let i = 0; i < length; i++) data[i] = isBinary ? i * 7 + (i >> 8) : 0x20 + ((i * 7 + (i >> 6)) % 0x5f);
  return data;
}

/** Compares what came with what was sent, without printing a megabyte. */
export function same(got: readonly Message[], wanted: readonly Message[], why = ''): void {
  const shape = (all: readonly Message[]) => all.map((m) => `${m.binary ? 'binary' : 'text'} ${m.data.length}`);
  assert.deepEqual(shape(got), shape(wanted), why);
  const wrong = got.findIndex(({ data }, i) => !data.equals(wanted[i]?.data as Buffer));
  assert.equal(wrong, -1, `message ${wrong} is not what was sent ${why}`);
}

/** Writes, and expects these messages on the other side and nothing else: the connection is as good as before. */
export async function passes(from: Peer, to: Peer, bytes: Uint8Array, wanted: Message[], cut?: Cut): Promise<void> {
  await from.write(bytes, cut);
  await from.write(Buffer.concat(from.message(false, 'still there')));
  const all = [...wanted, text('still there')];
  same(await to.received(all.length), all, String(to));
}

/** Neither of these bytes nor of a good message right behind them does anything reach the other side, and both sides are ended. */
export async function refused(
  from: Peer,
  to: Peer,
  bytes: Uint8Array,
  cut?: Cut,
  before: Message[] = [],
): Promise<void> {
  await from.write(Buffer.concat([bytes, ...from.message(false, 'after')]), cut);
  await from.atEnd();
  await to.atEnd();
  same(to.messages, before, String(to));
  // A close frame that says so is better, but an endpoint may cut the connection instead (RFC 6455 section 7.1.7).
  for (const peer of [from, to]) assert.notEqual(peer.close?.code, 1000, `nobody is told that all was well: ${peer}`);
}
