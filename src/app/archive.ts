import type { ArchiveConfig } from '../config/archive.ts';
import type { Log } from '../core/contracts.ts';
import type { S3Archive } from '../storage/s3.ts';

/** The archive that the settings ask for; undefined when they name no bucket. Asks nothing of it yet. */
export async function createArchive(config: ArchiveConfig, log: Log): Promise<S3Archive | undefined> {
  const { s3Bucket: bucket, s3Endpoint: endpoint, s3AccessKeyId, s3SecretAccessKey, s3Sse } = config;
  if (bucket === undefined) return undefined;
  // Loaded only when wanted: the SDK is large.
  const { S3Archive } = await import('../storage/s3.ts');
  return new S3Archive({
    bucket,
    endpoint,
    region: config.s3Region,
    prefix: config.s3Prefix,
    pathStyle: config.s3PathStyle ?? endpoint !== undefined,
    // Given here, the SDK does not look for others, which on a machine without a cloud takes seconds.
    credentials:
      s3AccessKeyId !== undefined && s3SecretAccessKey !== undefined
        ? { accessKeyId: s3AccessKeyId, secretAccessKey: s3SecretAccessKey }
        : undefined,
    encryption: s3Sse && { algorithm: s3Sse, key: config.s3SseKey },
    log,
  });
}
