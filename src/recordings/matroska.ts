/**
 * Matroska as ffmpeg's segments have it: a header, then clusters of frames. Everything else (SeekHead, Cues, Tags, Void,
 * CRC-32) is passed over. Any bytes may come in: what is held in memory is bounded by the three limits below.
 */
import {
  type ByteQueue,
  byteQueue,
  children,
  Damage,
  type Head,
  nextHead,
  peekHead,
  sizeOf,
  takeAll,
  uint,
  vintLength,
} from './ebml.ts';

/** A header is a few hundred bytes; one that goes on for longer than this is none. */
const MAX_HEADER_BYTES = 1024 * 1024;
/** A frame that says it is larger is not believed. */
const MAX_FRAME_BYTES = 64 * 1024 * 1024;
/** A cluster with more than this is handed out in several parts. The recorder's clusters hold half a second. */
const PART_BYTES = 8 * 1024 * 1024;
const PART_FRAMES = 4096;

/** A frame that says it lasts longer is not believed, in nanoseconds. */
const MAX_FRAME_NS = 60e9;

/** Element ids with their length markers, as they stand in a file. */
export const ID = {
  ebml: 0x1a45dfa3,
  segment: 0x18538067,
  info: 0x1549a966,
  tickNs: 0x2ad7b1,
  duration: 0x4489,
  tracks: 0x1654ae6b,
  trackEntry: 0xae,
  trackUid: 0x73c5,
  frameNs: 0x23e383,
  cluster: 0x1f43b675,
  timestamp: 0xe7,
  simpleBlock: 0xa3,
  blockGroup: 0xa0,
  block: 0xa1,
  blockDuration: 0x9b,
  void: 0xec,
  crc: 0xbf,
} as const;

/** Of the ids that are read here, four bytes long are those that stand in a Segment, never in a Cluster. */
const SEGMENT_LEVEL = 0x10000000;

/** What comes before the first cluster. */
export interface MatroskaHeader {
  readonly bytes: Buffer;
  /** One tick of the timestamps in nanoseconds, above 0. */
  readonly tickNs: number;
  /** What a frame lasts, in nanoseconds; undefined when the track does not say. */
  readonly frameNs: number | undefined;
  /** The same bytes in two headers mean that a decoder set up by one can read the frames of the other. */
  readonly decoder: Buffer;
}

/** Whole frames that follow each other, all of one cluster of the file. Times are in ticks. */
export interface MatroskaCluster {
  /** What the frames count from. */
  timestamp: number;
  frames: number;
  /** The frames' elements as they are. */
  elements: Buffer[];
  bytes: number;
  /** Of the first frame in the file, of the latest one, and of the latest but one. */
  first: number;
  last: number;
  beforeLast: number | undefined;
  /** Of the latest frame, when it says so itself. */
  lastDuration: number | undefined;
}

/** `damage` comes last, and only when the bytes do not end where an element ends; `reason` is a sentence. */
export type MatroskaPart =
  | { readonly kind: 'header'; readonly header: MatroskaHeader }
  | { readonly kind: 'cluster'; readonly cluster: Readonly<MatroskaCluster> }
  | { readonly kind: 'damage'; readonly reason: string };

/**
 * Reads one file given as chunks of any size: the header, the clusters, and what was wrong if something was. The sizes
 * of the Segment and of a last Cluster may be unknown. Holds at most a header of 1 MiB, or a part of a cluster of 8 MiB and a
 * frame of 64 MiB. Rejects only when the chunks do; ends them when it is ended.
 */
export async function* readMatroska(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<MatroskaPart> {
  const input = byteQueue(chunks);
  try {
    yield { kind: 'header', header: await readHeader(input) };
    for (let head = await nextHead(input); head; head = await nextHead(input)) {
      if (head.id === ID.cluster) yield* readCluster(input, head.size);
      else await skip(input, head);
    }
  } catch (err) {
    if (!(err instanceof Damage)) throw err;
    yield { kind: 'damage', reason: err.message };
  } finally {
    await input.close();
  }
}

/** A file's stream as {@link readMatroska} takes it. */
export function chunksOf(stream: NodeJS.ReadableStream): AsyncIterable<Uint8Array> {
  // No encoding was set, so no strings come.
  return stream as AsyncIterable<string | Uint8Array> as AsyncIterable<Uint8Array>;
}

async function readHeader(input: ByteQueue): Promise<MatroskaHeader> {
  const kept: Buffer[] = [];
  let length = 0;
  let tickNs = 1e6;
  let frameNs: number | undefined;
  let decoder: Buffer | undefined;
  const keep = async (bytes: number): Promise<Buffer> => {
    length += bytes;
    if (length > MAX_HEADER_BYTES) throw new Damage(`The header takes more than ${MAX_HEADER_BYTES} bytes.`);
    const part = await takeAll(input, bytes);
    kept.push(part);
    return part;
  };
  for (let at = 0; ; at += 1) {
    const head = await peekHead(input);
    if (!head) throw new Damage('The file ends before its first frame.');
    if (at < 2 && head.id !== (at === 0 ? ID.ebml : ID.segment)) throw new Damage('This is not a Matroska file.');
    if (head.id === ID.cluster) break;
    await keep(head.length);
    // The Segment's own size is not looked at: one that is being written has none, and it changes nothing.
    if (head.id === ID.segment) continue;
    const payload = await keep(sizeOf(head));
    if (head.id === ID.info) {
      const said = [...children(payload)].find((child) => child.id === ID.tickNs);
      if (said) tickNs = uint(payload, said);
    }
    if (head.id === ID.tracks) ({ frameNs, decoder } = readTracks(payload));
  }
  if (!decoder) throw new Damage('The header describes no track.');
  if (tickNs < 1) throw new Damage('The header says that time stands still.');
  return { bytes: Buffer.concat(kept), tickNs, frameNs, decoder };
}

function readTracks(tracks: Buffer): { frameNs: number | undefined; decoder: Buffer } {
  /** Drawn by lot for each file, or of no concern to a decoder. */
  const ignored: readonly number[] = [ID.trackUid, ID.frameNs, ID.void, ID.crc];
  const decoder: Buffer[] = [];
  let frameNs: number | undefined;
  for (const entry of children(tracks)) {
    if (entry.id !== ID.trackEntry) continue;
    const track = tracks.subarray(entry.start, entry.end);
    for (const child of children(track)) {
      if (child.id === ID.frameNs) {
        const ns = uint(track, child);
        if (ns > 0 && ns <= MAX_FRAME_NS) frameNs ??= ns;
      }
      if (!ignored.includes(child.id)) decoder.push(track.subarray(child.at, child.end));
    }
  }
  if (decoder.length === 0) throw new Damage('The header describes no track.');
  return { frameNs, decoder: Buffer.concat(decoder) };
}

async function* readCluster(input: ByteQueue, size: number | undefined): AsyncGenerator<MatroskaPart> {
  const end = input.position() + (size ?? Number.POSITIVE_INFINITY);
  const clock: { timestamp: number | undefined } = { timestamp: undefined };
  for (let more = true; more; ) {
    const cluster = emptyCluster();
    let damage: Damage | undefined;
    try {
      more = await fillCluster(input, end, clock, cluster);
    } catch (err) {
      if (!(err instanceof Damage)) throw err;
      damage = err;
    }
    if (cluster.frames > 0) yield { kind: 'cluster', cluster };
    if (damage) throw damage;
  }
}

function emptyCluster(): MatroskaCluster {
  return {
    timestamp: 0,
    frames: 0,
    elements: [],
    bytes: 0,
    first: 0,
    last: 0,
    beforeLast: undefined,
    lastDuration: undefined,
  };
}

/** Reads frames until the cluster ends (false) or one part of it is full (true). */
async function fillCluster(
  input: ByteQueue,
  end: number,
  clock: { timestamp: number | undefined },
  cluster: MatroskaCluster,
): Promise<boolean> {
  while (input.position() < end) {
    if (cluster.bytes >= PART_BYTES || cluster.frames >= PART_FRAMES) return true;
    const head = await peekHead(input);
    if (!head) {
      if (end === Number.POSITIVE_INFINITY) return false;
      throw new Damage('The file ends in the middle of a cluster.');
    }
    if (head.id >= SEGMENT_LEVEL) return false;
    const size = sizeOf(head);
    if (input.position() + head.length + size > end) throw new Damage('An element is larger than its cluster.');
    if (head.id === ID.simpleBlock || head.id === ID.blockGroup) {
      if (clock.timestamp === undefined) throw new Damage('A frame stands before the timestamp of its cluster.');
      if (size > MAX_FRAME_BYTES) throw new Damage(`A frame says that it takes ${size} bytes.`);
      addFrame(cluster, clock.timestamp, head, await takeAll(input, head.length + size));
    } else if (head.id === ID.timestamp) {
      if (size > 8 || clock.timestamp !== undefined) throw new Damage('A cluster has a bad timestamp.');
      const element = await takeAll(input, head.length + size);
      clock.timestamp = uint(element, { start: head.length, end: element.length });
    } else {
      await takeAll(input, head.length);
      await skip(input, head);
    }
  }
  return false;
}

function addFrame(cluster: MatroskaCluster, timestamp: number, head: Head, element: Buffer): void {
  let block = { start: head.length, end: element.length };
  let duration: number | undefined;
  if (head.id === ID.blockGroup) {
    const payload = element.subarray(head.length);
    const inside = [...children(payload)];
    const found = inside.find((child) => child.id === ID.block);
    if (!found) throw new Damage('A group of blocks has no block.');
    block = { start: head.length + found.start, end: head.length + found.end };
    const lasts = inside.find((child) => child.id === ID.blockDuration);
    if (lasts) duration = uint(payload, lasts);
  }
  const track = vintLength(element[block.start]);
  // The track's number, two bytes of time against the cluster's, one of flags.
  if (track === undefined || block.end - block.start < track + 3) throw new Damage('A frame has no whole head.');
  const at = timestamp + element.readInt16BE(block.start + track);
  if (cluster.frames === 0) Object.assign(cluster, { timestamp, first: at, last: at, lastDuration: duration });
  else if (at > cluster.last) {
    Object.assign(cluster, { beforeLast: cluster.last, last: at, lastDuration: duration });
  }
  cluster.frames += 1;
  cluster.bytes += element.length;
  cluster.elements.push(element);
}

async function skip(input: ByteQueue, head: Head): Promise<void> {
  if (head.id === ID.ebml || head.id === ID.segment) throw new Damage('A second file begins inside of this one.');
  if (!(await input.skip(sizeOf(head)))) throw new Damage('The file ends in the middle of an element.');
}
