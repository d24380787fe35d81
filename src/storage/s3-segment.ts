import { parseSegmentName, SEGMENT_REASONS, type Segment, type SegmentName } from '../core/recording.ts';

/** What {@link segmentFrom} reads at most; names and metadata of a sandbox need a tenth of it. */
export const MAX_SEGMENT_JSON_BYTES = 256 * 1024;

const NUMBERS = ['size', 'startedAt', 'durationMs', 'frames', 'headerBytes', 'clusters', 'frameBytes'] as const;

/** The segment that a JSON of the bucket tells, or undefined when it is not one of this name: others may write there. */
export function segmentFrom(json: string, { filename }: Pick<SegmentName, 'filename'>): Segment | undefined {
  const name = parseSegmentName(filename);
  let told: Record<string, unknown>;
  try {
    told = { ...JSON.parse(json) };
  } catch {
    return undefined;
  }
  const { owner, metadata, reason, dropped } = told;
  const sound =
    name !== undefined &&
    told.filename === filename &&
    NUMBERS.every((field) => isCount(told[field])) &&
    (owner === undefined || typeof owner === 'string') &&
    isRecord(metadata) &&
    SEGMENT_REASONS.some((known) => known === reason) &&
    (dropped === null || isCount(dropped));
  // Only what a segment has, in case a later version wrote more.
  if (!sound) return undefined;
  const facts = Object.fromEntries(NUMBERS.map((field) => [field, told[field]]));
  return { ...name, ...facts, ...(owner === undefined ? {} : { owner }), metadata, reason, dropped } as Segment;
}

function isCount(value: unknown): boolean {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}

function isRecord(value: unknown): boolean {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((entry) => typeof entry === 'string')
  );
}
