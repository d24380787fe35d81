/** What a player has to know of a recording before its first frame. */
export interface VideoTrack {
  readonly width: number;
  readonly height: number;
  /** The decoder's configuration as MP4 has it too (ISO 14496-15, avcC). */
  readonly avcC: Uint8Array;
}

/** One frame; time in milliseconds from the beginning of the file. */
export interface Frame {
  readonly time: number;
  readonly isKey: boolean;
  readonly bytes: Uint8Array;
}

export interface MatroskaSink {
  onTrack(track: VideoTrack): void;
  onFrame(frame: Frame): void;
}

/** Elements of Matroska (RFC 9559) that we look into; the payload of any other is passed over. */
const ID = {
  segment: 0x18538067,
  info: 0x1549a966,
  timestampScale: 0x2ad7b1,
  tracks: 0x1654ae6b,
  trackEntry: 0xae,
  codecPrivate: 0x63a2,
  video: 0xe0,
  pixelWidth: 0xb0,
  pixelHeight: 0xba,
  cluster: 0x1f43b675,
  timestamp: 0xe7,
  simpleBlock: 0xa3,
  blockGroup: 0xa0,
  block: 0xa1,
} as const;

/** Looked into as they come: an export's, and one that is being written, do not say how long they are. */
const OPEN: ReadonlySet<number> = new Set([ID.segment, ID.cluster, ID.info, ID.tracks, ID.trackEntry, ID.video]);
/** Nothing of a recording is larger, in bytes: a screen of 4K as one key frame is less. */
const MAX_ELEMENT = 64 * 1024 * 1024;
const NS_PER_MS = 1_000_000;

/**
 * Reads a recording's frames from its bytes as they come, also while it is being written: what has arrived in part waits for
 * the rest. Made for one video track of H.264, which is what recordings have; throws on what is no Matroska.
 */
export class MatroskaReader {
  readonly #sink: MatroskaSink;
  #waiting: Uint8Array = new Uint8Array(0);
  /** Bytes that are to be passed over. */
  #skip = 0;
  #tickNs = NS_PER_MS;
  #clusterTicks = 0;
  #size = { width: 0, height: 0 };
  #avcC: Uint8Array | undefined;
  #told = false;

  constructor(sink: MatroskaSink) {
    this.#sink = sink;
  }

  push(chunk: Uint8Array): void {
    let bytes = chunk;
    if (this.#skip > 0) {
      const passed = Math.min(this.#skip, bytes.length);
      this.#skip -= passed;
      bytes = bytes.subarray(passed);
    }
    if (bytes.length === 0) return;
    const all = this.#waiting.length === 0 ? bytes : joined(this.#waiting, bytes);
    let at = 0;
    for (;;) {
      const read = this.#element(all, at);
      if (read === undefined) break;
      at = read;
    }
    // A copy: the chunk may be large, and what waits is little.
    this.#waiting = all.slice(at);
  }

  /** Where the next element begins; undefined when this one is not whole yet. */
  #element(all: Uint8Array, at: number): number | undefined {
    const id = vint(all, at, true);
    const size = id && vint(all, id.end, false);
    if (!id || !size) return undefined;
    if (OPEN.has(id.value)) return size.end;
    const wanted = (Object.values(ID) as number[]).includes(id.value);
    if (size.value === undefined || size.value > Number.MAX_SAFE_INTEGER) throw new Error('This is no recording.');
    const end = size.end + size.value;
    if (!wanted) {
      if (end <= all.length) return end;
      this.#skip = end - all.length;
      return all.length;
    }
    if (size.value > MAX_ELEMENT) throw new Error('This recording has a frame of more than 64 MiB.');
    if (end > all.length) return undefined;
    this.#onElement(id.value, all.subarray(size.end, end));
    return end;
  }

  #onElement(id: number, payload: Uint8Array): void {
    switch (id) {
      case ID.timestampScale:
        this.#tickNs = unsigned(payload);
        return;
      case ID.codecPrivate:
        this.#avcC = payload.slice();
        return;
      case ID.pixelWidth:
        this.#size.width = unsigned(payload);
        return;
      case ID.pixelHeight:
        this.#size.height = unsigned(payload);
        return;
      case ID.timestamp:
        this.#clusterTicks = unsigned(payload);
        return;
      case ID.simpleBlock:
        this.#onBlock(payload, ((payload[3] as number) & 0x80) !== 0);
        return;
      case ID.blockGroup: {
        // ffmpeg writes one for a frame whose duration it says; one that refers to none is a key frame.
        const block = child(payload, ID.block);
        if (block) this.#onBlock(block, child(payload, 0xfb) === undefined);
      }
    }
  }

  /** Track number (one byte, as there is one track), 16 bits of time beside the cluster's, flags, then the frame. */
  #onBlock(block: Uint8Array, isKey: boolean): void {
    if (!this.#told) {
      if (!this.#avcC) throw new Error('This recording does not say how to decode it.');
      this.#told = true;
      this.#sink.onTrack({ ...this.#size, avcC: this.#avcC });
    }
    const beside = new DataView(block.buffer, block.byteOffset).getInt16(1);
    const time = ((this.#clusterTicks + beside) * this.#tickNs) / NS_PER_MS;
    this.#sink.onFrame({ time, isKey, bytes: block.slice(4) });
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}

/** A number of EBML (RFC 8794 section 4): undefined when it is not all there; its value is undefined for "unknown". */
function vint(
  bytes: Uint8Array,
  at: number,
  withMarker: boolean,
): { readonly value: number; readonly end: number } | { readonly value: undefined; readonly end: number } | undefined;
function vint(
  bytes: Uint8Array,
  at: number,
  withMarker: true,
): { readonly value: number; readonly end: number } | undefined;
function vint(bytes: Uint8Array, at: number, withMarker: boolean) {
  const first = bytes[at];
  if (first === undefined) return undefined;
  const length = Math.clz32(first) - 23;
  if (length > 8) throw new Error('This is no recording.');
  if (at + length > bytes.length) return undefined;
  let value = withMarker ? first : first & (0xff >> length);
  let allOnes = (first & (0xff >> length)) === 0xff >> length;
  for (let i = 1; i < length; i++) {
    const byte = bytes[at + i] as number;
    value = value * 256 + byte;
    allOnes &&= byte === 0xff;
  }
  return { value: allOnes && !withMarker ? undefined : value, end: at + length };
}

function unsigned(payload: Uint8Array): number {
  return payload.reduce((value, byte) => value * 256 + byte, 0);
}

/** The payload of the first child of this id. */
function child(payload: Uint8Array, wanted: number): Uint8Array | undefined {
  for (let at = 0; at < payload.length; ) {
    const id = vint(payload, at, true);
    const size = id && vint(payload, id.end, false);
    if (!id || size?.value === undefined) return undefined;
    if (id.value === wanted) return payload.subarray(size.end, size.end + size.value);
    at = size.end + size.value;
  }
  return undefined;
}
