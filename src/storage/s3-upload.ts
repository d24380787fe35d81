import { createHash } from 'node:crypto';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import type { Log, OpenedFile } from '../core/contracts.ts';
import { type Digests, PART_BYTES, readPart } from './s3-digest.ts';

/** What an object is to be encrypted with, as the requests have it; empty: the bucket's own. */
export interface Encryption {
  readonly ServerSideEncryption?: 'AES256' | 'aws:kms';
  readonly SSEKMSKeyId?: string;
}

/** Where an upload goes. */
export interface Target extends Encryption {
  readonly Bucket: string;
  readonly Key: string;
}

/** How long giving up an upload may take, in milliseconds: a service that ends waits for it. */
const GIVE_UP_MS = 5000;

/**
 * Uploads a file, in parts of 8 MiB when it is larger than one, each with its MD5, which a server that looks refuses
 * when a byte was changed on the way. Holds one part in memory. The object appears at the end and whole; after a
 * failure or `signal` its parts are removed. Throws what the SDK does, or Unreadable.
 */
export async function upload(
  client: S3Client,
  target: Target,
  digests: Digests,
  open: () => Promise<OpenedFile>,
  signal: AbortSignal,
  log: Log,
): Promise<void> {
  const part = Buffer.allocUnsafe(Math.min(PART_BYTES, digests.size));
  const object = { ...target, ContentType: 'video/x-matroska', Metadata: { sha256: digests.sha256 } };
  if (digests.size <= PART_BYTES) {
    const Body = await readPart(open, 0, part);
    await client.send(new PutObjectCommand({ ...object, Body, ContentMD5: md5(Body) }), { abortSignal: signal });
    return;
  }
  const { Bucket, Key } = target;
  const { UploadId } = await client.send(new CreateMultipartUploadCommand(object), { abortSignal: signal });
  const id = { Bucket, Key, UploadId };
  await giveUpOthers(client, id, signal);
  try {
    const Parts: { ETag: string | undefined; PartNumber: number }[] = [];
    for (let start = 0; start < digests.size; start += PART_BYTES) {
      signal.throwIfAborted();
      const Body = await readPart(open, start, part);
      const PartNumber = Parts.length + 1;
      const command = new UploadPartCommand({ ...id, PartNumber, Body, ContentMD5: md5(Body) });
      const { ETag } = await client.send(command, { abortSignal: signal });
      Parts.push({ ETag, PartNumber });
    }
    const command = new CompleteMultipartUploadCommand({ ...id, MultipartUpload: { Parts } });
    await client.send(command, { abortSignal: signal });
  } catch (err) {
    // Not with the caller's signal: it has fired perhaps, and the parts cost money all the same.
    const late = { abortSignal: AbortSignal.timeout(GIVE_UP_MS) };
    await client.send(new AbortMultipartUploadCommand(id), late).catch((why: { name?: string }) => {
      // When the end of the upload was all that got lost, there is none any more.
      if (why.name !== 'NoSuchUpload') log.warn({ key: Key, why: why.name }, 'parts of an upload stay in the archive');
    });
    throw err;
  }
}

/**
 * Where the answer to the first call of an upload was lost, nobody knows its id, and its parts would stay. There is one
 * upload of a key at a time, so all but ours are such.
 */
async function giveUpOthers(
  client: S3Client,
  { Bucket, Key, UploadId }: { readonly Bucket: string; readonly Key: string; readonly UploadId: string | undefined },
  signal: AbortSignal,
): Promise<void> {
  const abortSignal = AbortSignal.any([signal, AbortSignal.timeout(GIVE_UP_MS)]);
  try {
    for await (const other of unfinishedUploads(client, { Bucket, Prefix: Key }, abortSignal)) {
      if (other.Key !== Key || other.UploadId === UploadId) continue;
      await client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId: other.UploadId }), { abortSignal });
    }
  } catch {
    // No reason not to upload. Where it is not allowed at all, the sweep at the start has said so.
  }
}

/** An upload that was begun and neither completed nor given up. */
export interface UnfinishedUpload {
  readonly Key: string;
  readonly UploadId: string;
  readonly Initiated: Date | undefined;
}

/** All whose keys begin with the prefix, page by page. Throws what the SDK does. */
export async function* unfinishedUploads(
  client: S3Client,
  where: { readonly Bucket: string; readonly Prefix: string },
  signal: AbortSignal,
): AsyncGenerator<UnfinishedUpload> {
  let markers: { KeyMarker?: string; UploadIdMarker?: string } | undefined = {};
  while (markers) {
    const command: ListMultipartUploadsCommand = new ListMultipartUploadsCommand({ ...where, ...markers });
    const page = await client.send(command, { abortSignal: signal });
    for (const { Key = '', UploadId = '', Initiated } of page.Uploads ?? []) yield { Key, UploadId, Initiated };
    const { NextKeyMarker: KeyMarker, NextUploadIdMarker: UploadIdMarker = '' } = page;
    markers = page.IsTruncated && KeyMarker ? { KeyMarker, UploadIdMarker } : undefined;
  }
}

function md5(bytes: Buffer): string {
  return createHash('md5').update(bytes).digest('base64');
}
