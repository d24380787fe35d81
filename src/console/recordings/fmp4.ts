import type { VideoTrack } from './matroska.ts';

/** A frame that knows how long it is shown. Milliseconds on the clock of the whole recording. */
export interface Sample {
  readonly time: number;
  readonly duration: number;
  readonly isKey: boolean;
  readonly bytes: Uint8Array;
}

/** Units a second: Matroska's ticks are milliseconds. */
const TIMESCALE = 1000;
/** Flags of a sample (ISO 14496-12, 8.8.3.1): depends on none, or on others. */
const KEY_FRAME = 0x02000000;
const OTHER_FRAME = 0x01010000;

/** As `MediaSource.isTypeSupported` wants it: profile, constraints and level are bytes 1 to 3 of the configuration. */
export function mimeType({ avcC }: VideoTrack): string {
  const hex = [...avcC.subarray(1, 4)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return `video/mp4; codecs="avc1.${hex}"`;
}

/** The beginning of a fragmented MP4 with this one track (ISO 14496-12, 8.2 and 8.8). */
export function initSegment({ width, height, avcC }: VideoTrack): Uint8Array {
  const matrix = [u32(0x10000), zeros(12), u32(0x10000), zeros(12), u32(0x40000000)];
  const avc1 = box(
    'avc1',
    ...[zeros(6), u16(1), zeros(16), u16(width), u16(height), u32(0x480000), u32(0x480000), zeros(4), u16(1)],
    ...[zeros(32), u16(24), u16(0xffff), box('avcC', avcC)],
  );
  const stbl = box(
    'stbl',
    full('stsd', 0, 0, u32(1), avc1),
    full('stts', 0, 0, u32(0)),
    full('stsc', 0, 0, u32(0)),
    full('stsz', 0, 0, u32(0), u32(0)),
    full('stco', 0, 0, u32(0)),
  );
  const dinf = box('dinf', full('dref', 0, 0, u32(1), full('url ', 0, 1)));
  const minf = box('minf', full('vmhd', 0, 1, zeros(8)), dinf, stbl);
  const hdlr = full('hdlr', 0, 0, zeros(4), text('vide'), zeros(12), text('Berth\0'));
  const mdhd = full('mdhd', 0, 0, zeros(8), u32(TIMESCALE), u32(0), u16(0x55c4), u16(0));
  const tkhd = full(
    'tkhd',
    0,
    3,
    ...[zeros(8), u32(1), zeros(4), u32(0), zeros(8), zeros(8), ...matrix, u32(width << 16), u32(height << 16)],
  );
  const mvhd = full(
    'mvhd',
    0,
    0,
    ...[zeros(8), u32(TIMESCALE), u32(0), u32(0x10000), u16(0x100), zeros(10), ...matrix, zeros(24), u32(2)],
  );
  const mvex = box('mvex', full('trex', 0, 0, u32(1), u32(1), u32(0), u32(0), u32(0)));
  const moov = box('moov', mvhd, box('trak', tkhd, box('mdia', mdhd, hdlr, minf)), mvex);
  return joined([box('ftyp', text('isom'), u32(0x200), text('isomiso6avc1mp41')), moov]);
}

/** Frames that follow each other without a gap, as one fragment. At least one. */
export function mediaSegment(sequence: number, samples: readonly Sample[]): Uint8Array {
  const rows = samples.flatMap(({ duration, bytes, isKey }) => [
    u32(duration),
    u32(bytes.length),
    u32(isKey ? KEY_FRAME : OTHER_FRAME),
  ]);
  const moof = (dataOffset: number): Uint8Array =>
    box(
      'moof',
      full('mfhd', 0, 0, u32(sequence)),
      box(
        'traf',
        // Offsets count from here; durations, sizes and flags stand with each sample.
        full('tfhd', 0, 0x020000, u32(1)),
        full('tfdt', 1, 0, u64(samples[0]?.time ?? 0)),
        full('trun', 0, 0x000701, u32(samples.length), u32(dataOffset), ...rows),
      ),
    );
  const length = moof(0).length;
  return joined([moof(length + 8), box('mdat', ...samples.map(({ bytes }) => bytes))]);
}

function box(type: string, ...parts: readonly Uint8Array[]): Uint8Array {
  const size = parts.reduce((sum, part) => sum + part.length, 8);
  return joined([u32(size), text(type), ...parts]);
}

function full(type: string, version: number, flags: number, ...parts: readonly Uint8Array[]): Uint8Array {
  return box(type, u32((version << 24) | flags), ...parts);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function u16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value & 0xff);
}

function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff);
}

function u64(value: number): Uint8Array {
  return joined([u32(Math.floor(value / 2 ** 32)), u32(value >>> 0)]);
}

function zeros(count: number): Uint8Array {
  return new Uint8Array(count);
}

function text(value: string): Uint8Array {
  return Uint8Array.from(value, (character) => character.charCodeAt(0));
}
