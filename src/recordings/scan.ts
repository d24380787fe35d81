import type { OpenedFile } from '../core/contracts.ts';
import type { MediaFacts } from '../core/recording.ts';
import { chunksOf, type MatroskaCluster, type MatroskaHeader, readMatroska } from './matroska.ts';

/**
 * What a file says up to its last whole frame, from one pass over it in bounded memory; closes it. `headerBytes` is 0 when
 * there is no whole frame. Lacing is not looked into: a block is a frame. Rejects when the file cannot be read.
 */
export async function scan(file: OpenedFile): Promise<MediaFacts> {
  const sum = tally();
  if (file.size === 0) await file.close();
  else {
    for await (const part of readMatroska(chunksOf(file.stream(0, file.size - 1)))) {
      if (part.kind === 'header') sum.begin(part.header);
      if (part.kind === 'cluster') sum.add(part.cluster);
    }
  }
  return sum.facts();
}

/** Adds up the parts of one file. */
export interface Tally {
  begin(header: MatroskaHeader): void;
  add(cluster: Readonly<MatroskaCluster>): void;
  /** Where the file's clock starts, in ticks. Only after the first cluster. */
  readonly origin: number;
  facts(): MediaFacts;
}

/** A sum of nothing yet. */
export function tally(): Tally {
  let header: MatroskaHeader | undefined;
  let first: Readonly<MatroskaCluster> | undefined;
  let frames = 0;
  let clusters = 0;
  let frameBytes = 0;
  let last = 0;
  let beforeLast: number | undefined;
  let lastDuration: number | undefined;
  // A cluster's timestamp cannot be below 0, also when its frames are moved to where the clock starts.
  const origin = (): number => (first ? Math.min(first.first, first.timestamp) : 0);
  return {
    begin: (begun) => {
      header = begun;
    },
    add: (cluster) => {
      first ??= cluster;
      clusters += 1;
      frames += cluster.frames;
      frameBytes += cluster.bytes;
      if (frames === cluster.frames || cluster.last > last) {
        beforeLast = cluster.beforeLast ?? (frames === cluster.frames ? undefined : last);
        ({ last, lastDuration } = cluster);
      }
    },
    get origin() {
      return origin();
    },
    facts: () => {
      if (!header || !first) return { durationMs: 0, frames: 0, headerBytes: 0, clusters: 0, frameBytes: 0 };
      const { tickNs, frameNs } = header;
      const difference = beforeLast === undefined ? 0 : last - beforeLast;
      const frameTicks = lastDuration ?? (frameNs === undefined ? difference : frameNs / tickNs);
      const durationMs = Math.round(((last - origin() + frameTicks) * tickNs) / 1e6);
      return { durationMs, frames, headerBytes: header.bytes.length, clusters, frameBytes };
    },
  };
}
