import assert from 'node:assert/strict';
import { describe } from 'node:test';
import {
  binary,
  bothWays,
  content,
  fromBrowser,
  fromClient,
  passes,
  refused,
  type Suite,
  same,
  text,
} from './websocket-legs.ts';
import { closePayload, OP, type Peer, turn } from './websocket-peer.ts';

const LEGAL = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
const ILLEGAL = [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535];
const REASONS: [string, string][] = [
  ['without a reason', ''],
  ['with a reason', 'bye'],
  ['with a reason of 123 bytes', `${'ü€😀'.repeat(13)}${'.'.repeat(6)}`],
];

export function reservedBits(suite: Suite): void {
  const kinds = [
    ['text', OP.text, 'no'],
    ['binary', OP.binary, 'no'],
    ['ping', OP.ping, 'no'],
    ['pong', OP.pong, ''],
    ['close', OP.close, closePayload(1000)],
  ] as const;
  for (const rsv of [1, 2, 3, 4, 5, 6, 7]) {
    for (const [what, opcode, payload] of kinds) {
      bothWays(suite, `bits ${rsv} of a ${what} frame`, (from, to) =>
        refused(from, to, from.frame({ opcode, rsv, payload })),
      );
    }
    bothWays(suite, `bits ${rsv} of a continuation`, (from, to) => {
      const [first] = from.message(false, 'begun, no end', 5) as [Buffer];
      return refused(from, to, Buffer.concat([first, from.frame({ opcode: OP.continuation, rsv, payload: 'x' })]), 1);
    });
    bothWays(suite, `bits ${rsv} behind a good message, which arrives`, (from, to) => {
      const frames = [...from.message(false, 'good'), from.frame({ opcode: OP.text, rsv, payload: 'bad' })];
      return refused(from, to, Buffer.concat(frames), 'whole', [text('good')]);
    });
  }
}

export function reservedOpcodes(suite: Suite): void {
  for (const opcode of [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) {
    const ways = [
      ['empty', '', 'whole'],
      ['with bytes', 'no', 'whole'],
      ['byte by byte', 'no', 1],
    ] as const;
    for (const [how, payload, cut] of ways) {
      bothWays(suite, `opcode ${opcode} ${how}`, (from, to) => refused(from, to, from.frame({ opcode, payload }), cut));
    }
    bothWays(suite, `opcode ${opcode} within a message`, (from, to) => {
      const [first] = from.message(false, 'begun, no end', 5) as [Buffer];
      return refused(from, to, Buffer.concat([first, from.frame({ opcode })]));
    });
    bothWays(suite, `opcode ${opcode} behind a good message, which arrives`, (from, to) =>
      refused(from, to, Buffer.concat([...from.message(true, 'good'), from.frame({ opcode })]), 1, [binary('good')]),
    );
  }
}

export function closing(suite: Suite): void {
  for (const code of LEGAL) {
    for (const [how, reason] of REASONS) {
      const closes = async (from: Peer, to: Peer): Promise<void> => {
        await from.sendClose(closePayload(code, reason));
        await from.atEnd();
        await to.atEnd();
        assert.deepEqual(to.close, { code, reason });
        assert.equal(from.close?.code, code, 'the close frame is answered with its own code');
      };
      if (suite.quirks.refusedCodes?.includes(code)) {
        fromClient(suite, `code ${code} ${how} is refused by this front`, (from, to) =>
          refused(from, to, from.frame({ opcode: OP.close, payload: closePayload(code, reason) })),
        );
      } else fromClient(suite, `code ${code} ${how} is passed on`, closes);
      fromBrowser(suite, `code ${code} ${how} is passed on`, closes);
    }
  }
  bothWays(suite, 'a close without a code is passed on as one', async (from, to) => {
    await from.sendClose();
    await from.atEnd();
    await to.atEnd();
    assert.deepEqual([to.close?.code, from.close?.code], [1005, 1005]);
  });
  describe('what is refused', () => refusedCloses(suite));
  describe('the end of the other side', () => ends(suite));
}

function refusedCloses(suite: Suite): void {
  const cases: [string, Buffer][] = [
    ...ILLEGAL.map((code): [string, Buffer] => [`code ${code}`, closePayload(code)]),
    ['code 999 with a reason', closePayload(999, 'bye')],
    ['one byte', Buffer.from([3])],
    ['a reason that is no UTF-8', closePayload(1000, Buffer.from([0x61, 0xff]))],
    ['a reason that ends within a character', closePayload(1000, Buffer.from([0x61, 0xf0, 0x9f, 0x98]))],
    ['126 bytes', closePayload(1000, 'x'.repeat(124))],
    ['65,536 bytes', closePayload(1000, 'x'.repeat(65_534))],
  ];
  for (const [what, payload] of cases) {
    for (const cut of ['whole', 1] as const) {
      if (cut === 1 && payload.length > 1000) continue;
      bothWays(suite, `${what} in pieces of ${cut}`, (from, to) =>
        refused(from, to, from.frame({ opcode: OP.close, payload }), cut),
      );
    }
  }
}

function ends(suite: Suite): void {
  const behind: [string, (from: Peer) => Buffer[]][] = [
    ['a message', (from) => from.message(false, 'late')],
    [
      'a message and another close',
      (from) => [...from.message(false, 'late'), from.frame({ opcode: OP.close, payload: closePayload(4321) })],
    ],
    ['the rest of a message', (from) => [from.frame({ opcode: OP.continuation, payload: 'late' })]],
    ['a broken frame', (from) => [from.frame({ opcode: 3, rsv: 7 })]],
    ['a ping', (from) => [from.frame({ opcode: OP.ping, payload: 'late' })]],
  ];
  for (const [what, frames] of behind) {
    for (const cut of ['whole', 1] as const) {
      bothWays(suite, `${what} behind a close, in pieces of ${cut}, is not heard`, async (from, to) => {
        const before = what === 'the rest of a message' ? from.message(false, 'begun, ', 7).slice(0, 1) : [];
        const close = from.frame({ opcode: OP.close, payload: closePayload(1001, 'gone') });
        await from.write(Buffer.concat([...from.message(true, 'before'), ...before, close, ...frames(from)]), cut);
        await from.atEnd();
        await to.atEnd();
        same(to.messages, [binary('before')]);
        assert.deepEqual(to.close, { code: 1001, reason: 'gone' });
        assert.deepEqual(from.pongs, []);
      });
    }
  }
  bothWays(suite, 'a close between two fragments is passed on', async (from, to) => {
    await from.write(Buffer.concat([...from.message(false, 'begun, no end', 5).slice(0, 1)]));
    await from.sendClose(closePayload(1001, 'gone'));
    await from.atEnd();
    await to.atEnd();
    assert.deepEqual(to.close, { code: 1001, reason: 'gone' });
    same(to.messages, []);
  });
  bothWays(suite, 'all that was sent before a close arrives before it', async (from, to) => {
    const data = content(700_000, true);
    await from.write(Buffer.concat([...from.message(true, data), ...from.message(false, 'last')]));
    await from.sendClose(closePayload(1000, 'done'));
    await to.atEnd();
    same(to.messages, [binary(data), text('last')]);
    assert.deepEqual(to.close, { code: 1000, reason: 'done' });
  });
  bothWays(suite, 'messages go the other way until the close', async (from, to) => {
    await passes(to, from, Buffer.concat(to.message(false, 'before')), [text('before')]);
    to.answersClose = false;
    await from.sendClose(closePayload(1000));
    await to.until(() => to.close !== undefined, 'the close');
    await to.write(Buffer.concat(to.message(false, 'too late')));
    await to.sendClose(closePayload(1000));
    await from.atEnd();
    assert.equal(from.messages.length, 2);
  });
  fromClient(
    suite,
    'what the browser sends behind the close of a client that keeps its socket open is not heard',
    async (from, to) => {
      from.socket.allowHalfOpen = true;
      await from.sendClose(closePayload(1000));
      await from.until(() => from.close !== undefined, 'the close');
      await to.write(Buffer.concat(to.message(false, 'late')));
      // Time for it to come through; a frame behind the close frame is a fault that every test looks for in the end.
      for (let i = 0; i < 20; i++) await turn();
      from.socket.end();
      await to.atEnd();
      same(from.messages, []);
    },
  );
  const cuts: [string, (from: Peer) => void][] = [
    ['ends its connection', (from) => from.socket.end()],
    ['resets its connection', (from) => from.socket.resetAndDestroy()],
  ];
  const parts: [string, (from: Peer) => Buffer][] = [
    ['between messages', () => Buffer.alloc(0)],
    ['within a header', (from) => from.frame({ opcode: OP.text, payload: content(300, false) }).subarray(0, 3)],
    ['within a payload', (from) => from.frame({ opcode: OP.text, payload: content(300, false) }).subarray(0, 200)],
    ['within a message', (from) => from.message(false, content(300, false), 100)[0] as Buffer],
    ['within a ping', (from) => from.frame({ opcode: OP.ping, payload: 'ping' }).subarray(0, 3)],
  ];
  for (const [how, cut] of cuts) {
    for (const [where, part] of parts) {
      const goes = async (from: Peer, to: Peer): Promise<void> => {
        await passes(from, to, Buffer.alloc(0), []);
        await from.write(part(from));
        cut(from);
        await to.atEnd();
        assert.equal(to.messages.length, 1, 'what was not ended is no message');
      };
      fromClient(suite, `one that ${how} ${where}: a close frame without a code`, async (from, to) => {
        await goes(from, to);
        // The library gives 1006, which may not stand on the wire (RFC 6455 section 7.4.1).
        assert.equal(to.close?.code, 1005);
      });
      fromBrowser(suite, `one that ${how} ${where}: 1011 and a reason`, async (from, to) => {
        await goes(from, to);
        assert.equal(to.close?.code, 1011);
        assert.match(to.close?.reason ?? '', /browser has gone/);
      });
    }
  }
  bothWays(suite, 'both closing at once end with one close frame each', async (from, to) => {
    await Promise.all([from.sendClose(closePayload(1000, 'mine')), to.sendClose(closePayload(1001, 'theirs'))]);
    await from.atEnd();
    await to.atEnd();
    // The first to come is the one that counts, also for whoever came second.
    for (const peer of [from, to]) assert.ok(['mine', 'theirs'].includes(peer.close?.reason ?? ''), String(peer));
  });
}

export function masks(suite: Suite): void {
  const keys = ['00000000', 'ffffffff', '01010101', '37fa213d', '00ff00ff', 'ff000000', '000000ff', '80818283'];
  for (const key of keys) {
    const mask = Buffer.from(key, 'hex');
    for (const cut of ['whole', 1, 5] as const) {
      fromClient(suite, `the key ${key} in pieces of ${cut}`, async (from, to) => {
        const lengths = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 125, 126, 300, ...(cut === 'whole' ? [65_536] : [])];
        const all = lengths.map((length) => binary(content(length, true)));
        const frames = all.map(({ data }) => from.frame({ opcode: OP.binary, payload: data, mask }));
        const ping = from.frame({ opcode: OP.ping, payload: 'masked', mask });
        await passes(from, to, Buffer.concat([...frames, ping]), all, cut);
        await from.until(() => from.pongs.length > 0, 'the pong');
        assert.equal(String(from.pongs[0]), 'masked');
      });
    }
    fromClient(suite, `a close frame with the key ${key}`, async (from, to) => {
      await from.send({ opcode: OP.close, payload: closePayload(1001, 'masked'), mask });
      await to.atEnd();
      assert.deepEqual(to.close, { code: 1001, reason: 'masked' });
    });
    fromBrowser(suite, `a frame of the browser with the key ${key} is refused`, (from, to) =>
      refused(from, to, from.frame({ opcode: OP.text, payload: 'masked', mask })),
    );
  }
  fromClient(suite, 'a message whose fragments have keys of their own', async (from, to) => {
    const data = content(800, true);
    const frames = keys.map((key, i) =>
      from.frame({
        opcode: i === 0 ? OP.binary : OP.continuation,
        payload: data.subarray(i * 100, i * 100 + 100),
        fin: i === keys.length - 1,
        mask: Buffer.from(key, 'hex'),
      }),
    );
    await passes(from, to, Buffer.concat(frames), [binary(data)], 7);
  });
  for (const [what, opcode] of Object.entries(OP)) {
    const payload = opcode === OP.close ? closePayload(1000) : 'x';
    fromBrowser(suite, `a masked ${what} frame is refused`, (from, to) =>
      refused(from, to, from.frame({ opcode, payload, mask: Buffer.alloc(4) })),
    );
    if (suite.quirks.readsUnmasked) continue;
    fromClient(suite, `an unmasked ${what} frame is refused`, (from, to) =>
      refused(from, to, from.frame({ opcode, payload, mask: null })),
    );
  }
  if (suite.quirks.readsUnmasked) {
    fromClient(suite, 'an unmasked frame is read as a masked one by this front', (from, to) => {
      const frame = from.frame({ opcode: OP.binary, payload: 'aaaa', mask: null });
      return passes(from, to, Buffer.concat([frame, Buffer.from('bbbb')]), [binary('\x03\x03\x03\x03')]);
    });
  }
}
