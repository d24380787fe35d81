import type { Readable } from 'node:stream';
import type { OpenedFile } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import type { MediaFacts } from '../core/recording.ts';
import { type Child, children, headAt } from './ebml.ts';
import { generated } from './generated.ts';
import { chunksOf, ID, type MatroskaCluster, type MatroskaHeader, readMatroska } from './matroska.ts';
import { tally } from './scan.ts';

/** How many segments are looked into at once before the first byte goes out. */
const HEADERS_AT_ONCE = 8;

/** What a cluster takes besides its frames: id, 8 bytes of size, and a timestamp of 1 + 1 + 8. */
const CLUSTER_HEAD_BYTES = 22;

/** A segment to export. Without facts it is one that is still written: it counts as far as it is whole when its turn comes. */
export interface ExportSegment {
  readonly facts?: MediaFacts | undefined;
  /** Undefined when it is not there any more. Called twice: for its header at the start, and when its turn comes. */
  open(): Promise<OpenedFile | undefined>;
}

/** One MKV made of several. Who does not read the stream to its end destroys it. */
export interface ExportedMkv {
  /** Exact, in bytes; undefined when a segment has no facts. */
  readonly length?: number | undefined;
  /** Undefined when a segment has no facts. */
  readonly durationMs?: number | undefined;
  readonly stream: Readable;
}

/**
 * All segments in this order as one MKV that plays without a gap, not encoded again. The first one's header says how long it
 * is when every segment has facts. Holds one file open and a part of a cluster in memory at a time, and reads no
 * faster than it is read. Segments that play nothing or are gone are left out.
 *
 * Throws RECORDING_NOT_FOUND when none is left, RECORDING_MIXED when a decoder for the first could not read them all. The
 * stream fails with a sentence when a segment is gone or has changed once its turn comes.
 */
export async function exportMkv(segments: readonly ExportSegment[]): Promise<ExportedMkv> {
  const playable: ExportSegment[] = [];
  let header: MatroskaHeader | undefined;
  const wanted = segments.filter(({ facts }) => facts?.headerBytes !== 0);
  for (let at = 0; at < wanted.length; at += HEADERS_AT_ONCE) {
    const some = wanted.slice(at, at + HEADERS_AT_ONCE);
    for (const [i, found] of (await Promise.all(some.map(headerOf))).entries()) {
      if (!found) continue;
      header ??= found;
      if (!sameDecoder(found, header)) throw mixed();
      playable.push(some[i] as ExportSegment);
    }
  }
  if (!header) throw new AppError('RECORDING_NOT_FOUND', 'There is nothing in this recording that plays yet.');
  const facts = playable.map((segment) => segment.facts);
  const known = facts.every((fact) => fact !== undefined) ? facts : undefined;
  const durationMs = known && total(known, 'durationMs');
  const first = exportedHeader(header, durationMs);
  const length = known && first.length + total(known, 'clusters') * CLUSTER_HEAD_BYTES + total(known, 'frameBytes');
  const gone = new AbortController();
  return { length, durationMs, stream: generated(joined(first, header, playable, gone.signal), gone) };
}

function total(facts: readonly MediaFacts[], field: 'durationMs' | 'clusters' | 'frameBytes'): number {
  return facts.reduce((sum, fact) => sum + fact[field], 0);
}

function mixed(): AppError {
  const why = 'its segments differ in size or encoding';
  return new AppError('RECORDING_MIXED', `This recording cannot be one file: ${why}. Each segment plays alone.`);
}

async function headerOf(segment: ExportSegment): Promise<MatroskaHeader | undefined> {
  const file = await segment.open();
  if (!file) return undefined;
  if (file.size === 0) {
    await file.close();
    return undefined;
  }
  for await (const part of readMatroska(chunksOf(file.stream(0, file.size - 1)))) {
    if (part.kind === 'header') return part.header;
  }
  return undefined;
}

async function* joined(
  first: Buffer,
  header: MatroskaHeader,
  segments: readonly ExportSegment[],
  gone: AbortSignal,
): AsyncGenerator<Buffer, void> {
  yield first;
  let startMs = 0;
  for (const [i, segment] of segments.entries()) {
    const which = `Segment ${i + 1} of ${segments.length}`;
    const file = await segment.open();
    if (!file) throw new Error(`${which} was deleted while the recording was exported.`);
    if (gone.aborted || file.size === 0) await file.close();
    if (gone.aborted) return;
    const facts = yield* moved(file, header, startMs, segment.facts, which, gone);
    startMs += facts.durationMs;
  }
}

/** The clusters of one file with the clock at `startMs`. Throws as soon as they are not what the facts say. */
async function* moved(
  file: OpenedFile,
  header: MatroskaHeader,
  startMs: number,
  expected: MediaFacts | undefined,
  which: string,
  gone: AbortSignal,
): AsyncGenerator<Buffer, MediaFacts> {
  const sum = tally();
  let reason = 'It ends otherwise than it did.';
  const changed = (): Error => new Error(`${which} is not what it was when it was closed. ${reason}`);
  if (file.size > 0) {
    const bytes = file.stream(0, file.size - 1);
    const stop = (): unknown => bytes.destroy();
    gone.addEventListener('abort', stop, { once: true });
    try {
      let shift: number | undefined;
      for await (const part of readMatroska(chunksOf(bytes))) {
        if (part.kind === 'damage') reason = part.reason;
        if (part.kind === 'header') {
          if (!sameDecoder(part.header, header)) throw changed();
          sum.begin(part.header);
        }
        if (part.kind !== 'cluster') continue;
        sum.add(part.cluster);
        const now = sum.facts();
        if (expected && (now.clusters > expected.clusters || now.frameBytes > expected.frameBytes)) throw changed();
        shift ??= Math.round((startMs * 1e6) / header.tickNs) - sum.origin;
        yield exportedCluster(part.cluster, shift);
      }
    } finally {
      gone.removeEventListener('abort', stop);
    }
  }
  const facts = sum.facts();
  if (expected && !sameMedia(facts, expected)) throw changed();
  return facts;
}

function sameDecoder(a: MatroskaHeader, b: MatroskaHeader): boolean {
  return a.tickNs === b.tickNs && a.decoder.equals(b.decoder);
}

function sameMedia(a: MediaFacts, b: MediaFacts): boolean {
  return a.durationMs === b.durationMs && a.clusters === b.clusters && a.frameBytes === b.frameBytes;
}

function exportedCluster(cluster: Readonly<MatroskaCluster>, shift: number): Buffer {
  const head = Buffer.alloc(CLUSTER_HEAD_BYTES);
  head.writeUInt32BE(ID.cluster, 0);
  writeLongSize(head, 4, cluster.bytes + 10);
  head[12] = ID.timestamp;
  head[13] = 0x88;
  // Only a damaged file has clusters from before its start.
  head.writeBigUInt64BE(BigInt(Math.max(0, cluster.timestamp + shift)), 14);
  return Buffer.concat([head, ...cluster.elements], CLUSTER_HEAD_BYTES + cluster.bytes);
}

/**
 * The header for a file of another length, with as many bytes: what points at places of the old file or counts it (SeekHead,
 * Tags, CRC-32) becomes a Void, the Segment's size is unknown, and the duration is this one or none.
 */
function exportedHeader(header: MatroskaHeader, durationMs: number | undefined): Buffer {
  const bytes = Buffer.from(header.bytes);
  const [ebml] = children(bytes) as Iterable<Child> as [Child];
  const segment = headAt(bytes, ebml.end);
  if (!segment) throw new Error('A header without a segment came through the reader.');
  const start = ebml.end + segment.length;
  writeUnknownSize(bytes, ebml.end + 4, start);
  for (const child of children(bytes, start)) {
    if (child.id === ID.info) {
      const ticks = durationMs === undefined ? undefined : (durationMs * 1e6) / header.tickNs;
      setDuration(bytes.subarray(child.start, child.end), ticks);
    } else if (child.id !== ID.tracks) writeVoid(bytes, child.at, child.end);
  }
  return bytes;
}

function setDuration(info: Buffer, ticks: number | undefined): void {
  const inside = [...children(info)];
  const crc = inside.find((child) => child.id === ID.crc);
  if (crc) writeVoid(info, crc.at, crc.end);
  // id, size and payload take 11 bytes; what is left over must hold a Void of its own.
  const fits = ({ at, end }: Child): boolean => end - at === 11 || end - at >= 13;
  const old = inside.find((child) => child.id === ID.duration);
  // ffmpeg leaves room for a duration that it does not know yet.
  const room = old && fits(old) ? old : inside.find((child) => child.id === ID.void && fits(child));
  if (old) writeVoid(info, old.at, old.end);
  if (!room || ticks === undefined) return;
  info.writeUInt16BE(ID.duration, room.at);
  info[room.at + 2] = 0x88;
  info.writeDoubleBE(ticks, room.at + 3);
  if (room.end > room.at + 11) writeVoid(info, room.at + 11, room.end);
}

/** At least 2 bytes. */
function writeVoid(bytes: Buffer, at: number, end: number): void {
  bytes.fill(0, at, end);
  bytes[at] = ID.void;
  if (end - at - 2 < 0x7f) bytes[at + 1] = 0x80 | (end - at - 2);
  else writeLongSize(bytes, at + 1, end - at - 9);
}

function writeLongSize(bytes: Buffer, at: number, size: number): void {
  bytes.writeBigUInt64BE((1n << 56n) | BigInt(size), at);
}

/** A size of as many bytes as there are from `at` to before `end`. */
function writeUnknownSize(bytes: Buffer, at: number, end: number): void {
  bytes.fill(0xff, at, end);
  bytes[at] = 0xff >> (end - at - 1);
}
