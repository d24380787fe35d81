import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { test } from 'node:test';
import { limitsSettings } from '../../src/config/limits.ts';
import { ConfigError, exposure, loadConfig, SETTINGS, settingsTable } from '../../src/config.ts';
import { digestOf, keyId } from '../../src/core/keys.ts';

const KEY = 'k3y-that-must-not-be-shown';

function digested(key: string): { id: string; digest: Buffer } {
  return { id: keyId(digestOf(key)), digest: digestOf(key) };
}

const limits = Object.entries(limitsSettings);

/** The sentence that stops the start. */
function refusal(env: Record<string, string>): string {
  try {
    loadConfig(env);
  } catch (err) {
    assert.ok(err instanceof ConfigError, String(err));
    return err.message;
  }
  assert.fail(`${JSON.stringify(env)} was accepted`);
}

test('an empty environment gives the defaults, frozen', () => {
  const config = loadConfig({ PATH: '/usr/bin', BERTH_PUBLIC_URL: '', BERTH_API_KEYS: '' });
  const { runDir, ...rest } = config;
  assert.deepEqual(rest, {
    host: '127.0.0.1',
    port: 3000,
    front: 'auto',
    dataDir: `${process.cwd()}/data`,
    driver: 'local',
    dockerSocket: '/var/run/docker.sock',
    runtimeImage: 'berth-runtime',
    poolSizes: new Map(),
    sandboxMemoryMb: 2048,
    sandboxCpus: 2,
    sandboxPids: 1024,
    downloadsMb: 2048,
    recordingsDays: 0,
    recordingsGb: 0,
    recordingsTenantGb: 0,
    templates: undefined,
    apiKeys: [],
    apiKeysFile: undefined,
    masterKey: undefined,
    masterKeyFile: undefined,
    publicUrl: undefined,
    maxSandboxes: 20,
    maxStarts: Math.max(2, availableParallelism()),
    maxQueue: 50,
    queueSeconds: 30,
    minFreeMemoryMb: 512,
    chromium: undefined,
    logLevel: 'info',
    startTimeoutSeconds: 60,
    onExit: undefined,
    env: 'development',
    tlsCert: undefined,
    tlsKey: undefined,
    trustedProxies: [],
    frameAncestors: undefined,
    tenantSandboxes: 0,
    tenantCreatesPerMinute: 300,
    tenantTicketsPerMinute: 600,
    sandboxClients: 200,
    addressFailuresPerMinute: 20,
    addressRequestsPerMinute: 12_000,
    addressUpgradesPerMinute: 6000,
    addressUpgrades: 256,
    addressConnections: 16_384,
    egressAllow: [],
    egressDeny: [],
    egressDns: [],
    s3Bucket: undefined,
    s3Endpoint: undefined,
    s3Region: 'us-east-1',
    s3Prefix: '',
    s3AccessKeyId: undefined,
    s3SecretAccessKey: undefined,
    s3PathStyle: undefined,
    s3Sse: undefined,
    s3SseKey: undefined,
    s3LocalSeconds: 300,
    s3Redirect: false,
  });
  assert.match(runDir, /\/berth-\d+-[0-9a-f]{8}$/);
  assert.ok(Object.isFrozen(config));
  assert.ok(Object.isFrozen(config.apiKeys));
});

test('the run folder follows the data folder', () => {
  const at = (BERTH_DATA_DIR: string) => loadConfig({ BERTH_DATA_DIR }).runDir;
  assert.equal(at('./data'), at(`${process.cwd()}/data/`));
  assert.notEqual(at('/srv/a'), at('/srv/b'));
});

test('good values arrive parsed', () => {
  const config = loadConfig({
    BERTH_HOST: '0.0.0.0',
    BERTH_API_KEYS_FILE: '/run/secrets/keys',
    BERTH_MASTER_KEY: 'ab'.repeat(32),
    BERTH_MASTER_KEY_FILE: '/run/secrets/master',
    BERTH_PORT: '0',
    BERTH_FRONT: 'ws',
    BERTH_DATA_DIR: '/srv/berth',
    BERTH_RUN_DIR: '/run/berth',
    BERTH_DRIVER: 'docker',
    BERTH_DOCKER_SOCKET: '/run/podman/podman.sock',
    BERTH_EGRESS_ALLOW: '10.0.0.0/8, *.corp.example',
    BERTH_EGRESS_DENY: 'example.com,2001:db8::1',
    BERTH_EGRESS_DNS: '9.9.9.9,[2620:fe::fe]:53',
    BERTH_RUNTIME_IMAGE: 'registry.example.com/berth-runtime:1',
    BERTH_SANDBOX_MEMORY_MB: '512',
    BERTH_SANDBOX_CPUS: '1',
    BERTH_SANDBOX_PIDS: '300',
    BERTH_DOWNLOADS_MB: '100',
    BERTH_RECORDINGS_DAYS: '30',
    BERTH_RECORDINGS_GB: '500',
    BERTH_RECORDINGS_TENANT_GB: '50',
    BERTH_TEMPLATES: '/etc/berth/templates.json',
    BERTH_API_KEYS: `acme:${KEY}, ops:${KEY}-2:admin,tv:${KEY}-3:viewer`,
    BERTH_PUBLIC_URL: 'https://berth.example.com/browsers/',
    BERTH_MAX_SANDBOXES: '1000',
    BERTH_MAX_STARTS: '1',
    BERTH_MAX_QUEUE: '0',
    BERTH_QUEUE_SECONDS: '600',
    BERTH_MIN_FREE_MEMORY_MB: '0',
    BERTH_POOL_SIZE: '3,wide=0..2,none=0',
    BERTH_CHROMIUM: process.execPath,
    BERTH_LOG_LEVEL: 'silent',
    BERTH_START_TIMEOUT_SECONDS: '600',
    BERTH_ON_EXIT: 'keep',
    BERTH_ENV: 'production',
    ...Object.fromEntries(limits.map(([, { name }], index) => [name, String(index)])),
    BERTH_TLS_CERT: '/etc/berth/tls.crt',
    BERTH_TLS_KEY: '/etc/berth/tls.key',
    BERTH_TRUSTED_PROXIES: '10.0.0.0/8, ::1',
    BERTH_FRAME_ANCESTORS: "'self' https://*.example.com:8443",
    BERTH_S3_BUCKET: 'recordings',
    BERTH_S3_ENDPOINT: 'http://minio:9000/',
    BERTH_S3_REGION: 'eu-central-1',
    BERTH_S3_PREFIX: 'berth/prod',
    BERTH_S3_ACCESS_KEY_ID: 'AKIAEXAMPLE',
    BERTH_S3_SECRET_ACCESS_KEY: `${KEY}/+=`,
    BERTH_S3_PATH_STYLE: 'false',
    BERTH_S3_SSE: 'aws:kms',
    BERTH_S3_SSE_KEY: 'arn:aws:kms:eu-central-1:111122223333:key/1234abcd',
    BERTH_S3_LOCAL_SECONDS: '0',
    BERTH_S3_REDIRECT: 'true',
    BERTH_URL: 'http://other:3000',
    BERTH_API_KEY: KEY,
  });
  assert.deepEqual(config, {
    host: '0.0.0.0',
    port: 0,
    front: 'ws',
    dataDir: '/srv/berth',
    runDir: '/run/berth',
    driver: 'docker',
    dockerSocket: '/run/podman/podman.sock',
    egressAllow: ['10.0.0.0/8', '*.corp.example'],
    egressDeny: ['example.com', '2001:db8::1'],
    egressDns: ['9.9.9.9', '[2620:fe::fe]:53'],
    runtimeImage: 'registry.example.com/berth-runtime:1',
    sandboxMemoryMb: 512,
    sandboxCpus: 1,
    sandboxPids: 300,
    downloadsMb: 100,
    recordingsDays: 30,
    recordingsGb: 500,
    recordingsTenantGb: 50,
    templates: '/etc/berth/templates.json',
    apiKeys: [
      { tenant: 'acme', ...digested(KEY), role: 'user' },
      { tenant: 'ops', ...digested(`${KEY}-2`), role: 'admin' },
      { tenant: 'tv', ...digested(`${KEY}-3`), role: 'viewer' },
    ],
    apiKeysFile: '/run/secrets/keys',
    masterKey: Buffer.alloc(32, 0xab),
    masterKeyFile: '/run/secrets/master',
    publicUrl: 'https://berth.example.com/browsers',
    maxSandboxes: 1000,
    maxStarts: 1,
    maxQueue: 0,
    queueSeconds: 600,
    minFreeMemoryMb: 0,
    poolSizes: new Map([
      ['default', { min: 3, max: 3 }],
      ['wide', { min: 0, max: 2 }],
    ]),
    chromium: process.execPath,
    logLevel: 'silent',
    startTimeoutSeconds: 600,
    onExit: 'keep',
    env: 'production',
    tlsCert: '/etc/berth/tls.crt',
    tlsKey: '/etc/berth/tls.key',
    trustedProxies: ['10.0.0.0/8', '::1'],
    ...Object.fromEntries(limits.map(([key], index) => [key, index])),
    frameAncestors: "'self' https://*.example.com:8443",
    s3Bucket: 'recordings',
    s3Endpoint: 'http://minio:9000',
    s3Region: 'eu-central-1',
    s3Prefix: 'berth/prod/',
    s3AccessKeyId: 'AKIAEXAMPLE',
    s3SecretAccessKey: `${KEY}/+=`,
    s3PathStyle: false,
    s3Sse: 'aws:kms',
    s3SseKey: 'arn:aws:kms:eu-central-1:111122223333:key/1234abcd',
    s3LocalSeconds: 0,
    s3Redirect: true,
  });
});

test('a bad value stops the start with one sentence that names the setting', () => {
  const bad: Record<string, string[]> = {
    BERTH_HOST: ['http://127.0.0.1', '127.0.0.1:3000', 'a b', '-x'],
    BERTH_PORT: ['65536', '-1', '3000.5', '0x50', ' 3000', 'tcp://10.0.0.1:3000'],
    BERTH_RUN_DIR: [`/${'x'.repeat(38)}`, `/${'é'.repeat(19)}`],
    BERTH_MASTER_KEY: ['short', 'zz'.repeat(32), 'ab'.repeat(31), 'a b'],
    BERTH_DRIVER: ['kubernetes', 'Local'],
    BERTH_EGRESS_ALLOW: ['10.0.0.0/33', 'http://a', 'a b', '*', '-a.example'],
    BERTH_EGRESS_DENY: ['a,:'],
    BERTH_EGRESS_DNS: ['dns.example.com', '9.9.9.9:x', '[9.9'],
    BERTH_RUNTIME_IMAGE: ['Upper', 'a b'],
    BERTH_SANDBOX_MEMORY_MB: ['255', 'all'],
    BERTH_SANDBOX_CPUS: ['0', '1.5'],
    BERTH_SANDBOX_PIDS: ['127'],
    BERTH_RECORDINGS_DAYS: ['-1', '36501', '1.5', 'forever'],
    BERTH_RECORDINGS_GB: ['-1', '1048577', '10GB'],
    BERTH_RECORDINGS_TENANT_GB: ['-1', '1048577'],
    BERTH_DOWNLOADS_MB: ['0', '1048577', '1.5', 'all'],
    BERTH_API_KEYS: ['x', `acme:${KEY}:root`, 'acme:short', `:${KEY}`, `a b:${KEY}`, `a:${KEY},`, `a:${KEY}:user:x`],
    BERTH_PUBLIC_URL: ['berth.example.com', 'ftp://a', 'http://u:p@a', 'http://a?', 'http://a/#', 'http://'],
    BERTH_MAX_SANDBOXES: ['0', '1001', 'many'],
    BERTH_MAX_STARTS: ['0', '1001'],
    BERTH_MAX_QUEUE: ['-1', '1001'],
    BERTH_QUEUE_SECONDS: ['0', '601'],
    BERTH_MIN_FREE_MEMORY_MB: ['-1', '1048577', '1GB'],
    BERTH_POOL_SIZE: ['-1', '101', 'some', '3..2', '1..2..3', 'a=1,a=2', '1,2', 'a b=1', '..3', '2..'],
    BERTH_CHROMIUM: ['/nowhere/chromium', '/'],
    BERTH_LOG_LEVEL: ['verbose', 'INFO'],
    BERTH_START_TIMEOUT_SECONDS: ['0', '601', '1e2'],
    BERTH_FRONT: ['uws', 'Auto'],
    BERTH_ON_EXIT: ['drop'],
    BERTH_TENANT_SANDBOXES: ['1001', '-1'],
    BERTH_ADDRESS_CONNECTIONS: ['1000000000', '1.5', 'many'],
    BERTH_ENV: ['prod', 'Production'],
    BERTH_TRUSTED_PROXIES: [
      'proxy.example.com',
      '10.0.0.0/33',
      '10.0.0.0/0',
      '10.0.0.0/8/8',
      '::/129',
      '10.0.0.1,',
      '*',
    ],
    BERTH_FRAME_ANCESTORS: ["'none'; script-src *", 'a,b', 'https://a\r\nX: y'],
    BERTH_S3_BUCKET: ['a', 'a b', 's3://bucket', 'bucket/folder'],
    BERTH_S3_ENDPOINT: ['minio:9000', 's3.example.com', 'http://u:p@minio:9000', 'http://minio?x'],
    BERTH_S3_REGION: ['eu central', 'http://x'],
    BERTH_S3_PREFIX: ['/', '/a', 'a//b', '../x', 'a/./b', 'a b', 'ü'],
    BERTH_S3_ACCESS_KEY_ID: ['A K', 'x', 'ü'],
    BERTH_S3_SECRET_ACCESS_KEY: ['a b', `${KEY}\n`],
    BERTH_S3_PATH_STYLE: ['1', 'yes', 'True'],
    BERTH_S3_SSE: ['aes256', 'kms'],
    BERTH_S3_SSE_KEY: ['a b', 'x'],
    BERTH_S3_LOCAL_SECONDS: ['-1', '31536001', '5m'],
    BERTH_S3_REDIRECT: ['1', 'on'],
  };
  for (const [name, values] of Object.entries(bad)) {
    for (const value of values) {
      const sentence = refusal({ [name]: value });
      assert.ok(sentence.startsWith(`${name} `), sentence);
      assert.match(sentence, /^[^\n]+[^.]\.$/);
    }
  }
});

test('the longest run folder still gives a socket a valid name', () => {
  const runDir = `/${'x'.repeat(37)}`;
  assert.equal(loadConfig({ BERTH_RUN_DIR: runDir }).runDir, runDir);
  assert.ok(Buffer.byteLength(`${runDir}/${'i'.repeat(64)}/s`) < 107);
});

test('no failure repeats a key, wherever it was typed', () => {
  const secrets = ['s3cr3t', KEY];
  const wrong = [
    `${KEY}`,
    `${KEY}:acme`,
    `acme:s3cr3t`,
    `acme ${KEY}`,
    `acme:${KEY}:${KEY}`,
    `a:${KEY},b:${KEY}`,
    `a:b:${KEY}`,
  ];
  const sentences = [
    ...wrong.map((BERTH_API_KEYS) => refusal({ BERTH_API_KEYS })),
    refusal({ BERTH_PUBLIC_URL: `https://u:${KEY}@berth.example.com` }),
    refusal({ BERTH_API_KEYS: `a:${KEY}`, BERTH_APIKEYS: KEY }),
    refusal({ BERTH_S3_SECRET_ACCESS_KEY: KEY }),
    refusal({ BERTH_S3_ACCESS_KEY_ID: KEY }),
    refusal({ BERTH_S3_SECRET_ACCESS_KEY: `${KEY} ` }),
    refusal({ BERTH_S3_ENDPOINT: `https://u:${KEY}@s3.example.com` }),
  ];
  for (const sentence of sentences) assert.ok(!secrets.some((secret) => sentence.includes(secret)), sentence);
});

test('an unknown setting is refused with the nearest known name', () => {
  assert.equal(refusal({ BERTH_DATADIR: 'x' }), 'BERTH_DATADIR is not a setting; the nearest is BERTH_DATA_DIR.');
  assert.match(refusal({ BERTH_PROT: '1' }), /BERTH_PORT\.$/);
  assert.match(refusal({ BERTH_API_KEYZ: '' }), /nearest is BERTH_API_KEY/);
});

test('a host that others can reach needs keys', () => {
  for (const BERTH_HOST of ['0.0.0.0', '::', '192.168.1.5', 'berth.example.com', '127.evil.example']) {
    const config = loadConfig({ BERTH_HOST });
    assert.match(exposure(config, 0) ?? '', /^BERTH_HOST .*BERTH_API_KEYS/);
    assert.equal(exposure(config, 1), undefined);
  }
  for (const BERTH_HOST of ['127.0.0.1', '127.8.8.8', '::1', 'localhost']) {
    assert.equal(exposure(loadConfig({ BERTH_HOST }), 0), undefined);
  }
});

test('certificate, proxies and production need what they need', () => {
  const why = (env: Record<string, string>, keys: number): string => exposure(loadConfig(env), keys) ?? '';
  const [BERTH_TLS_CERT, BERTH_TLS_KEY] = ['/tls.crt', '/tls.key'];
  assert.match(refusal({ BERTH_TLS_CERT }), /^BERTH_TLS_CERT and BERTH_TLS_KEY belong together/);
  assert.match(refusal({ BERTH_TLS_KEY }), /^BERTH_TLS_CERT and BERTH_TLS_KEY belong together/);
  assert.match(why({ BERTH_TRUSTED_PROXIES: '::1' }, 0), /^BERTH_TRUSTED_PROXIES .* there are no keys/);
  assert.equal(why({ BERTH_TRUSTED_PROXIES: '::1' }, 1), '');
  const BERTH_ENV = 'production';
  const proxied = { BERTH_PUBLIC_URL: 'https://berth.example.com' };
  assert.match(why({ BERTH_ENV, BERTH_TLS_CERT, BERTH_TLS_KEY }, 0), /^BERTH_ENV is production, .* there are no keys/);
  for (const open of [{}, { BERTH_PUBLIC_URL: 'http://a' }, { ...proxied, BERTH_HOST: '0.0.0.0' }]) {
    assert.match(why({ BERTH_ENV, ...open }, 1), /^BERTH_ENV is production, .* in the clear/);
  }
  for (const safe of [{ BERTH_TLS_CERT, BERTH_TLS_KEY }, { BERTH_TRUSTED_PROXIES: '10.0.0.1' }, proxied]) {
    assert.equal(why({ BERTH_ENV, ...safe }, 1), '');
  }
});

test('every setting has its row in the table', () => {
  const rows = settingsTable().split('\n').slice(2);
  assert.equal(rows.length, SETTINGS.length);
  for (const [index, row] of rows.entries()) {
    const cells = row.split('|').map((cell) => cell.trim());
    assert.equal(cells.length, 6, row);
    assert.equal(cells[1], `\`${SETTINGS[index]?.name}\``);
    for (const cell of cells.slice(1, 5)) assert.notEqual(cell, '', row);
  }
});
