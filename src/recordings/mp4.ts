/** ffmpeg's first two boxes take less than 1 KiB; a header that goes on for longer stays as it is. */
const MAX_HEADER_BYTES = 64 * 1024;

const CONTAINERS = ['trak', 'mdia'];

/**
 * The same fragmented MP4 with its duration in the header, where whoever writes it into a pipe cannot know it yet: without it
 * a player shows as duration what it has got so far. No byte more or less.
 */
export async function* withDuration(mp4: AsyncIterable<Buffer>, durationMs: number): AsyncGenerator<Buffer, void> {
  let start: Buffer | undefined = Buffer.alloc(0);
  for await (const chunk of mp4) {
    if (!start) {
      yield chunk;
      continue;
    }
    start = Buffer.concat([start, chunk]);
    const moov = [...boxes(start)].find((box) => box.type === 'moov');
    if (moov) setDurations(start.subarray(moov.at + 8, moov.end), durationMs, 0);
    if (!moov && start.length < MAX_HEADER_BYTES) continue;
    yield start;
    start = undefined;
  }
  if (start) yield start;
}

interface Box {
  readonly type: string;
  readonly at: number;
  readonly end: number;
}

/** Those that are whole. */
function* boxes(bytes: Buffer): Generator<Box> {
  for (let at = 0; at + 8 <= bytes.length; ) {
    const end = at + bytes.readUInt32BE(at);
    if (end < at + 8 || end > bytes.length) return;
    yield { type: bytes.toString('latin1', at + 4, at + 8), at, end };
    at = end;
  }
}

/** `movieScale` is that of the movie, in units a second; tracks have their own besides. */
function setDurations(container: Buffer, durationMs: number, movieScale: number): void {
  let scale = movieScale;
  for (const { type, at, end } of boxes(container)) {
    const box = container.subarray(at, end);
    if (CONTAINERS.includes(type)) setDurations(box.subarray(8), durationMs, scale);
    // Version 1 has 64 bits; ffmpeg takes it only for a duration that needs them.
    else if (box[8] !== 0) continue;
    else if (type === 'mvhd' || type === 'mdhd') {
      if (type === 'mvhd') scale = box.readUInt32BE(20);
      writeDuration(box, 24, durationMs, box.readUInt32BE(20));
    } else if (type === 'tkhd') writeDuration(box, 28, durationMs, scale);
  }
}

function writeDuration(box: Buffer, at: number, durationMs: number, scale: number): void {
  const units = Math.round((durationMs * scale) / 1000);
  if (units <= 0xffff_ffff) box.writeUInt32BE(units, at);
}
