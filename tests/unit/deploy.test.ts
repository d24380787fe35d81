/** What the compose file, the images and the examples do when nobody sets anything: the safe thing. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { exposure, loadConfig } from '../../src/config.ts';

const read = (path: string): string => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8');

interface Service {
  readonly image: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly entrypoint?: readonly string[];
  readonly network_mode?: string;
  readonly ports?: readonly string[];
  readonly privileged?: boolean;
  readonly volumes?: readonly string[];
  readonly cap_drop?: readonly string[];
  readonly cap_add?: readonly string[];
  readonly security_opt?: readonly string[];
  readonly read_only?: boolean;
}

describe('deploy/compose.yaml', () => {
  const { services } = parse(read('deploy/compose.yaml')) as { services: Readonly<Record<string, Service>> };
  // `${NAME:-default}` as compose reads it when nothing is set.
  const withDefaults = (text: string): string => text.replace(/\$\{[A-Z0-9_]+:-([^}]*)\}/g, '$1');

  it('has settings that the service takes, on loopback and without a key that everybody knows', () => {
    const { environment = {} } = services.berth ?? assert.fail();
    const env = Object.fromEntries(
      Object.entries(environment).map(([name, value]) => [name, withDefaults(String(value))]),
    );
    const config = loadConfig(env);
    assert.equal(config.apiKeys.length, 0);
    assert.equal(exposure(config, 0), undefined);
  });

  for (const [name, service] of Object.entries(services)) {
    if (service.entrypoint?.[0] === 'true') continue; // only there to be built
    it(`gives ${name} no more than it needs`, () => {
      assert.deepEqual(service.cap_drop, ['ALL']);
      assert.ok((service.cap_add ?? []).every((cap) => ['CHOWN', 'DAC_OVERRIDE', 'FOWNER'].includes(cap)));
      assert.ok(service.security_opt?.includes('no-new-privileges:true'));
      assert.equal(service.read_only, true);
      assert.notEqual(service.privileged, true);
      for (const port of service.ports ?? []) assert.match(port, /^127\.0\.0\.1:/, 'published on loopback only');
      const sockets = (service.volumes ?? []).filter((volume) => volume.includes('.sock'));
      assert.equal(sockets.length, name === 'berth' ? 1 : 0, "the engine is the service's alone");
    });
  }
});

describe('the images', () => {
  for (const path of ['Dockerfile', 'runtime-image/Dockerfile', 'novnc-client-image/Dockerfile']) {
    it(`${path} ends as a user without rights, installs from the lock file and holds no secret`, () => {
      const lines = read(path).split('\n');
      const users = lines.filter((line) => line.startsWith('USER '));
      assert.match(users.at(-1) ?? '', /^USER (?!0|root)/);
      assert.ok(!lines.some((line) => /npm install|npm i /.test(line)), 'npm ci, nothing else');
      assert.ok(!lines.some((line) => /^(ENV|ARG) .*(KEY|TOKEN|SECRET|PASSWORD)=\S/.test(line)));
      assert.ok(!lines.some((line) => /^ADD https?:/.test(line) || /curl .*\| *(ba)?sh/.test(line)));
    });
  }
});

describe('package.json and its lock file', () => {
  it('name one version of everything, with a hash, and run nothing at install', () => {
    const manifest = JSON.parse(read('package.json'));
    const versions = Object.entries<string>({ ...manifest.dependencies, ...manifest.devDependencies });
    for (const [name, version] of versions) assert.match(version, /^(npm:[\w@/.-]+@)?\d+\.\d+\.\d+$/, name);
    const { packages } = JSON.parse(read('package-lock.json'));
    for (const [name, entry] of Object.entries<{ integrity?: string; link?: boolean }>(packages)) {
      if (name !== '') assert.match(entry.integrity ?? '', /^sha512-/, name);
    }
    assert.match(read('.npmrc'), /^ignore-scripts=true$/m);
  });
});

describe('the examples', () => {
  for (const name of readdirSync(new URL('../../../examples', import.meta.url))) {
    it(`${name} has no key in it and turns nothing off that protects`, () => {
      const text = read(`examples/${name}`);
      assert.doesNotMatch(
        text,
        /NODE_TLS_REJECT_UNAUTHORIZED|rejectUnauthorized: false|--no-sandbox|curl .*(-k|--insecure)\b/,
      );
      assert.doesNotMatch(text, /(api[-_]?key|token|ticket)['"]?\s*[:=]\s*['"][\w-]{12,}/i);
    });
  }
});
