import assert from 'node:assert/strict';
import {
  binary,
  bothWays,
  content,
  fromBrowser,
  fromClient,
  passes,
  refused,
  type Suite,
  text,
} from './websocket-legs.ts';
import { type Cut, closePayload, OP, type Peer } from './websocket-peer.ts';

const MIB = 1024 * 1024;

export function framing(suite: Suite): void {
  for (const isBinary of [false, true]) {
    const kind = isBinary ? 'binary' : 'text';
    for (const length of [0, 1, 125, 126, 127, 128, 65_535, 65_536, MIB]) {
      const data = content(length, isBinary);
      const wanted = [{ binary: isBinary, data }];
      const cuts: Cut[] = [
        'whole',
        ...(length < 1000 ? [1, 2, 3, 7] : length < MIB ? [997, 16_384] : [16_381, 65_539]),
      ];
      for (const cut of cuts) {
        bothWays(suite, `${kind} of ${length} bytes in pieces of ${cut}`, (from, to) =>
          passes(from, to, Buffer.concat(from.message(isBinary, data)), wanted, cut),
        );
      }
    }
  }
  const lengths = [0, 3, 126, 0, 5000, 125, 65_536, 1, 65_535, 127, 0];
  const all = lengths.map((length, i) => ({ binary: i % 2 === 0, data: content(length, i % 2 === 0) }));
  for (const cut of ['whole', 101, 1021, 65_537] as const) {
    bothWays(suite, `messages of every length form behind each other in pieces of ${cut}`, (from, to) => {
      const frames = all.flatMap((message) => from.message(message.binary, message.data));
      return passes(from, to, Buffer.concat(frames), all, cut);
    });
  }
  bothWays(suite, '5000 small messages in one write', (from, to) => {
    const many = Array.from({ length: 5000 }, (_, i) => text(`{"id":${i}}`));
    return passes(from, to, Buffer.concat(many.flatMap(({ data }) => from.message(false, data))), many);
  });
  for (const length of [1n << 63n, (1n << 64n) - 1n, 1n << 53n, 1n << 32n]) {
    bothWays(suite, `a frame that says it has ${length} bytes is refused`, (from, to) =>
      refused(from, to, from.frame({ opcode: OP.binary, length })),
    );
  }
}

export function pings(suite: Suite): void {
  const answered = async (from: Peer, to: Peer, wanted: readonly Buffer[]): Promise<void> => {
    await from.until(() => from.pongs.length >= wanted.length || from.ended, `${wanted.length} pongs`);
    assert.deepEqual(from.pongs, wanted);
    assert.deepEqual([to.pings, to.pongs, to.messages], [[], [], []], 'the other side hears nothing of it');
  };
  const payloads = Array.from({ length: 126 }, (_, i) => content(i, true));
  for (const cut of ['whole', 1, 17] as const) {
    bothWays(suite, `payloads of 0 to 125 bytes in pieces of ${cut} are answered with the same`, async (from, to) => {
      await from.write(Buffer.concat(payloads.map((payload) => from.frame({ opcode: OP.ping, payload }))), cut);
      await answered(from, to, payloads);
    });
  }
  for (const length of [126, 1000, 65_536]) {
    for (const [what, opcode] of [
      ['ping', OP.ping],
      ['pong', OP.pong],
    ] as const) {
      bothWays(suite, `a ${what} of ${length} bytes is refused`, async (from, to) => {
        await refused(from, to, from.frame({ opcode, payload: content(length, true) }));
        assert.deepEqual(from.pongs, []);
      });
    }
  }
  bothWays(suite, 'pongs that nobody asked for are ignored', async (from, to) => {
    const pongs = ['', 'x', content(125, true)].map((payload) => from.frame({ opcode: OP.pong, payload }));
    await passes(from, to, Buffer.concat(pongs), []);
    assert.deepEqual([from.pongs, from.pings, to.pongs, to.pings], [[], [], [], []]);
  });
  bothWays(suite, 'a thousand pings in one write are answered in order', async (from, to) => {
    const many = Array.from({ length: 1000 }, (_, i) => Buffer.from(`ping ${i}`));
    await from.write(Buffer.concat(many.map((payload) => from.frame({ opcode: OP.ping, payload }))));
    await answered(from, to, many);
  });
  bothWays(suite, 'a ping between two fragments is answered before the message ends', async (from, to) => {
    const [first, second] = from.message(false, 'one message', 4) as [Buffer, Buffer];
    await from.write(Buffer.concat([first, from.frame({ opcode: OP.ping, payload: 'between' })]));
    await answered(from, to, [Buffer.from('between')]);
    await passes(from, to, second, [text('one message')]);
  });
  bothWays(suite, 'a ping while a message of the other side is on its way is answered', async (from, to) => {
    const [first, second] = to.message(true, content(200_000, true), 100_000) as [Buffer, Buffer];
    await to.write(first);
    await from.send({ opcode: OP.ping, payload: 'meanwhile' });
    await answered(from, to, [Buffer.from('meanwhile')]);
    await passes(to, from, second, [binary(content(200_000, true))]);
  });
}

export function fragmentation(suite: Suite): void {
  const data = content(600, false);
  const ways: [string, number[]][] = [
    ['2 fragments', [300]],
    ['an empty first one', [0]],
    ['an empty last one', [600]],
    ['empty ones at both ends and within', [0, 0, 10, 0, 0, 590, 0]],
    ['125, 126 and 127 bytes', [125, 126, 127]],
    ['one for each byte', Array(599).fill(1)],
  ];
  for (const [what, cuts] of ways) {
    for (const cut of ['whole', 1, 61] as const) {
      for (const isBinary of [false, true]) {
        bothWays(suite, `a ${isBinary ? 'binary' : 'text'} in fragments, ${what}, in pieces of ${cut}`, (from, to) =>
          passes(from, to, Buffer.concat(from.message(isBinary, data, ...cuts)), [{ binary: isBinary, data }], cut),
        );
      }
    }
  }
  bothWays(suite, 'nothing but empty fragments is an empty message', (from, to) =>
    passes(from, to, Buffer.concat(from.message(true, '', 0, 0, 0)), [binary('')]),
  );
  bothWays(suite, 'pings and pongs between all fragments', async (from, to) => {
    const ping = from.frame({ opcode: OP.ping, payload: 'p' });
    const pong = from.frame({ opcode: OP.pong, payload: 'q' });
    const frames = from.message(false, data, ...Array(10).fill(59)).flatMap((frame) => [ping, frame, pong]);
    await passes(from, to, Buffer.concat(frames), [text(data)]);
    await from.until(() => from.pongs.length === 11, 'the pongs');
  });
  bothWays(suite, '40,000 fragments in one write', (from, to) => {
    const many = content(40_000, true);
    return passes(from, to, Buffer.concat(from.message(true, many, ...Array(39_999).fill(1))), [binary(many)]);
  });
  fromBrowser(suite, 'a fragment is passed on before the next one is there', async (from, to) => {
    const [first, second] = from.message(true, content(5000, true), 4000) as [Buffer, Buffer];
    await from.write(first);
    await to.until(() => to.socket.bytesRead > 4000, 'the first fragment');
    await passes(from, to, second, [binary(content(5000, true))]);
  });

  const more = (from: Peer, fin: boolean): Buffer => from.frame({ opcode: OP.continuation, payload: 'x', fin });
  const begun = (from: Peer, opcode: number): Buffer => from.frame({ opcode, payload: 'begun', fin: false });
  const broken: [string, (from: Peer) => Buffer[]][] = [
    ['a continuation of nothing', (from) => [more(from, true)]],
    ['a continuation of nothing that is to go on', (from) => [more(from, false)]],
    ['a continuation of nothing, then its end', (from) => [more(from, false), more(from, true)]],
    ['a text within a text', (from) => [begun(from, OP.text)]],
    ['a text within a binary', (from) => [begun(from, OP.binary)]],
    ['a text that begins within a text', (from) => [begun(from, OP.text), begun(from, OP.text), more(from, true)]],
    ['a binary within a text', (from) => [begun(from, OP.text), ...from.message(true, 'new'), more(from, true)]],
    ['a binary within a binary', (from) => [begun(from, OP.binary), ...from.message(true, 'new')]],
    ['a ping in fragments', (from) => [from.frame({ opcode: OP.ping, fin: false }), more(from, true)]],
    ['a pong in fragments', (from) => [from.frame({ opcode: OP.pong, fin: false, payload: 'x' }), more(from, true)]],
    ['a close in fragments', (from) => [from.frame({ opcode: OP.close, fin: false, payload: closePayload(1000) })]],
    [
      'a ping in fragments within a message',
      (from) => [begun(from, OP.text), from.frame({ opcode: OP.ping, fin: false })],
    ],
  ];
  for (const [what, frames] of broken) {
    for (const cut of ['whole', 1] as const) {
      const isRefused = (from: Peer, to: Peer) => refused(from, to, Buffer.concat(frames(from)), cut);
      const name = `${what} in pieces of ${cut} is refused`;
      if (!(suite.quirks.joinsBinary && what.startsWith('a binary within'))) fromClient(suite, name, isRefused);
      fromBrowser(suite, name, isRefused);
    }
  }
  if (suite.quirks.joinsBinary) {
    fromClient(suite, 'a binary within a text is read as its end by this front', (from, to) =>
      passes(from, to, Buffer.concat([begun(from, OP.text), ...from.message(true, ' new')]), [binary('begun new')]),
    );
  }
  bothWays(suite, 'a continuation behind a whole message is refused, and the message arrives', (from, to) =>
    refused(from, to, Buffer.concat([...from.message(false, 'whole'), more(from, true)]), 'whole', [text('whole')]),
  );
}

export function utf8(suite: Suite): void {
  const good: [string, string][] = [
    ['two, three and four bytes', 'κόσμε € 😀 ~ é'],
    ['the first and last of each length', '\u0000\u007f\u0080\u07ff\u0800\uffff\u{10000}\u{10ffff}'],
    ['around the surrogates, a BOM and what is no character', '\ufeff\ud7ff\ue000\ufffd\ufffe\u{1fffe}'],
  ];
  for (const [what, sample] of good) {
    const bytes = Buffer.from(sample);
    const cuts: [string, number[], Cut][] = [
      ['whole', [], 'whole'],
      ['read byte by byte', [], 1],
      ['a fragment a byte', Array(bytes.length - 1).fill(1), 'whole'],
      ['a fragment a byte, read byte by byte', Array(bytes.length - 1).fill(1), 1],
    ];
    for (const [how, fragments, cut] of cuts) {
      bothWays(suite, `${what}, ${how}`, (from, to) =>
        passes(from, to, Buffer.concat(from.message(false, bytes, ...fragments)), [text(bytes)], cut),
      );
    }
  }
  for (const [at, ping] of [1, 2, 3].flatMap((n) => [[n, false] as const, [n, true] as const])) {
    bothWays(suite, `a character split behind byte ${at}${ping ? ' with a ping between' : ''}`, (from, to) => {
      const [first, second] = from.message(false, '😀', at) as [Buffer, Buffer];
      const between = ping ? [from.frame({ opcode: OP.ping })] : [];
      return passes(from, to, Buffer.concat([first, ...between, second]), [text('😀')]);
    });
  }
  const bad: [string, number[]][] = [
    ['a continuation byte alone', [0x80]],
    ['a byte that never occurs', [0x61, 0xff, 0x61]],
    ['an overlong slash', [0xc0, 0xaf]],
    ['an overlong NUL of three bytes', [0xe0, 0x80, 0x80]],
    ['an overlong of four bytes', [0xf0, 0x8f, 0xbf, 0xbf]],
    ['half a surrogate pair', [0xed, 0xa0, 0x80]],
    ['a surrogate pair', [0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80]],
    ['a point over U+10FFFF', [0xf4, 0x90, 0x80, 0x80]],
    ['five bytes', [0xf8, 0x88, 0x80, 0x80, 0x80]],
    ['an end within a character', [0x61, 0xf0, 0x9f, 0x98]],
    ['a character broken off by another', [0xe2, 0x82, 0x61]],
    ['a fault behind 64 good bytes', [...Array(64).fill(0x61), 0xc1, 0x81]],
  ];
  for (const [what, bytes] of bad) {
    const data = Buffer.from(bytes);
    for (const [how, cuts] of [
      ['whole', []],
      ['a fragment a byte', Array(data.length - 1).fill(1)],
    ] as const) {
      fromClient(suite, `${what}, ${how}, is refused`, (from, to) =>
        refused(from, to, Buffer.concat(from.message(false, data, ...cuts))),
      );
      fromBrowser(suite, `${what}, ${how}, is passed on as it is`, (from, to) =>
        passes(from, to, Buffer.concat(from.message(false, data, ...cuts)), [text(data)]),
      );
    }
    bothWays(suite, `${what} in a binary message is nobody's concern`, (from, to) =>
      passes(from, to, Buffer.concat(from.message(true, data)), [binary(data)]),
    );
  }
}
