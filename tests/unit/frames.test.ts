import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { closePayload, FrameParser, maskedFrame, OPCODE, plainFrame } from '../../src/gateway/frames.ts';

interface Message {
  text: string;
  binary: boolean;
}

/** Collects what the parser hands on, putting messages together again as a client would. */
class Collector {
  readonly messages: Message[] = [];
  readonly controls: { opcode: number; payload: string }[] = [];
  readonly faults: { code: number; reason: string }[] = [];
  #parts: Buffer[] = [];

  chunk(data: Uint8Array, binary: boolean, first: boolean, last: boolean): void {
    assert.equal(
      first,
      this.#parts.length === 0 && !this.#open,
      'first marks the first chunk of a message and no other',
    );
    this.#open = !last;
    this.#parts.push(Buffer.from(data));
    if (!last) return;
    this.messages.push({ text: Buffer.concat(this.#parts).toString('latin1'), binary });
    this.#parts = [];
  }

  control(opcode: number, payload: Buffer): void {
    this.controls.push({ opcode, payload: payload.toString('latin1') });
  }

  fault(code: number, reason: string): void {
    this.faults.push({ code, reason });
  }

  #open = false;
}

/** A frame as a server sends it: not masked. */
function frame(opcode: number, payload: string, fin = true): Buffer {
  const body = Buffer.from(payload, 'latin1');
  const b0 = (fin ? 0x80 : 0) | opcode;
  if (body.length < 126) return Buffer.concat([Buffer.from([b0, body.length]), body]);
  const head = Buffer.alloc(body.length < 65_536 ? 4 : 10);
  head[0] = b0;
  if (head.length === 4) {
    head[1] = 126;
    head.writeUInt16BE(body.length, 2);
  } else {
    head[1] = 127;
    head.writeBigUInt64BE(BigInt(body.length), 2);
  }
  return Buffer.concat([head, body]);
}

/** The same bytes in every run: a failure can be repeated. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe('FrameParser', () => {
  it('puts messages of every length form together', () => {
    const lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 200_000];
    const seen = new Collector();
    const parser = new FrameParser(seen, 1e6);
    parser.push(Buffer.concat(lengths.map((n) => frame(OPCODE.text, 'x'.repeat(n)))));
    assert.deepEqual(
      seen.messages.map((m) => m.text.length),
      lengths,
    );
    assert.deepEqual(seen.faults, []);
  });

  it('reads the same whatever the splits, with control frames between fragments', () => {
    const next = random(7);
    for (let round = 0; round < 300; round++) {
      const wanted: Message[] = [];
      const controls: string[] = [];
      const bytes: Buffer[] = [];
      for (let m = 0; m < 5; m++) {
        const binary = next() < 0.5;
        const parts = Array.from({ length: 1 + Math.floor(next() * 4) }, () =>
          String.fromCharCode(97 + Math.floor(next() * 26)).repeat(Math.floor(next() ** 3 * 70_000)),
        );
        parts.forEach((part, i) => {
          bytes.push(
            frame(i > 0 ? OPCODE.continuation : binary ? OPCODE.binary : OPCODE.text, part, i === parts.length - 1),
          );
          if (next() < 0.4) {
            const payload = 'p'.repeat(Math.floor(next() * 126));
            controls.push(payload);
            bytes.push(frame(OPCODE.ping, payload));
          }
        });
        wanted.push({ text: parts.join(''), binary });
      }
      const seen = new Collector();
      const parser = new FrameParser(seen, 1e9);
      const stream = Buffer.concat(bytes);
      for (let at = 0; at < stream.length; ) {
        const take = next() < 0.3 ? 1 : 1 + Math.floor(next() * 5000);
        parser.push(stream.subarray(at, at + take));
        at += take;
      }
      assert.deepEqual(seen.messages, wanted, `round ${round}`);
      assert.deepEqual(
        seen.controls.map((c) => c.payload),
        controls,
        `round ${round}`,
      );
    }
  });

  it('hands long messages on in parts, holding nothing back', () => {
    const seen: number[] = [];
    const parser = new FrameParser({ chunk: (data) => seen.push(data.length), control() {}, fault() {} }, 1e6);
    const whole = frame(OPCODE.text, 'x'.repeat(100_000));
    parser.push(whole.subarray(0, 60_000));
    assert.deepEqual(seen, [59_990]);
    parser.push(whole.subarray(60_000));
    assert.deepEqual(seen, [59_990, 40_010]);
  });

  const broken: [string, Buffer, number][] = [
    ['a reserved bit', Buffer.from([0xc1, 0]), 1002],
    ['a masked frame', Buffer.from([0x81, 0x80]), 1002],
    ['an unknown data opcode', Buffer.from([0x83, 0]), 1002],
    ['an unknown control opcode', Buffer.from([0x8b, 0]), 1002],
    ['a control frame in fragments', Buffer.from([0x09, 0]), 1002],
    ['a control frame of 126 bytes', frame(OPCODE.ping, 'x'.repeat(126)), 1002],
    ['a continuation of nothing', frame(OPCODE.continuation, 'x'), 1002],
    ['a message inside a message', Buffer.concat([frame(OPCODE.text, 'x', false), frame(OPCODE.text, 'y')]), 1002],
    ['a message over the limit', frame(OPCODE.text, 'x'.repeat(1001)), 1009],
    ['a close code that may not be sent', Buffer.from([0x88, 2, 0x03, 0xe7]), 1002],
    ['a close frame of one byte', Buffer.from([0x88, 1, 3]), 1002],
    ['a close reason that is no UTF-8', Buffer.from([0x88, 3, 0x03, 0xe8, 0xff]), 1002],
    [
      'fragments that add up to more than the limit',
      Buffer.concat([frame(OPCODE.text, 'x'.repeat(600), false), frame(OPCODE.continuation, 'x'.repeat(600))]),
      1009,
    ],
  ];
  for (const [name, bytes, code] of broken) {
    it(`stops at ${name}`, () => {
      const seen = new Collector();
      const parser = new FrameParser(seen, 1000);
      parser.push(bytes);
      parser.push(frame(OPCODE.text, 'after'));
      assert.deepEqual(
        seen.faults.map((f) => f.code),
        [code],
      );
      assert.ok(!seen.messages.some((m) => m.text === 'after'), 'nothing follows a fault');
    });
  }

  it('hands nothing on behind a close frame, be it good or broken', () => {
    const seen = new Collector();
    const parser = new FrameParser(seen, 1000);
    const close = frame(OPCODE.close, '\x03\xe8bye');
    parser.push(Buffer.concat([frame(OPCODE.text, 'first'), close, frame(OPCODE.text, 'late'), close, frame(3, '')]));
    parser.push(frame(OPCODE.text, 'later'));
    assert.deepEqual(seen.messages, [{ text: 'first', binary: false }]);
    assert.deepEqual(seen.controls, [{ opcode: OPCODE.close, payload: '\x03\xe8bye' }]);
    assert.deepEqual(seen.faults, []);
  });

  it('survives any bytes', () => {
    const next = random(99);
    for (let round = 0; round < 2000; round++) {
      const seen = new Collector();
      const parser = new FrameParser(seen, 10_000);
      for (let i = 0; i < 5; i++)
        parser.push(Buffer.from(Array.from({ length: Math.floor(next() * 40) }, () => Math.floor(next() * 256))));
      assert.ok(seen.faults.length <= 1);
    }
  });
});

describe('maskedFrame', () => {
  it('is a masked frame that reads back as it was, in every length form', () => {
    for (const length of [0, 125, 126, 65_535, 65_536]) {
      const payload = Buffer.alloc(length, 'y');
      const bytes = maskedFrame(OPCODE.binary, payload);
      assert.equal(bytes[0], 0x82);
      assert.equal((bytes[1] as number) & 0x80, 0x80, 'clients must mask');
      const head = length < 126 ? 2 : length < 65_536 ? 4 : 10;
      assert.equal(bytes.readUInt32BE(head), 0, 'with the key that changes nothing');
      assert.ok(bytes.subarray(head + 4).equals(payload));
    }
  });
});

describe('closePayload', () => {
  it('carries code and reason within a control frame', () => {
    const payload = closePayload(1011, 'é'.repeat(200));
    assert.equal(payload.readUInt16BE(0), 1011);
    assert.ok(payload.length <= 125);
  });

  it('cuts a long reason between two characters', () => {
    for (const character of ['é', '€', '😀']) {
      for (let before = 0; before < 4; before++) {
        const reason = 'x'.repeat(before) + character.repeat(200);
        const payload = closePayload(1011, reason);
        assert.ok(payload.length > 121 && payload.length <= 125, `${payload.length} bytes`);
        assert.ok(reason.startsWith(payload.subarray(2).toString()), 'as much of it as there is room for');
      }
    }
    assert.equal(closePayload(1011, 'x'.repeat(121).concat('é')).length, 125);
  });

  it('is empty for codes that may not be sent', () => {
    for (const code of [0, 1005, 1006, 1015]) assert.equal(closePayload(code, 'x').length, 0);
  });
});

describe('plainFrame', () => {
  for (const length of [0, 125, 126, 65_535, 65_536]) {
    it(`frames ${length} bytes as the parser reads them, in new memory and in memory that was used before`, () => {
      const text = 'x'.repeat(length);
      for (const room of [undefined, new Uint8Array(length + 20).fill(0xff).buffer]) {
        const seen = new Collector();
        const parser = new FrameParser(seen, 100_000);
        parser.push(plainFrame(OPCODE.text, false, Buffer.from(text), room));
        parser.push(plainFrame(OPCODE.continuation, true, Buffer.from('end'), room));
        assert.deepEqual(seen.messages, [{ text: `${text}end`, binary: false }]);
        assert.deepEqual(seen.faults, []);
      }
    });
  }
});
