/**
 * EBML, the binary form of Matroska: elements of an id, a size and a payload. Nothing here trusts a byte, and what it does not
 * like it throws as {@link Damage}.
 */

/** Bytes that are no EBML, or not yet all of it. The message is a sentence. */
export class Damage extends Error {}

/** The first bytes of an element. `size` is that of what follows, in bytes; undefined when the file does not say. */
export interface Head {
  readonly id: number;
  readonly length: number;
  readonly size: number | undefined;
}

/** At most 4 bytes of id and 8 of size. */
const MAX_HEAD_BYTES = 12;

/** Undefined when there are not enough bytes. Throws when no more bytes could make it one. */
export function headAt(bytes: Buffer, at: number): Head | undefined {
  if (at >= bytes.length) return undefined;
  const idLength = vintLength(bytes[at]);
  if (idLength === undefined || idLength > 4) throw new Damage('Where an element should begin, none does.');
  const sizeAt = at + idLength;
  if (sizeAt >= bytes.length) return undefined;
  const first = bytes[sizeAt] as number;
  const sizeLength = vintLength(first);
  if (sizeLength === undefined) throw new Damage('An element has no size.');
  if (sizeAt + sizeLength > bytes.length) return undefined;
  const mask = 0xff >> sizeLength;
  let size = first & mask;
  let unknown = size === mask;
  for (const byte of bytes.subarray(sizeAt + 1, sizeAt + sizeLength)) {
    size = size * 256 + byte;
    unknown &&= byte === 0xff;
  }
  if (!unknown && !Number.isSafeInteger(size)) throw new Damage('An element has an impossible size.');
  return {
    id: bytes.readUIntBE(at, idLength),
    length: idLength + sizeLength,
    size: unknown ? undefined : size,
  };
}

/** How many bytes a number of variable length has, by its first one; undefined for 0, which none begins with. */
export function vintLength(first: number | undefined): number | undefined {
  return first ? Math.clz32(first) - 23 : undefined;
}

/** One element inside a buffer: where its head begins, and its payload from `start` to before `end`. */
export interface Child {
  readonly id: number;
  readonly at: number;
  readonly start: number;
  readonly end: number;
}

/** The elements from `from` on, one after the other. Throws when the last one is not whole. */
export function* children(bytes: Buffer, from = 0): Generator<Child> {
  for (let at = from; at < bytes.length; ) {
    const head = headAt(bytes, at);
    if (!head) throw new Damage('An element is cut off.');
    const start = at + head.length;
    const end = start + sizeOf(head);
    if (end > bytes.length) throw new Damage('An element is larger than the one around it.');
    yield { id: head.id, at, start, end };
    at = end;
  }
}

/** The size of the payload. Throws when it is unknown. */
export function sizeOf(head: Head): number {
  if (head.size === undefined) throw new Damage('An element of unknown size stands where none may.');
  return head.size;
}

/** An unsigned number of at most 8 bytes. Throws when it is above 2^53. */
export function uint(bytes: Buffer, { start, end }: { readonly start: number; readonly end: number }): number {
  if (end - start > 8) throw new Damage('A number has more than 8 bytes.');
  let value = 0;
  for (const byte of bytes.subarray(start, end)) value = value * 256 + byte;
  if (!Number.isSafeInteger(value)) throw new Damage('A number is too large.');
  return value;
}

/** The next head, which stays in the queue; undefined at the end. Throws when the end cuts it off. */
export async function peekHead(input: ByteQueue): Promise<Head | undefined> {
  const bytes = await input.peek(MAX_HEAD_BYTES);
  if (bytes.length === 0) return undefined;
  const head = headAt(bytes, 0);
  if (!head) throw new Damage('The file ends in the middle of an element.');
  return head;
}

/** The next head, taken out of the queue; undefined at the end. Throws when the end cuts it off. */
export async function nextHead(input: ByteQueue): Promise<Head | undefined> {
  const head = await peekHead(input);
  if (head) await takeAll(input, head.length);
  return head;
}

/** Throws when there are not as many bytes. */
export async function takeAll(input: ByteQueue, bytes: number): Promise<Buffer> {
  const taken = await input.take(bytes);
  if (!taken) throw new Damage('The file ends in the middle of an element.');
  return taken;
}

/** The bytes of a stream in pieces of the size that is asked for, whatever size they come in. Rejects when the stream does. */
export interface ByteQueue {
  /** How many bytes were taken or skipped. */
  position(): number;
  /** The next bytes without taking them; fewer at the end. */
  peek(bytes: number): Promise<Buffer>;
  /** A copy, so that a small frame does not keep a large chunk alive. Undefined when there are not as many. */
  take(bytes: number): Promise<Buffer | undefined>;
  /** Holds none of them. False when there are not as many. */
  skip(bytes: number): Promise<boolean>;
  /** Ends the stream. */
  close(): Promise<void>;
}

/** The queue of these chunks. It reads no further than it is asked to, and holds what it was asked for and one chunk. */
export function byteQueue(chunks: AsyncIterable<Uint8Array>): ByteQueue {
  const iterator = chunks[Symbol.asyncIterator]();
  let held: Uint8Array[] = [];
  let length = 0;
  let position = 0;
  const more = async (): Promise<boolean> => {
    const { done, value } = await iterator.next();
    if (done) return false;
    held.push(value);
    length += value.length;
    return true;
  };
  const drop = (bytes: number): void => {
    position += bytes;
    length -= bytes;
    let left = bytes;
    let whole = 0;
    while (whole < held.length && left >= (held[whole] as Uint8Array).length) {
      left -= (held[whole] as Uint8Array).length;
      whole += 1;
    }
    held = held.slice(whole);
    if (left > 0) held[0] = (held[0] as Uint8Array).subarray(left);
  };
  return {
    position: () => position,
    peek: async (bytes) => {
      while (length < bytes && (await more()));
      return Buffer.concat(held, Math.min(bytes, length));
    },
    take: async (bytes) => {
      while (length < bytes) if (!(await more())) return undefined;
      const taken = Buffer.concat(held, bytes);
      drop(bytes);
      return taken;
    },
    skip: async (bytes) => {
      let left = bytes;
      while (length < left) {
        left -= length;
        drop(length);
        if (!(await more())) return false;
      }
      drop(left);
      return true;
    },
    close: async () => {
      await iterator.return?.();
    },
  };
}
