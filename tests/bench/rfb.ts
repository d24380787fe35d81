/** A viewer that speaks just enough RFB (RFC 6143) to know which parts of the screen it was sent, and when. */
import type { Duplex } from 'node:stream';

/** Part of the screen, in pixels. */
export interface Area {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Each rectangle says how long it is, so that nothing needs to be unpacked. */
const ZRLE = 16;
const SECURITY_NONE = 1;

export class Viewer {
  readonly #stream: Duplex;
  #data = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  #broken: Error | undefined;
  #onUpdate: ((areas: Area[]) => void) | undefined;
  #onBroken: ((err: Error) => void) | undefined;
  #width = 0;
  #height = 0;
  /** Bytes of RFB that have come. */
  received = 0;

  private constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on('data', (chunk: Buffer) => {
      this.received += chunk.length;
      this.#data = Buffer.concat([this.#data, chunk]);
      this.#wake?.();
    });
    const fail = (): void => {
      this.#broken = new Error('the VNC connection broke');
      this.#wake?.();
    };
    stream.on('error', fail).on('close', fail);
  }

  /** Greets, and waits for the whole screen. */
  static async open(stream: Duplex): Promise<Viewer> {
    const viewer = new Viewer(stream);
    stream.write(await viewer.#take(12));
    const [kinds = 0] = await viewer.#take(1);
    await viewer.#take(kinds);
    stream.write(Buffer.of(SECURITY_NONE));
    await viewer.#take(4);
    stream.write(Buffer.of(1));
    const init = await viewer.#take(24);
    viewer.#width = init.readUInt16BE(0);
    viewer.#height = init.readUInt16BE(2);
    await viewer.#take(init.readUInt32BE(20));
    const encodings = Buffer.alloc(8);
    encodings.writeUInt8(2, 0);
    encodings.writeUInt16BE(1, 2);
    encodings.writeInt32BE(ZRLE, 4);
    stream.write(encodings);
    viewer.#ask(false);
    await viewer.#update();
    void viewer.#follow();
    return viewer;
  }

  /** Asks for what changes, as long as the connection stands. */
  async #follow(): Promise<void> {
    try {
      for (;;) {
        this.#ask(true);
        const areas = await this.#update();
        this.#onUpdate?.(areas);
      }
    } catch (err) {
      this.#onBroken?.(err as Error);
    }
  }

  /** Waits for an update that comes from now on and touches this part of the screen. */
  changed(area: Area): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#broken) return reject(this.#broken);
      this.#onBroken = reject;
      this.#onUpdate = (areas) => {
        const touched = areas.some(
          (one) =>
            one.x < area.x + area.width &&
            area.x < one.x + one.width &&
            one.y < area.y + area.height &&
            area.y < one.y + one.height,
        );
        if (touched) resolve();
      };
    });
  }

  #ask(incremental: boolean): void {
    const message = Buffer.alloc(10);
    message.writeUInt8(3, 0);
    message.writeUInt8(incremental ? 1 : 0, 1);
    message.writeUInt16BE(this.#width, 6);
    message.writeUInt16BE(this.#height, 8);
    this.#stream.write(message);
  }

  async #update(): Promise<Area[]> {
    for (;;) {
      const [type] = await this.#take(1);
      if (type === 0) break;
      if (type === 2) continue; // a bell
      if (type !== 3) throw new Error(`a VNC message of type ${type}`);
      await this.#take((await this.#take(7)).readUInt32BE(3));
    }
    const count = (await this.#take(3)).readUInt16BE(1);
    const areas: Area[] = [];
    for (let i = 0; i < count; i++) {
      const head = await this.#take(12);
      const [x, y, width, height] = [0, 2, 4, 6].map((at) => head.readUInt16BE(at)) as [number, number, number, number];
      if (head.readInt32BE(8) !== ZRLE) throw new Error('a rectangle in another encoding than was asked for');
      await this.#take((await this.#take(4)).readUInt32BE(0));
      areas.push({ x, y, width, height });
    }
    return areas;
  }

  async #take(length: number): Promise<Buffer> {
    while (this.#data.length < length) {
      if (this.#broken) throw this.#broken;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const taken = this.#data.subarray(0, length);
    this.#data = this.#data.subarray(length);
    return taken;
  }
}
