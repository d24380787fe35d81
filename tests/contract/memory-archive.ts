import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { Archive, OpenedFile } from '../../src/core/contracts.ts';
import type { Segment, SegmentName } from '../../src/core/recording.ts';

/** An archive in memory that fails, or takes its time, when it is told to. */
export class MemoryArchive implements Archive {
  readonly stored = new Map<string, { segment: Segment; bytes: Buffer }>();
  /** Names in the order in which their puts began; a second time for a second put. */
  readonly puts: string[] = [];
  /** Called at the start of each call; what it throws, the call throws. */
  before: (call: 'check' | 'put' | 'list' | 'open' | 'remove', filename: string) => Promise<void> = async () => {};

  check(): Promise<void> {
    return this.before('check', '');
  }

  async put(segment: Segment, open: () => Promise<OpenedFile>, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.puts.push(segment.filename);
    await unlessAborted(this.before('put', segment.filename), signal);
    const file = await open();
    const bytes = await buffer(file.stream(0, file.size - 1));
    signal.throwIfAborted();
    if (bytes.length !== segment.size) throw new Error(`${segment.filename} has ${bytes.length} bytes`);
    this.stored.set(segment.filename, { segment, bytes });
  }

  async *list(): AsyncIterable<Segment> {
    await this.before('list', '');
    for (const { segment } of [...this.stored.values()]) yield segment;
  }

  async open({ filename }: SegmentName): Promise<OpenedFile | undefined> {
    await this.before('open', filename);
    const found = this.stored.get(filename);
    if (!found) return undefined;
    const { bytes, segment } = found;
    return {
      size: bytes.length,
      createdAt: segment.startedAt,
      stream: (start, end) => Readable.from([bytes.subarray(start, end + 1)], { objectMode: false }),
      close: async () => {},
    };
  }

  async remove({ filename }: SegmentName): Promise<boolean> {
    await this.before('remove', filename);
    return this.stored.delete(filename);
  }

  async link({ filename }: SegmentName): Promise<string> {
    return `memory:${filename}`;
  }
}

function unlessAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    work.finally(() => signal.removeEventListener('abort', stop)).then(resolve, reject);
  });
}
