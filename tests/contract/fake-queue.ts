import type { OpenedFile, UploadQueue } from '../../src/core/contracts.ts';
import type { Segment, SegmentName } from '../../src/core/recording.ts';
import { fileOf, nameOf, noise, segmentOf } from './archive.ts';

/** The library's side of uploads: what is on the disk, what the archive has. */
export class FakeQueue implements UploadQueue {
  readonly disk = new Map<string, { segment: Segment; bytes: Buffer }>();
  readonly done = new Map<string, number>();
  readonly gone = new Map<string, SegmentName>();
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  add(n: number, bytes = noise(100, n + 1)): Segment {
    const segment = segmentOf(nameOf(n), bytes.length);
    this.disk.set(segment.filename, { segment, bytes });
    return segment;
  }

  delete(name: SegmentName): void {
    const { filename } = name;
    this.gone.set(filename, name);
    this.disk.delete(filename);
    this.done.delete(filename);
  }

  pending(): Segment[] {
    const waiting = [...this.disk.values()].filter(({ segment }) => !this.done.has(segment.filename));
    return waiting.map(({ segment }) => segment).sort((a, b) => a.startedAt - b.startedAt);
  }

  async openLocal({ filename }: SegmentName): Promise<OpenedFile | undefined> {
    const found = this.disk.get(filename);
    return found && fileOf(found.bytes)();
  }

  async archived({ filename }: SegmentName): Promise<boolean> {
    if (!this.disk.has(filename)) return false;
    this.done.set(filename, this.#now());
    return true;
  }

  unwanted(): SegmentName[] {
    return [...this.gone.values()];
  }

  cleared({ filename }: SegmentName): void {
    this.gone.delete(filename);
  }

  evictable(graceMs: number): Segment[] {
    const old = [...this.disk.values()].filter(({ segment }) => {
      const at = this.done.get(segment.filename);
      return at !== undefined && at <= this.#now() - graceMs;
    });
    return old.map(({ segment }) => segment);
  }

  async evict({ filename }: SegmentName): Promise<void> {
    this.disk.delete(filename);
  }
}
