import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Random } from './random.ts';
import type { Pair } from './websocket-gateway.ts';
import { type Suite, same } from './websocket-legs.ts';
import { type Cut, closePayload, type Message, OP, type Peer } from './websocket-peer.ts';

const CONVERSATIONS = 300;
const AT_ONCE = 4;
/** No conversation begins later than this, in milliseconds: on a machine that is busy there are fewer. */
const BUDGET_MS = 6000;
const WRONG_BITS = 100;
const CLOSE_CODES = [1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 4000, 4999];

/** What one side says: bytes to write, and what they mean. */
interface Speech {
  readonly bytes: Buffer;
  readonly messages: readonly Message[];
  readonly pings: readonly Buffer[];
}

function speech(random: Random, from: Peer): Speech {
  const frames: Buffer[] = [];
  const messages: Message[] = [];
  const pings: Buffer[] = [];
  for (let count = random.below(12); count > 0; count--) {
    const binary = random.chance(0.5);
    const data = binary ? random.bytes(random.length()) : random.text(random.length());
    const cuts = random.chance(0.5)
      ? []
      : Array.from({ length: random.below(8) }, () => random.below(data.length + 1) >> 1);
    messages.push({ binary, data });
    for (const frame of from.message(binary, data, ...cuts)) {
      if (random.chance(0.2)) {
        const payload = random.bytes(random.below(126));
        pings.push(payload);
        frames.push(from.frame({ opcode: OP.ping, payload }));
      }
      if (random.chance(0.1)) frames.push(from.frame({ opcode: OP.pong, payload: random.bytes(random.below(126)) }));
      frames.push(frame);
    }
  }
  return { bytes: Buffer.concat(frames), messages, pings };
}

/** Some hundred pieces at most, so that a long speech does not take for ever. */
function cut(random: Random, length: number): Cut {
  const most = random.pick([1, 5, 100, 5000]) + (length >> random.pick([4, 6, 7]));
  return random.chance(0.1) ? 'whole' : () => 1 + Math.floor(random.next() ** 2 * most);
}

async function converse(random: Random, pair: Pair): Promise<void> {
  const { client, browser } = pair;
  const [ofClient, ofBrowser] = [speech(random, client), speech(random, browser)];
  // Each side has numbers of its own: in which order they take turns is not in our hand.
  const cuts = [ofClient, ofBrowser].map(({ bytes }) => cut(new Random(random.below(2 ** 32)), bytes.length));
  await Promise.all([client.write(ofClient.bytes, cuts[0]), browser.write(ofBrowser.bytes, cuts[1])]);
  const isWaiting = random.chance(0.7);
  const closer = random.pick(['client', 'browser'] as const);
  const [from, to, said] = closer === 'client' ? [client, browser, ofClient] : [browser, client, ofBrowser];
  if (isWaiting) await Promise.all([heard(client, ofClient, browser), heard(browser, ofBrowser, client)]);
  const code = random.pick(CLOSE_CODES);
  const reason = random.text(random.below(40)).toString();
  if (random.chance(0.8)) {
    await from.sendClose(closePayload(code, reason));
    await to.atEnd();
    assert.deepEqual(to.close, { code, reason });
    await from.atEnd();
  } else {
    from.socket.end();
    await to.atEnd();
    assert.equal(to.close?.code, closer === 'client' ? 1005 : 1011);
  }
  // What was said before the end is heard, whoever ended it and whether or not it was waited for.
  same(to.messages, said.messages);
  assert.deepEqual([to.pings, client.faults, browser.faults], [[], [], []]);
}

/** All that this side said has arrived, and its pings are answered. */
async function heard(from: Peer, said: Speech, to: Peer): Promise<void> {
  same(await to.received(said.messages.length), said.messages);
  await from.until(() => from.pongs.length >= said.pings.length || from.ended, 'the pongs');
  assert.deepEqual(from.pongs, said.pings);
}

export function conversations(suite: Suite): void {
  const seed = Number(process.env.BERTH_SEED ?? Math.floor(Math.random() * 2 ** 31));

  /** Each with a seed of its own, so that one that fails can be repeated alone: its seed as BERTH_SEED makes it the first. */
  const rounds = async (count: number, round: (random: Random) => Promise<void>): Promise<number> => {
    const deadline = performance.now() + BUDGET_MS;
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < count && performance.now() < deadline) {
        const own = seed + next++;
        await round(new Random(own)).catch((err: Error) => {
          err.message = `BERTH_SEED=${own}: ${err.message}`;
          throw err;
        });
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    return next;
  };

  it('what arrives is what was sent, however it was cut on both legs', async (t) => {
    const held = await rounds(CONVERSATIONS, (random) => suite.harness().with((pair) => converse(random, pair)));
    t.diagnostic(`BERTH_SEED=${seed}, ${held} conversations`);
  });

  it('a wrong bit anywhere breaks no more than its own connection', async (t) => {
    const held = await rounds(WRONG_BITS, (random) =>
      suite.harness().with(async (pair) => {
        const { client, browser } = pair;
        const from = random.pick([client, browser]);
        const { bytes } = speech(random, from);
        if (bytes.length > 0) (bytes[random.below(Math.min(bytes.length, 500))] as number) ^= 1 << random.below(8);
        await from.write(bytes, cut(random, bytes.length));
        from.socket.end();
        await Promise.all([client.atEnd(), browser.atEnd()]);
      }),
    );
    t.diagnostic(`BERTH_SEED=${seed}, ${held} connections`);
    await suite.harness().with((pair) => converse(new Random(seed), pair));
  });
}
