import { createHash } from 'node:crypto';
import { addAbortSignal, type Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  type S3ClientConfig,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import type { Archive, Log, OpenedFile } from '../core/contracts.ts';
import { AppError } from '../core/errors.ts';
import { parseSegmentName, type Segment, type SegmentName } from '../core/recording.ts';
import { type Digests, digestsOf, Unreadable } from './s3-digest.ts';
import { Download } from './s3-download.ts';
import { isMissing, unavailable } from './s3-errors.ts';
import { MAX_SEGMENT_JSON_BYTES, segmentFrom } from './s3-segment.ts';
import { type Encryption, unfinishedUploads, upload } from './s3-upload.ts';

/** Where the bucket is and how it is asked. */
export interface S3ArchiveOptions {
  readonly bucket: string;
  /** http or https address; undefined: Amazon's for the region. */
  readonly endpoint: string | undefined;
  readonly region: string;
  /** Empty, or with a slash at its end. */
  readonly prefix: string;
  /** The bucket is in the path and not in the host name. */
  readonly pathStyle: boolean;
  /** Undefined: the SDK's own chain, environment, files and the machine's role. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
  readonly encryption: { readonly algorithm: 'AES256' | 'aws:kms'; readonly key: string | undefined } | undefined;
  readonly log: Log;
  /** Longest time to connect, in milliseconds. Default 5000. */
  readonly connectMs?: number;
  /** Longest time in which a request makes no progress, in milliseconds. Default 30,000. */
  readonly stallMs?: number;
}

/** How long an address of {@link S3Archive.link} is good, in seconds. */
const LINK_SECONDS = 15 * 60;
/** Unfinished uploads older than this are nobody's any more, in milliseconds. */
const ABANDONED_MS = 24 * 60 * 60 * 1000;
/** Times that a request is tried in all, within one call. */
const ATTEMPTS = 3;
/** Descriptions of segments that are fetched at once while listing. */
const FETCHES = 8;

/**
 * Recordings in a bucket of Amazon S3 or of a server like it: `<prefix><sandboxId>/<filename>` and beside it
 * `<filename>.json`, the {@link Segment}. The JSON comes first and goes last, so a recording has its description; a
 * recording counts as there when both are and its size is the one described. Failures are AppError
 * STORAGE_UNAVAILABLE, except what is wrong with the file itself.
 */
export class S3Archive implements Archive {
  readonly #options: S3ArchiveOptions;
  readonly #stallMs: number;
  readonly #where: string;
  readonly #client: S3Client;
  /** For bodies that a slow reader may pause: these are watched by {@link Download} instead of the socket's clock. */
  readonly #downloads: S3Client;

  constructor(options: S3ArchiveOptions) {
    this.#options = options;
    this.#stallMs = options.stallMs ?? 30_000;
    this.#where = `${options.endpoint ?? `S3 in ${options.region}`}, bucket ${options.bucket},`;
    const connectionTimeout = options.connectMs ?? 5000;
    const shared = clientConfig(options);
    this.#client = new S3Client({ ...shared, requestHandler: { connectionTimeout, socketTimeout: this.#stallMs } });
    this.#downloads = new S3Client({
      ...shared,
      // 0, since later SDKs come with a limit of their own.
      requestHandler: {
        connectionTimeout,
        requestTimeout: this.#stallMs,
        throwOnRequestTimeout: true,
        socketTimeout: 0,
      },
    });
  }

  async check(): Promise<void> {
    const { bucket: Bucket, prefix: Prefix } = this.#options;
    // Not a HEAD of the bucket: its answer has no body, and so no code that tells what is wrong.
    const listing = this.#client.send(new ListObjectsV2Command({ Bucket, Prefix, MaxKeys: 1 }));
    await this.#told(listing, 'be listed');
  }

  async put(segment: Segment, open: () => Promise<OpenedFile>, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const digests = await digestsOf(await open(), signal);
    if (digests.size !== segment.size) {
      throw new Error(`${segment.filename} has ${digests.size} bytes on disk, but was closed with ${segment.size}`);
    }
    await this.#putDescription(segment, signal);
    const Key = this.#key(segment);
    if ((await this.#compare(Key, digests, signal)) === 'same') return;
    let failure: unknown;
    try {
      const target = { Bucket: this.#options.bucket, Key, ...this.#encryption() };
      await upload(this.#client, target, digests, open, signal, this.#options.log);
    } catch (err) {
      if (err instanceof Unreadable) throw err.cause;
      if (signal.aborted) throw err;
      failure = err;
    }
    // Also after a failure: the answer to a success may have been lost on the way.
    const found = await this.#compare(Key, digests, signal).catch((err) => {
      throw failure === undefined ? err : this.#failed(failure, `take ${segment.filename}`);
    });
    if (found === 'same') return;
    if (found === 'other') await this.#delete(Key);
    if (failure !== undefined) throw this.#failed(failure, `take ${segment.filename}`);
    throw new Error(`${segment.filename} did not arrive in the archive as it is on disk (${found})`);
  }

  async *list(signal: AbortSignal): AsyncIterable<Segment> {
    const { bucket: Bucket, prefix: Prefix, log } = this.#options;
    let ContinuationToken: string | undefined;
    do {
      const command = new ListObjectsV2Command({ Bucket, Prefix, ...(ContinuationToken ? { ContinuationToken } : {}) });
      const page = await this.#told(this.#client.send(command, { abortSignal: signal }), 'be listed');
      const recordings = (page.Contents ?? []).flatMap(({ Key = '', Size = 0 }) => {
        const name = this.#nameOf(Key);
        return name ? [{ name, size: Size }] : [];
      });
      for (let i = 0; i < recordings.length; i += FETCHES) {
        const described = recordings.slice(i, i + FETCHES).map(async ({ name, size }) => {
          const segment = await this.#description(name, signal);
          if (segment?.size === size) return segment;
          log.warn({ filename: name.filename, size }, 'a recording in the archive is not what is said of it');
          return undefined;
        });
        for (const segment of await Promise.all(described)) if (segment) yield segment;
      }
      ContinuationToken = page.IsTruncated ? page.NextContinuationToken : undefined;
      // Half a list must not pass for the whole one: who reads it would forget the rest.
      if (page.IsTruncated && !ContinuationToken) {
        throw new AppError('STORAGE_UNAVAILABLE', `The archive at ${this.#where} does not go on with its list.`);
      }
    } while (ContinuationToken !== undefined);
  }

  async open(name: SegmentName): Promise<OpenedFile | undefined> {
    const Key = this.#key(name);
    const [segment, head] = await Promise.all([this.#description(name), this.#head(Key)]);
    if (!segment || !head || segment.size !== head.size) return undefined;
    const { size, etag } = head;
    return {
      size,
      createdAt: segment.startedAt,
      stream: (start, end) =>
        new Download(Math.max(0, end - start + 1), this.#stallMs, (signal) =>
          this.#body(Key, etag, start, end, size, signal),
        ),
      close: async () => {},
    };
  }

  async remove(name: SegmentName): Promise<boolean> {
    const Key = this.#key(name);
    const found = (await this.#head(Key)) !== undefined;
    if (found) await this.#delete(Key);
    await this.#delete(`${Key}.json`);
    return found;
  }

  /** An address that gives the recording to whoever has it, for 15 minutes. Does not ask whether it is there. */
  async link(name: SegmentName): Promise<string> {
    const command = new GetObjectCommand({
      Bucket: this.#options.bucket,
      Key: this.#key(name),
      ResponseContentDisposition: `attachment; filename="${name.filename}"`,
      ResponseContentType: 'video/x-matroska',
    });
    return this.#told(getSignedUrl(this.#client, command, { expiresIn: LINK_SECONDS }), 'be linked to');
  }

  /** Gives up the uploads that a service which died has left, after a day; says how many. Never rejects. For once at the start. */
  async sweepUploads(signal: AbortSignal): Promise<number> {
    const { bucket: Bucket, prefix: Prefix, log } = this.#options;
    let swept = 0;
    try {
      for await (const { Key, UploadId, Initiated } of unfinishedUploads(this.#client, { Bucket, Prefix }, signal)) {
        if (!this.#nameOf(Key) || !Initiated || Initiated.getTime() > Date.now() - ABANDONED_MS) continue;
        await this.#client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId }), { abortSignal: signal });
        swept += 1;
      }
    } catch (err) {
      const why = this.#failed(err, 'list unfinished uploads').message;
      if (!signal.aborted) log.warn({ why }, 'unfinished uploads stay in the archive; let its own rules remove them');
    }
    return swept;
  }

  /** Closes idle connections. */
  close(): void {
    this.#client.destroy();
    this.#downloads.destroy();
  }

  #key({ sandboxId, filename }: SegmentName): string {
    return `${this.#options.prefix}${sandboxId}/${filename}`;
  }

  /** The other way round; undefined for whatever else lies in the bucket. */
  #nameOf(key: string): SegmentName | undefined {
    const name = parseSegmentName(key.slice(key.lastIndexOf('/') + 1));
    return name && this.#key(name) === key ? name : undefined;
  }

  #encryption(): Encryption {
    const { encryption } = this.#options;
    if (!encryption) return {};
    const { algorithm: ServerSideEncryption, key } = encryption;
    return { ServerSideEncryption, ...(key === undefined ? {} : { SSEKMSKeyId: key }) };
  }

  async #putDescription(segment: Segment, signal: AbortSignal): Promise<void> {
    const Body = Buffer.from(JSON.stringify(segment));
    const command = new PutObjectCommand({
      Bucket: this.#options.bucket,
      Key: `${this.#key(segment)}.json`,
      Body,
      ContentMD5: createHash('md5').update(Body).digest('base64'),
      ContentType: 'application/json',
      ...this.#encryption(),
    });
    await this.#told(this.#client.send(command, { abortSignal: signal }), `describe ${segment.filename}`);
  }

  /** Undefined when there is none, or none that can be understood. */
  async #description(name: SegmentName, signal?: AbortSignal): Promise<Segment | undefined> {
    const command = new GetObjectCommand({ Bucket: this.#options.bucket, Key: `${this.#key(name)}.json` });
    try {
      const { Body, ContentLength = 0 } = await this.#client.send(command, signal ? { abortSignal: signal } : {});
      const body = Body as Readable;
      if (ContentLength > MAX_SEGMENT_JSON_BYTES) {
        body.destroy();
        return undefined;
      }
      return segmentFrom((await Body?.transformToString()) ?? '', name);
    } catch (err) {
      if (isMissing(err)) return undefined;
      throw this.#failed(err, `describe ${name.filename}`);
    }
  }

  async #head(Key: string, signal?: AbortSignal): Promise<{ size: number; etag: string } | undefined> {
    const command = new HeadObjectCommand({ Bucket: this.#options.bucket, Key });
    try {
      const { ContentLength = 0, ETag = '' } = await this.#client.send(command, signal ? { abortSignal: signal } : {});
      return { size: ContentLength, etag: ETag };
    } catch (err) {
      if (isMissing(err)) return undefined;
      throw this.#failed(err, 'say what it has');
    }
  }

  /** Whether the object is there with exactly these bytes. Where its ETag does not tell, it is read. */
  async #compare(key: string, digests: Digests, signal: AbortSignal): Promise<'same' | 'other' | 'missing'> {
    const head = await this.#head(key, signal);
    if (!head) return 'missing';
    if (head.size !== digests.size) return 'other';
    if (digests.etags.includes(head.etag.replaceAll('"', '').toLowerCase())) return 'same';
    const sha256 = createHash('sha256');
    const ask = (stop: AbortSignal) => this.#body(key, head.etag, 0, head.size - 1, head.size, stop);
    const download = addAbortSignal(signal, new Download(head.size, this.#stallMs, ask));
    for await (const chunk of download) sha256.update(chunk as Buffer);
    return sha256.digest('hex') === digests.sha256 ? 'same' : 'other';
  }

  /** The bytes from `start` to `end`, of the object that had this ETag and of no other. */
  async #body(
    Key: string,
    etag: string,
    start: number,
    end: number,
    size: number,
    signal: AbortSignal,
  ): Promise<Readable> {
    const whole = start === 0 && end >= size - 1;
    const command = new GetObjectCommand({
      Bucket: this.#options.bucket,
      Key,
      IfMatch: etag,
      ...(whole ? {} : { Range: `bytes=${start}-${end}` }),
    });
    const answer = await this.#told(this.#downloads.send(command, { abortSignal: signal }), 'be read');
    const body = answer.Body as Readable;
    // There are servers that look at neither.
    const range = whole ? undefined : `bytes ${start}-${end}/${size}`;
    if (answer.ETag === etag && answer.ContentRange === range) return body;
    body.on('error', () => {}).destroy();
    const why = answer.ETag === etag ? 'sent another part than was asked for' : 'has another recording there by now';
    throw new AppError('STORAGE_UNAVAILABLE', `The archive at ${this.#where} ${why}.`);
  }

  async #delete(Key: string): Promise<void> {
    const command = new DeleteObjectCommand({ Bucket: this.#options.bucket, Key });
    await this.#told(this.#client.send(command), 'remove a recording');
  }

  #told<T>(answer: Promise<T>, doing: string): Promise<T> {
    return answer.catch((err) => {
      throw this.#failed(err, doing);
    });
  }

  #failed(err: unknown, doing: string): Error {
    return unavailable(err, doing, this.#where);
  }
}

function clientConfig({ region, endpoint, pathStyle, credentials, log }: S3ArchiveOptions): S3ClientConfig {
  return {
    region,
    forcePathStyle: pathStyle,
    maxAttempts: ATTEMPTS,
    // Many servers refuse the checksums that the SDK sends by default; we have our own ways to know.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(credentials === undefined ? {} : { credentials }),
    logger: {
      debug: () => {},
      info: () => {},
      warn: (what: unknown) => log.warn({ what: String(what) }, 'from the S3 client'),
      error: (what: unknown) => log.error({ what: String(what) }, 'from the S3 client'),
    },
  };
}
