/**
 * A small S3 server that is as strict as Amazon's where it matters and s3rver is not: Content-MD5, If-Match, objects that
 * appear whole or not at all, parts that are given up or listed, the smallest part, lists in short pages. Signatures are
 * s3rver's to check. In memory; ask it what it has.
 */
import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

export interface StoredObject {
  readonly body: Buffer;
  readonly etag: string;
  readonly headers: Readonly<Record<string, string>>;
}

interface Upload {
  readonly key: string;
  readonly initiated: Date;
  readonly parts: Map<number, Buffer>;
  readonly headers: Readonly<Record<string, string>>;
}

/** A refusal as S3 words it. */
class Refusal extends Error {
  readonly status: number;
  readonly code: string;
  constructor(status: number, code: string) {
    super(code);
    this.status = status;
    this.code = code;
  }
}

const SMALLEST_PART = 5 * 1024 * 1024;

export class S3Server {
  readonly bucket = 'recordings';
  readonly objects = new Map<string, StoredObject>();
  readonly uploads = new Map<string, Upload>();
  /** Each request so far, such as `PUT a/b?partNumber=1`. */
  readonly requests: string[] = [];
  /** Keys on one page of a list. */
  pageSize = 3;
  /** ETags that prove nothing, as with keys of a KMS. */
  opaqueTags = false;
  /** Unfinished uploads may not be listed. */
  refusesSweeps = false;
  /** Looks at nothing that a client promises: neither Content-MD5 nor If-Match. */
  careless = false;
  /** Leaves the last byte out, and does not say so. */
  short = false;
  /** The next requests that fit are answered with this. */
  refusals: { fits: RegExp; status: number; code: string; times: number }[] = [];
  /** The next requests that fit are done, and their answers lost. */
  lost: { fits: RegExp; times: number } = { fits: /./, times: 0 };
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  constructor() {
    this.#server = createServer((req, res) => void this.#answer(req, res).catch(() => res.destroy()));
    this.#server.on('connection', (socket) => {
      this.#open.add(socket);
      socket.once('close', () => this.#open.delete(socket));
    });
  }

  /** Its address. */
  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#open) socket.destroy();
  }

  async #answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const url = new URL(req.url ?? '/', 'http://s3');
    const [, bucket, ...rest] = url.pathname.split('/').map(decodeURIComponent);
    const key = rest.join('/');
    const request = `${req.method} ${key}${url.search}`;
    this.requests.push(request);
    const body = await bytesOf(req);
    if (this.lost.times > 0 && this.lost.fits.test(request)) {
      this.lost.times -= 1;
      req.socket.destroy();
    }
    try {
      const refusal = this.refusals.find(({ fits, times }) => times > 0 && fits.test(request));
      if (refusal) {
        refusal.times -= 1;
        throw new Refusal(refusal.status, refusal.code);
      }
      if (bucket !== this.bucket) throw new Refusal(404, 'NoSuchBucket');
      // Amazon refuses what was signed with other bytes.
      const signed = req.headers['x-amz-content-sha256'];
      if (signed && /^[0-9a-f]{64}$/.test(String(signed)) && !this.careless) {
        if (createHash('sha256').update(body).digest('hex') !== signed)
          throw new Refusal(400, 'XAmzContentSHA256Mismatch');
      }
      // Buckets with locks want it, and so do some other servers.
      const md5 = req.headers['content-md5'];
      if (req.method === 'PUT' && !md5) throw new Refusal(400, 'InvalidRequest');
      if (md5 && !this.careless && createHash('md5').update(body).digest('base64') !== md5)
        throw new Refusal(400, 'BadDigest');
      if (key === '') this.#answerBucket(req, res, url.searchParams);
      else if (url.searchParams.has('uploads') || url.searchParams.has('uploadId'))
        this.#answerUpload(req, res, key, url.searchParams, body);
      else this.#answerObject(req, res, key, url.searchParams, body);
    } catch (err) {
      if (!(err instanceof Refusal)) throw err;
      xml(res, err.status, `<Error><Code>${err.code}</Code><Message>no</Message></Error>`, req.method === 'HEAD');
    }
  }

  #answerBucket(req: IncomingMessage, res: ServerResponse, query: URLSearchParams): void {
    assert.equal(req.method, 'GET');
    const prefix = query.get('prefix') ?? '';
    if (query.has('uploads')) {
      if (this.refusesSweeps) throw new Refusal(501, 'NotImplemented');
      const found = [...this.uploads].filter(([id, { key }]) => {
        return key.startsWith(prefix) && id > (query.get('upload-id-marker') ?? '');
      });
      const page = found.sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, this.pageSize);
      const rows = page.map(([id, { key, initiated }]) => {
        return `<Upload><Key>${key}</Key><UploadId>${id}</UploadId><Initiated>${initiated.toISOString()}</Initiated></Upload>`;
      });
      const [lastId = '', last] = page.at(-1) ?? [];
      const next = `<NextKeyMarker>${last?.key}</NextKeyMarker><NextUploadIdMarker>${lastId}</NextUploadIdMarker>`;
      const more = page.length < found.length ? `<IsTruncated>true</IsTruncated>${next}` : '';
      xml(res, 200, `<ListMultipartUploadsResult>${more}${rows.join('')}</ListMultipartUploadsResult>`);
      return;
    }
    const after = query.get('continuation-token') ?? '';
    const found = [...this.objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
    const page = found.slice(0, Math.min(this.pageSize, Number(query.get('max-keys') ?? this.pageSize)));
    const rows = page.map((key) => {
      const { body, etag } = this.objects.get(key) as StoredObject;
      return `<Contents><Key>${key}</Key><Size>${body.length}</Size><ETag>${etag}</ETag></Contents>`;
    });
    const next = `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>`;
    const more = page.length < found.length ? `<IsTruncated>true</IsTruncated>${next}` : '';
    xml(res, 200, `<ListBucketResult>${more}${rows.join('')}</ListBucketResult>`);
  }

  #answerUpload(req: IncomingMessage, res: ServerResponse, key: string, query: URLSearchParams, body: Buffer): void {
    if (query.has('uploads')) {
      const id = randomUUID();
      this.uploads.set(id, { key, initiated: new Date(), parts: new Map(), headers: kept(req) });
      xml(res, 200, `<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`);
      return;
    }
    const id = query.get('uploadId') ?? '';
    const upload = this.uploads.get(id);
    if (upload?.key !== key) throw new Refusal(404, 'NoSuchUpload');
    if (req.method === 'PUT') {
      upload.parts.set(Number(query.get('partNumber')), body);
      res.writeHead(200, { etag: this.#tag(md5(body)) }).end();
    } else if (req.method === 'DELETE') {
      this.uploads.delete(id);
      res.writeHead(204).end();
    } else {
      const numbers = [...body.toString().matchAll(/<PartNumber>(\d+)<\/PartNumber>/g)].map(([, n]) => Number(n));
      const parts = numbers.map((n) => upload.parts.get(n) ?? assert.fail(`part ${n} was never sent`));
      if (parts.slice(0, -1).some((part) => part.length < SMALLEST_PART)) throw new Refusal(400, 'EntityTooSmall');
      const ofParts = md5(Buffer.concat(parts.map((part) => Buffer.from(md5(part), 'hex'))));
      const etag = this.#tag(`${ofParts}-${parts.length}`);
      this.objects.set(key, { body: Buffer.concat(parts), etag, headers: upload.headers });
      this.uploads.delete(id);
      xml(res, 200, `<CompleteMultipartUploadResult><ETag>${etag}</ETag></CompleteMultipartUploadResult>`);
    }
  }

  #answerObject(req: IncomingMessage, res: ServerResponse, key: string, query: URLSearchParams, body: Buffer): void {
    if (req.method === 'PUT') {
      const etag = this.#tag(md5(body));
      this.objects.set(key, { body, etag, headers: kept(req) });
      res.writeHead(200, { etag }).end();
      return;
    }
    if (req.method === 'DELETE') {
      this.objects.delete(key);
      res.writeHead(204).end();
      return;
    }
    const object = this.objects.get(key);
    if (!object) throw new Refusal(404, 'NoSuchKey');
    const wanted = req.headers['if-match'];
    if (wanted !== undefined && wanted !== object.etag && !this.careless) throw new Refusal(412, 'PreconditionFailed');
    const range = /^bytes=(\d+)-(\d+)$/.exec(req.headers.range ?? '');
    const start = range ? Number(range[1]) : 0;
    const end = Math.min(range ? Number(range[2]) : Number.POSITIVE_INFINITY, object.body.length - 1);
    if (range && start > end) throw new Refusal(416, 'InvalidRange');
    const sent = object.body.subarray(
      start,
      end + 1 - (this.short && req.method === 'GET' && !key.endsWith('.json') ? 1 : 0),
    );
    const disposition = query.get('response-content-disposition');
    res.writeHead(range ? 206 : 200, {
      ...object.headers,
      etag: object.etag,
      'content-length': sent.length,
      ...(range ? { 'content-range': `bytes ${start}-${end}/${object.body.length}` } : {}),
      ...(disposition ? { 'content-disposition': disposition } : {}),
    });
    res.end(req.method === 'HEAD' ? undefined : sent);
  }

  #tag(value: string): string {
    return this.opaqueTags ? `"${randomUUID()}"` : `"${value}"`;
  }
}

/** What an object keeps of the request that made it. */
function kept(req: IncomingMessage): Record<string, string> {
  const names = /^(content-type|x-amz-meta-.*|x-amz-server-side-.*)$/;
  return Object.fromEntries(
    Object.entries(req.headers).flatMap(([name, value]) => (names.test(name) ? [[name, String(value)]] : [])),
  );
}

async function bytesOf(req: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of req) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function xml(res: ServerResponse, status: number, text: string, bodyless = false): void {
  res.writeHead(status, { 'content-type': 'application/xml' });
  res.end(bodyless ? undefined : `<?xml version="1.0" encoding="UTF-8"?>${text}`);
}

function md5(bytes: Buffer): string {
  return createHash('md5').update(bytes).digest('hex');
}
