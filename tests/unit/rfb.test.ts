import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MAX_FROM_VIEWER, RfbFilter, type Violation } from '../../src/gateway/rfb.ts';
import { Random } from '../contract/random.ts';

const BANNER = 'RFB 003.008\n';
const CUT_LIMIT = 256 * 1024;
const [EXTENDED_CLIPBOARD, EXTENDED_BUTTONS, QEMU_KEYS, XVP, ZRLE, CURSOR] = [
  0xc0a1e5ce | 0,
  -316,
  -258,
  -309,
  16,
  -239,
];

/** Numbers of one, two and four bytes, one after the other: `u8(1, 2)`. */
const u8 = (...values: number[]): Buffer => Buffer.from(values.map((value) => value & 0xff));
const u16 = (value: number): Buffer => u8(value >> 8, value);
const u32 = (value: number): Buffer => u8(value >>> 24, value >> 16, value >> 8, value);
const join = (...parts: Buffer[]): Buffer => Buffer.concat(parts);

const pixelFormat = join(u8(0, 0, 0, 0, 32, 24, 0, 1), u16(255), u16(255), u16(255), u8(16, 8, 0, 0, 0, 0));
const encodings = (...list: number[]): Buffer => Buffer.concat([u8(2, 0), u16(list.length), ...list.map(u32)]);
const updateRequest = join(u8(3, 1), u16(0), u16(0), u16(1280), u16(720));
const continuous = join(u8(150, 1), u16(0), u16(0), u16(1280), u16(720));
const fence = (length: number): Buffer => join(u8(248, 0, 0, 0), u32(0x80000000), u8(length), Buffer.alloc(length, 4));
const key = (down: number, symbol: number): Buffer => join(u8(4, down, 0, 0), u32(symbol));
const qemuKey = (down: number, symbol: number, code: number): Buffer =>
  join(u8(255, 0), u16(down), u32(symbol), u32(code));
const pointer = (mask: number, x: number, y: number): Buffer => join(u8(5, mask), u16(x), u16(y));
const cutText = (text: Buffer): Buffer => join(u8(6, 0, 0, 0), u32(text.length), text);
/** The extended clipboard: a length below 0. */
const extendedCut = (data: Buffer): Buffer => join(u8(6, 0, 0, 0), u32(-data.length), data);
const desktopSize = (screens: number): Buffer =>
  join(u8(251, 0), u16(800), u16(600), u8(screens, 0), Buffer.alloc(16 * screens, 5));

/** What only looks and what does something, one of each kind at least. */
const LOOKS = [pixelFormat, encodings(ZRLE, CURSOR), encodings(), updateRequest, continuous, fence(0), fence(64)];
const CONTROLS = [
  key(1, 0x61),
  key(0, 0x61),
  qemuKey(1, 0x61, 30),
  pointer(1, 10, 20),
  pointer(0xff, 10, 20),
  cutText(Buffer.from('\u0004\u0005\u0006')),
  cutText(Buffer.alloc(0)),
  extendedCut(Buffer.from('0400000104', 'hex')),
];
/** Nobody may: TigerVNC is set to refuse the one, and forgets the others. */
const NOBODYS = [desktopSize(1), desktopSize(255), fence(65), fence(255), cutText(Buffer.alloc(CUT_LIMIT + 1, 4))];
const START = join(Buffer.from(BANNER), u8(1, 1));

/** A filter, what has come out of it on either side, and why it ended. */
class Rig {
  readonly filter: RfbFilter;
  client = Buffer.alloc(0);
  violation: Violation | undefined;
  #server: Buffer[] = [];

  constructor(viewOnly: boolean, controls: boolean) {
    this.filter = new RfbFilter(
      {
        toServer: (bytes) => {
          this.#server.push(Buffer.from(bytes));
        },
        toClient: (bytes) => {
          this.client = Buffer.concat([this.client, bytes]);
        },
      },
      viewOnly,
    );
    this.filter.controls = controls;
    this.filter.greet();
  }

  push(bytes: Buffer): void {
    // A copy that goes bad as soon as it was pushed, as a WebSocket's memory does.
    const copy = Buffer.from(bytes);
    this.violation ??= this.filter.push(copy);
    copy.fill(4);
  }

  /** What has come out for the server since {@link taken} was called. */
  get server(): Buffer {
    this.#server = [Buffer.concat(this.#server)];
    return this.#server[0] as Buffer;
  }

  /** The same, and not again. */
  taken(): Buffer {
    const taken = this.server;
    this.#server = [];
    return taken;
  }
}

/** Past its handshake. */
function rig(who: 'viewer' | 'controller'): Rig {
  const made = new Rig(who === 'viewer', who === 'controller');
  made.push(START);
  assert.deepEqual(made.taken(), u8(1));
  return made;
}

/** Cuts a stream into messages as RFC 6143 and TigerVNC's SMsgReader have it, in a way of its own. */
function messagesOf(stream: Buffer): Buffer[] {
  const lengths: Record<number, (at: number) => number> = {
    0: () => 20,
    2: (at) => 4 + stream.readUInt16BE(at + 2) * 4,
    3: () => 10,
    4: () => 8,
    5: () => 6,
    6: (at) => {
      const length = stream.readUInt32BE(at + 4);
      return 8 + (length >= 2 ** 31 ? 2 ** 32 - length : length);
    },
    150: () => 10,
    248: (at) => 9 + stream.readUInt8(at + 8),
    251: (at) => 8 + stream.readUInt8(at + 6) * 16,
    255: (at) => (stream.readUInt8(at + 1) === 0 ? 12 : Number.NaN),
  };
  const found: Buffer[] = [];
  for (let at = 0; at < stream.length; ) {
    const length = lengths[stream.readUInt8(at)]?.(at) ?? Number.NaN;
    assert.ok(at + length <= stream.length, `no whole message at ${at} of ${stream.length}: ${stream[at]}`);
    found.push(stream.subarray(at, at + length));
    at += length;
  }
  return found;
}

const doesSomething = (message: Buffer): boolean => ![0, 2, 3, 150, 248].includes(message[0] as number);

describe('The handshake', () => {
  for (const [version, toClient] of [
    ['RFB 003.003\n', u32(1)],
    ['RFB 003.005\n', u32(1)],
    ['RFB 003.007\n', u8(1, 1)],
    ['RFB 003.008\n', join(u8(1, 1), u32(0))],
    ['RFB 003.889\n', join(u8(1, 1), u32(0))],
  ] as const) {
    for (const shared of [0, 1, 255]) {
      it(`${JSON.stringify(version)}, shared ${shared}, in one piece or byte by byte`, () => {
        const chooses = !/\.00[35]/.test(version);
        const said = join(Buffer.from(version), chooses ? u8(1) : u8(), u8(shared), updateRequest);
        for (const size of [1, 5, said.length]) {
          const made = new Rig(true, false);
          for (let at = 0; at < said.length; at += size) made.push(said.subarray(at, at + size));
          assert.equal(made.violation, undefined);
          assert.deepEqual(made.client, join(Buffer.from(BANNER), toClient));
          assert.deepEqual(made.server, join(u8(1), updateRequest), 'always shared');
        }
      });
    }
  }

  for (const version of ['RFB 004.001\n', 'RFB 003.0x8\n', 'RFB  -1.  8\n', 'GET / HTTP/1', Buffer.alloc(12, 4)]) {
    it(`${JSON.stringify(version.toString())} is no version`, () => {
      const made = new Rig(false, true);
      made.push(join(Buffer.from(version), key(1, 0x61)));
      assert.deepEqual([made.violation?.code, made.server.length], [1008, 0]);
    });
  }

  it('another security type than None ends it', () => {
    for (const type of [0, 2, 16, 19, 255]) {
      const made = new Rig(true, false);
      made.push(join(Buffer.from(BANNER), u8(type, 1), key(1, 0x61)));
      assert.deepEqual([made.violation?.code, made.server.length], [1008, 0]);
    }
  });
});

describe('Messages, each cut at every byte, alone and with what comes before and after', () => {
  for (const [index, message] of [...LOOKS, ...CONTROLS, ...NOBODYS].entries()) {
    it(`type ${message[0]}, ${message.length} bytes (${index})`, () => {
      const passes = { viewer: LOOKS.includes(message), controller: !NOBODYS.includes(message) };
      for (const who of ['viewer', 'controller'] as const) {
        const wanted = join(updateRequest, passes[who] ? message : u8(), updateRequest);
        const said = join(updateRequest, message, updateRequest);
        const step = Math.max(1, Math.floor(said.length / 300));
        for (let cut = 0; cut <= said.length; cut += cut < 40 ? 1 : step) {
          const made = rig(who);
          made.push(said.subarray(0, cut));
          made.push(said.subarray(cut));
          assert.equal(made.violation, undefined);
          assert.ok(made.server.equals(wanted), `${who}, cut at ${cut}`);
        }
        const bytewise = rig(who);
        if (said.length < 10_000) for (const byte of said) bytewise.push(u8(byte));
        else bytewise.push(said);
        assert.ok(bytewise.server.equals(wanted), `${who}, byte by byte`);
      }
    });
  }

  it('all of them in one piece, pipelined before the handshake has begun', () => {
    const all = [...CONTROLS, ...LOOKS, ...NOBODYS, ...CONTROLS, ...LOOKS];
    for (const [who, wanted] of [
      ['viewer', all.filter((message) => LOOKS.includes(message))],
      ['controller', all.filter((message) => !NOBODYS.includes(message))],
    ] as const) {
      const made = new Rig(who === 'viewer', who === 'controller');
      made.push(join(START, ...all));
      assert.equal(made.violation, undefined);
      assert.ok(made.server.equals(join(u8(1), ...wanted)), who);
    }
  });
});

describe('What nobody knows the length of', () => {
  const known = new Set([0, 2, 3, 4, 5, 6, 150, 248, 251, 255]);
  it('ends the connection: every other type, and what QEMU has beside keys', () => {
    for (let type = 0; type < 256; type++) {
      if (known.has(type) && type !== 255) continue;
      const made = rig('controller');
      made.push(join(updateRequest, u8(type, 1, 0, 0), key(1, 0x61), pointer(1, 1, 1)));
      assert.equal(made.violation?.code, 1008);
      assert.equal(made.violation.reason, `RFB: messages of type ${type} are not taken here`);
      assert.deepEqual(made.server, updateRequest, 'what came before it has arrived');
    }
  });
});

describe('Sizes', () => {
  it('a text for the clipboard that is longer than TigerVNC takes is forgotten, whatever it says of its length', () => {
    for (const length of [CUT_LIMIT + 1, 0x7fffffff, 0x80000000, 0x80000001, -(CUT_LIMIT + 1)]) {
      const made = rig('controller');
      made.push(join(u8(6, 0, 0, 0), u32(length)));
      const isShort = Math.abs(length | 0) === CUT_LIMIT + 1;
      made.push(Buffer.alloc(CUT_LIMIT, 4));
      made.push(join(u8(4), updateRequest));
      assert.deepEqual(made.server, isShort ? updateRequest : u8(), `${length}`);
    }
  });

  it('the longest that is taken arrives, also byte by byte', () => {
    for (const message of [cutText(Buffer.alloc(CUT_LIMIT, 4)), extendedCut(Buffer.alloc(CUT_LIMIT, 4))]) {
      const made = rig('controller');
      const pieces: Buffer[] = [];
      made.filter.push(Buffer.from(message.subarray(0, 8)));
      for (const byte of message.subarray(8)) pieces.push(u8(byte));
      for (const piece of pieces) made.filter.push(piece);
      assert.ok(made.server.equals(message));
    }
  });

  it('as many encodings as there can be', () => {
    const made = rig('viewer');
    const most = encodings(...Array.from({ length: 65_535 }, () => ZRLE));
    made.push(most.subarray(0, 1000));
    made.push(most.subarray(1000));
    assert.ok(made.server.equals(most));
  });

  it('a WebSocket message larger than any message of RFB is refused', () => {
    const made = rig('controller');
    made.push(Buffer.alloc(MAX_FROM_VIEWER + 1, 4));
    assert.deepEqual([made.violation?.code, made.server.length], [1009, 0]);
  });
});

describe('Encodings', () => {
  const all = encodings(EXTENDED_CLIPBOARD, ZRLE, EXTENDED_BUTTONS, QEMU_KEYS, XVP, CURSOR);
  it('who only looks is not to hear of the clipboard', () => {
    const made = rig('viewer');
    made.push(all);
    assert.deepEqual(made.server, encodings(ZRLE, CURSOR));
  });

  it('nobody has those after which the length of messages is the server’s to know', () => {
    const made = rig('controller');
    made.push(all);
    assert.deepEqual(made.server, encodings(EXTENDED_CLIPBOARD, ZRLE, QEMU_KEYS, CURSOR));
  });
});

describe('Control that goes', () => {
  it('lets go of keys and buttons, at the last place, and of no more', () => {
    const made = rig('controller');
    const held = [key(1, 0xffe1), qemuKey(1, 0x62, 48), pointer(5, 300, 400)];
    for (const message of [key(1, 0x61), ...held, key(0, 0x61)]) made.push(message);
    made.taken();
    made.push(key(1, 0x63).subarray(0, 5));
    made.filter.controls = false;
    assert.deepEqual(made.taken(), join(key(0, 0xffe1), qemuKey(0, 0x62, 48), pointer(0, 300, 400)));
    made.filter.controls = false;
    made.filter.release();
    assert.equal(made.taken().length, 0, 'once');
    made.push(key(1, 0x63).subarray(5));
    for (const message of CONTROLS) made.push(message);
    assert.equal(made.taken().length, 0, 'not even the message that had begun');
    made.filter.controls = true;
    made.push(key(1, 0x64));
    assert.deepEqual(made.taken(), key(1, 0x64));
  });

  it('a viewer that may only look never gets it', () => {
    const made = rig('viewer');
    made.filter.controls = true;
    for (const message of CONTROLS) made.push(message);
    assert.equal(made.server.length, 0);
  });

  it('no more keys are held than a keyboard has', () => {
    const made = rig('controller');
    for (let symbol = 0; symbol < 1000; symbol++) made.push(key(1, symbol));
    const pressed = messagesOf(made.taken());
    assert.equal(pressed.length, 256);
    made.filter.release();
    assert.equal(messagesOf(made.taken()).length, 256);
  });
});

describe('Random and hostile streams', () => {
  const seed = Number(process.env.BERTH_SEED ?? Math.floor(Math.random() * 2 ** 31));
  const ROUNDS = 1000;

  /** Mostly messages, now and then something that is none or that lies about its length. */
  function stream(random: Random): Buffer {
    const kinds = [...LOOKS, ...CONTROLS, desktopSize(2), fence(200)];
    const parts = [random.chance(0.9) ? START : random.bytes(random.below(20))];
    for (let count = random.below(40); count > 0; count--) {
      const message = Buffer.from(random.pick(kinds));
      if (random.chance(0.03)) message[random.below(message.length)] = random.below(256);
      parts.push(random.chance(0.02) ? message.subarray(0, random.below(message.length)) : message);
      if (random.chance(0.01)) parts.push(random.bytes(random.below(100)));
      if (random.chance(0.01)) parts.push(cutText(Buffer.alloc(random.below(2 * CUT_LIMIT), 4)));
    }
    return Buffer.concat(parts);
  }

  /** Pushes it in pieces, with something done between them. */
  function pour(random: Random, into: Rig, bytes: Buffer, between: () => void): void {
    const most = random.pick([2, 10, 100, 10_000, 2 ** 20]);
    for (let at = 0; at < bytes.length && !into.violation; ) {
      const size = 1 + random.below(most);
      into.push(bytes.subarray(at, at + size));
      at += size;
      between();
    }
  }

  const rounds = (round: (random: Random) => void): void => {
    for (let i = 0; i < ROUNDS; i++) {
      try {
        round(new Random(seed + i));
      } catch (err) {
        (err as Error).message = `BERTH_SEED=${seed + i}: ${(err as Error).message}`;
        throw err;
      }
    }
  };

  it('bring nothing that does something to the server of who only looks', (t) => {
    let passed = 0;
    rounds((random) => {
      const made = new Rig(true, random.chance(0.5));
      pour(random, made, stream(random), () => {
        made.filter.controls = random.chance(0.5);
      });
      if (made.server.length === 0) return;
      assert.equal(made.server[0], 1, 'the ClientInit');
      const messages = messagesOf(made.server.subarray(1));
      passed += messages.length;
      assert.deepEqual(messages.filter(doesSomething), []);
      for (const message of messages.filter(([type]) => type === 2)) {
        for (let at = 4; at < message.length; at += 4) {
          assert.ok(![EXTENDED_CLIPBOARD, EXTENDED_BUTTONS].includes(message.readInt32BE(at)));
        }
      }
    });
    assert.ok(passed > ROUNDS, `only ${passed} messages passed`);
    t.diagnostic(`BERTH_SEED=${seed}, ${passed} messages passed`);
  });

  it('do nothing while control is away, and leave nothing held down behind', (t) => {
    let done = 0;
    rounds((random) => {
      let controls = random.chance(0.5);
      const made = new Rig(false, controls);
      let begun = false;
      const down = new Set<string>();
      let buttons = 0;
      /** Whole messages, since whoever takes control next begins in the middle of nothing. */
      const look = (releasing: boolean): void => {
        let out = made.taken();
        if (out.length === 0) return;
        if (!begun) assert.equal(out[0], 1);
        if (!begun) out = out.subarray(1);
        begun = true;
        for (const message of messagesOf(out)) {
          if (!doesSomething(message)) continue;
          done += 1;
          assert.ok(controls || releasing, `a message of type ${message[0]} without control`);
          if (message[0] === 4 || message[0] === 255) {
            const [pressed, name] =
              message[0] === 4
                ? [message[1] !== 0, `symbol ${message.readUInt32BE(4)}`]
                : [message.readUInt16BE(2) !== 0, `code ${message.readUInt32BE(8)}`];
            assert.ok(!(releasing && pressed), 'pressed while releasing');
            if (pressed) down.add(name);
            else down.delete(name);
          }
          if (message[0] === 5) buttons = message[1] as number;
        }
      };
      const lose = (): void => {
        controls = false;
        made.filter.controls = false;
        look(true);
        assert.deepEqual([[...down], buttons], [[], 0]);
      };
      pour(random, made, stream(random), () => {
        look(false);
        if (random.chance(0.2)) lose();
        else if (random.chance(0.3)) made.filter.controls = controls = true;
      });
      look(false);
      lose();
    });
    assert.ok(done > ROUNDS, `only ${done} messages did something`);
    t.diagnostic(`BERTH_SEED=${seed}, ${done} messages did something`);
  });
});
