import { spawnSync } from 'node:child_process';
import WebSocket from 'ws';

/** The VNC stream by hand: reads as many bytes as asked for, whatever frames they come in. */
export class Rfb {
  textFrames = 0;
  readonly #socket: WebSocket;
  #bytes = Buffer.alloc(0);
  #wake = (): void => {};

  readonly closed: Promise<{ code: number; reason: string }>;

  static open(url: string, protocols: string[] = []): Promise<Rfb> {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url, protocols, { handshakeTimeout: 30_000 });
      const rfb = new Rfb(socket);
      socket.once('open', () => resolve(rfb));
      socket.once('error', reject);
    });
  }

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data: Buffer, binary) => {
      if (!binary) this.textFrames += 1;
      this.#bytes = Buffer.concat([this.#bytes, data]);
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      socket.on('close', (code, reason) => {
        this.#wake();
        resolve({ code, reason: reason.toString() });
      });
    });
  }

  get isClosed(): boolean {
    return this.#socket.readyState === WebSocket.CLOSED;
  }

  get protocol(): string {
    return this.#socket.protocol;
  }

  async read(length: number): Promise<Buffer> {
    while (this.#bytes.length < length) {
      if (this.#socket.readyState === WebSocket.CLOSED) throw new Error('the stream was closed');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const head = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return head;
  }

  write(data: string | Buffer): void {
    this.#socket.send(Buffer.from(data as string, 'latin1'));
  }

  close(): void {
    this.#socket.close();
  }
}

/** Whether the VNC server of this driver's sandboxes has a clipboard: TigerVNC from 1.15 on. */
export function hasClipboard(driver: string): boolean {
  if (driver === 'docker') return true;
  const { stderr, stdout } = spawnSync('X0tigervnc', ['--version'], { encoding: 'utf8' });
  const [, major = 0, minor = 0] = /version (\d+)\.(\d+)/.exec(stdout + stderr) ?? [];
  return Number(major) > 1 || (Number(major) === 1 && Number(minor) >= 15);
}

const FENCE_REQUEST = 0x80000000;
/** SetEncodings with the pseudo-encoding -312 alone: the server answers fences, and sends no picture. */
export const FENCES = Buffer.from([2, 0, 0, 1, 0xff, 0xff, 0xfe, 0xc8]);

/** A fence that the server answers when it has dealt with all before it. */
export function fence(payload: number): Buffer {
  const message = Buffer.from([248, 0, 0, 0, 0, 0, 0, 0, 1, payload]);
  message.writeUInt32BE(FENCE_REQUEST, 4);
  return message;
}

/** A viewer that has shaken hands, does what it is told, and sees nothing but what the server says of the clipboard. */
export class Hands {
  readonly rfb: Rfb;
  /** What it was told of the clipboard. */
  readonly clipboard: string[] = [];
  readonly #fences: number[] = [];
  #fence = 0;
  #heard = (): void => {};

  /** `before` is sent together with the handshake. */
  static async open(url: string, before: Buffer = Buffer.alloc(0)): Promise<Hands> {
    const hands = new Hands(await Rfb.open(url));
    const { rfb } = hands;
    rfb.write(Buffer.concat([Buffer.from('RFB 003.008\n\u0001\u0000'), FENCES, before]));
    await rfb.read(12 + 2 + 4);
    await rfb.read((await rfb.read(24)).readUInt32BE(20));
    void hands.#listen().catch(() => hands.#heard());
    return hands;
  }

  private constructor(rfb: Rfb) {
    this.rfb = rfb;
  }

  key(symbol: number, down: boolean): void {
    this.rfb.write(messages.key(symbol, down));
  }

  /** Presses a key and lets go. */
  type(symbol: number): void {
    this.key(symbol, true);
    this.key(symbol, false);
  }

  pointer(mask: number, x: number, y: number): void {
    this.rfb.write(messages.pointer(mask, x, y));
  }

  click(x: number, y: number): void {
    for (const mask of [0, 1, 0]) this.pointer(mask, x, y);
  }

  /** Resolves when the server has dealt with all that was sent before. */
  async settled(): Promise<void> {
    const mine = ++this.#fence;
    this.rfb.write(fence(mine));
    while (!this.#fences.includes(mine)) {
      if (this.rfb.isClosed) throw new Error('the stream was closed');
      await new Promise<void>((resolve) => {
        this.#heard = resolve;
      });
    }
  }

  async #listen(): Promise<void> {
    for (;;) {
      const type = (await this.rfb.read(1))[0];
      if (type === 2) continue;
      if (type === 3) {
        const length = (await this.rfb.read(7)).readInt32BE(3);
        this.clipboard.push((await this.rfb.read(Math.abs(length))).toString('latin1'));
      } else if (type === 248) {
        const head = await this.rfb.read(8);
        const payload = await this.rfb.read(head[7] as number);
        // The server asks for one of its own first, to see that we can.
        if (head.readUInt32BE(3) < FENCE_REQUEST) this.#fences.push(payload[0] as number);
      } else throw new Error(`a message of type ${type}, which was not asked for`);
      this.#heard();
    }
  }
}

/** What a viewer may send (RFC 6143 section 7.5). */
export const messages = {
  key(symbol: number, down: boolean): Buffer {
    const message = Buffer.from([4, down ? 1 : 0, 0, 0, 0, 0, 0, 0]);
    message.writeUInt32BE(symbol, 4);
    return message;
  },
  /** By the code of the key, as noVNC does. */
  qemuKey(symbol: number, code: number, down: boolean): Buffer {
    const message = Buffer.from([255, 0, 0, down ? 1 : 0, 0, 0, 0, 0, 0, 0, 0, code]);
    message.writeUInt32BE(symbol, 4);
    return message;
  },
  pointer(mask: number, x: number, y: number): Buffer {
    return Buffer.from([5, mask, x >> 8, x & 0xff, y >> 8, y & 0xff]);
  },
  cutText(text: string): Buffer {
    return Buffer.concat([Buffer.from([6, 0, 0, 0, 0, 0, 0, text.length]), Buffer.from(text)]);
  },
  desktopSize(width: number, height: number): Buffer {
    const message = Buffer.alloc(24);
    message.writeUInt8(251, 0);
    message.writeUInt8(1, 6);
    for (const at of [2, 16]) {
      message.writeUInt16BE(width, at + (at === 16 ? 4 : 0));
      message.writeUInt16BE(height, at + (at === 16 ? 6 : 2));
    }
    return message;
  },
};
