/** The settings of the archive: where closed recordings are kept for good when that is not the data folder. */
import { parseAddress, parseFlag, parseInteger, parseWord, type Setting } from './setting.ts';

/** All of it means nothing without a bucket. */
export interface ArchiveConfig {
  /** Undefined: no archive, recordings stay in the data folder. */
  readonly s3Bucket: string | undefined;
  /** http or https address of the server; undefined: Amazon's for the region. */
  readonly s3Endpoint: string | undefined;
  readonly s3Region: string;
  /** Stands before every key, with a slash at its end; empty: none. */
  readonly s3Prefix: string;
  /** Undefined, both of them: from the SDK's own chain. */
  readonly s3AccessKeyId: string | undefined;
  readonly s3SecretAccessKey: string | undefined;
  /** The bucket is in the path and not in the host name. Undefined: with an endpoint yes, else no. */
  readonly s3PathStyle: boolean | undefined;
  readonly s3Sse: 'AES256' | 'aws:kms' | undefined;
  /** Id or ARN of the KMS key; undefined: the account's own for S3. */
  readonly s3SseKey: string | undefined;
  /** How long the disk keeps what the archive has. */
  readonly s3LocalSeconds: number;
  /** Downloads are sent to the bucket with a signed address instead of through the service. */
  readonly s3Redirect: boolean;
}

/** Rows of the table of settings. */
export const archiveSettings: { readonly [K in keyof ArchiveConfig]: Setting<ArchiveConfig[K]> } = {
  s3Bucket: {
    name: 'BERTH_S3_BUCKET',
    default: '',
    defaultShown: 'none',
    meaning: 'Bucket of Amazon S3 or a compatible server that closed recordings are moved to.',
    danger: 'Whoever may read it sees what was on screen; without a bucket, recordings are lost with the disk.',
    parse: parseBucket,
  },
  s3Endpoint: {
    name: 'BERTH_S3_ENDPOINT',
    default: '',
    defaultShown: "Amazon's for the region",
    meaning: 'The http or https address of a compatible server.',
    danger: 'Over http, recordings cross the network in the clear.',
    parse: (text) => parseAddress(text, 'https://s3.example.com'),
  },
  s3Region: {
    name: 'BERTH_S3_REGION',
    default: 'us-east-1',
    meaning: 'Region of the bucket; most compatible servers take any.',
    danger: 'With a wrong one every request is refused.',
    parse: (text) => parseText(text, /^[a-z0-9-]{1,64}$/, 'a region, such as eu-central-1'),
  },
  s3Prefix: {
    name: 'BERTH_S3_PREFIX',
    default: '',
    defaultShown: 'none',
    meaning: 'Stands before every name in the bucket, such as `berth/`.',
    danger: 'Two services must not share bucket and prefix; after a change, what lies under the old one is not seen.',
    parse: parsePrefix,
  },
  s3AccessKeyId: {
    name: 'BERTH_S3_ACCESS_KEY_ID',
    default: '',
    defaultShown: "from the SDK's chain",
    meaning: 'Access key for the bucket; the chain is `AWS_…` variables, `~/.aws`, then the role of the machine.',
    danger: 'Part of every signed address; allow it list, get, put, delete and abort in this bucket and nothing more.',
    parse: parseSecret,
  },
  s3SecretAccessKey: {
    name: 'BERTH_S3_SECRET_ACCESS_KEY',
    default: '',
    defaultShown: "from the SDK's chain",
    meaning: 'Its secret. Never logged, and not in the environment of sandboxes.',
    danger: 'Whoever has it has the recordings.',
    parse: parseSecret,
  },
  s3PathStyle: {
    name: 'BERTH_S3_PATH_STYLE',
    default: '',
    defaultShown: '`true` with an endpoint, else `false`',
    meaning: '`true`: the bucket is part of the path; `false`: of the host name.',
    danger: 'Where the server has it the other way, nothing is found.',
    parse: (text) => (text === '' ? undefined : parseFlag(text)),
  },
  s3Sse: {
    name: 'BERTH_S3_SSE',
    default: '',
    defaultShown: "the bucket's own",
    meaning: 'Encryption at rest to ask for: `AES256` or `aws:kms`.',
    danger: 'With `aws:kms` each upload is read back to see that it is whole.',
    parse: (text) => (text === '' ? undefined : parseWord(text, ['AES256', 'aws:kms'] as const)),
  },
  s3SseKey: {
    name: 'BERTH_S3_SSE_KEY',
    default: '',
    defaultShown: "the account's own",
    meaning: 'Id or ARN of the KMS key for `aws:kms`.',
    danger: 'When the key is gone, so are the recordings.',
    parse: (text) => (text === '' ? undefined : parseText(text, /^[\x21-\x7e]{1,2048}$/, 'the id or ARN of a key')),
  },
  s3LocalSeconds: {
    name: 'BERTH_S3_LOCAL_SECONDS',
    default: '300',
    meaning: 'How long the disk keeps a recording that is in the bucket, in seconds, 0 to 31536000.',
    danger: 'Long needs disk; short reads more from the bucket.',
    parse: (text) => parseInteger(text, 0, 31_536_000),
  },
  s3Redirect: {
    name: 'BERTH_S3_REDIRECT',
    default: 'false',
    meaning: '`true`: downloads are redirected to the bucket with an address that is signed for 15 minutes.',
    danger: 'Clients must reach the bucket, and whoever sees the address may use it.',
    parse: parseFlag,
  },
};

/** A sentence that names settings which do not go together, if there are such. */
export function archiveContradiction(config: ArchiveConfig): string | undefined {
  if ((config.s3AccessKeyId === undefined) !== (config.s3SecretAccessKey === undefined)) {
    return 'BERTH_S3_ACCESS_KEY_ID and BERTH_S3_SECRET_ACCESS_KEY belong together; set both or neither.';
  }
  if (config.s3SseKey !== undefined && config.s3Sse !== 'aws:kms') {
    return 'BERTH_S3_SSE_KEY is for BERTH_S3_SSE=aws:kms only.';
  }
  return undefined;
}

function parseText(text: string, pattern: RegExp, what: string): string {
  if (pattern.test(text)) return text;
  throw new Error(`must be ${what}, not ${JSON.stringify(text)}`);
}

function parseBucket(text: string): string | undefined {
  return text === '' ? undefined : parseText(text, /^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$/, 'the name of a bucket');
}

/** Segments of the letters that need no escaping anywhere, and no empty ones, which some servers drop. */
function parsePrefix(text: string): string {
  if (text === '') return '';
  const parts = text.replace(/\/$/, '').split('/');
  if (text.length <= 512 && parts.every((part) => /^[A-Za-z0-9._-]+$/.test(part) && !/^\.+$/.test(part))) {
    return `${parts.join('/')}/`;
  }
  throw new Error('must be names of letters, digits, dots, dashes and underscores with / between them');
}

/** Not repeated in the failure. */
function parseSecret(text: string): string | undefined {
  if (text === '') return undefined;
  if (/^[\x21-\x7e]{1,512}$/.test(text)) return text;
  throw new Error('must be of visible characters without spaces');
}
