/**
 * The arrows of the design, held against the real imports. Every rule is a function from sources to sentences, so
 * that the second half of this file can show each of them a planted breach.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { isBuiltin } from 'node:module';
import path from 'node:path';
import { describe, it, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

/** What each room may import of ours besides itself. A file at the root of `src` is a room of its own name. */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  cmd: ['app', 'config', 'runtime', 'egress', 'client', 'core', 'cli'],
  app: [
    'config',
    'core',
    'api',
    'gateway',
    'drivers',
    'egress',
    'registry',
    'storage',
    'recordings',
    'runtime',
    'client',
    'console',
  ],
  config: ['core'],
  api: ['core', 'recordings'],
  gateway: ['core'],
  drivers: ['core'],
  egress: ['core'],
  registry: ['core'],
  storage: ['core'],
  recordings: ['core'],
  runtime: ['core'],
  core: [],
  client: [],
  console: ['client'],
  cli: ['client', 'core'],
  examples: ['client'],
};
/** Tests look into every room. */
const FREE_ROOM = 'tests';

/** Where a third-party package lives. Tests may use any that is listed. */
const HOMES: Readonly<Record<string, readonly string[]>> = {
  'uWebSockets.js': ['src/gateway/'],
  ws: ['src/gateway/', 'src/runtime/', 'src/cli/cdp.ts', 'examples/'],
  commander: ['src/cli/'],
  dockerode: ['src/drivers/'],
  'http-proxy': ['src/api/'],
  'proxy-chain': ['src/egress/'],
  koa: ['src/api/'],
  '@koa/router': ['src/api/'],
  'prom-client': ['src/api/'],
  ajv: ['src/api/'],
  'ajv-formats': ['src/api/'],
  yaml: ['src/api/', 'src/console/docs/', 'cmd/console.mjs'],
  'fluent-ffmpeg': ['src/recordings/media.ts'],
  '@aws-sdk/client-s3': ['src/storage/'],
  '@aws-sdk/s3-request-presigner': ['src/storage/'],
  pino: ['src/app.ts', 'cmd/'],
  esbuild: ['cmd/bundle.mjs'],
  'chrome-launcher': ['src/app/chromium.ts'],
  vite: ['cmd/console.mjs'],
  preact: ['src/console/'],
  'swagger-ui-dist': ['src/console/docs/'],
  '@fontsource-variable/inter': ['src/console/'],
  'axe-core': [],
  'openapi-fetch': ['src/client/'],
  '@novnc/novnc': ['src/app.ts', 'src/console/'],
  'puppeteer-core': ['examples/'],
  'playwright-core': ['cmd/pictures.ts', 'examples/'],
  typescript: [],
};

const MAX_LINES = 500;
/** Generated from openapi.yaml; nobody reads it. */
const UNBOUNDED = ['src/client/schema.ts'];
const DRAWERS = ['util', 'utils', 'helper', 'helpers', 'common'];

/** Sources by path from the root of the repository, with forward slashes. */
type Sources = ReadonlyMap<string, string>;

function roomOf(file: string): string {
  const [top = '', second = ''] = file.split('/');
  return top === 'src' ? second.replace(/\.[cm]?[jt]s$/, '') : top;
}

/** Specifiers of static, dynamic, type-only and re-exporting imports. */
function importsOf(source: string): string[] {
  return ts.preProcessFile(source, true, true).importedFiles.map((imported) => imported.fileName);
}

/** The file of ours that a relative specifier means; a compiled name means its source. */
function targetOf(file: string, specifier: string, files: Sources): string {
  const target = path.posix.join(path.posix.dirname(file), specifier);
  return files.has(target) ? target : target.replace(/\.js$/, '.ts');
}

function packageOf(specifier: string): string {
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
}

function arrowViolations(files: Sources): string[] {
  return [...files].flatMap(([file, source]) => {
    const room = roomOf(file);
    if (room === FREE_ROOM) return [];
    const allowed = ARROWS[room];
    if (!allowed) return [`${file}: ${room} is no room of the design`];
    return importsOf(source)
      .filter((specifier) => specifier.startsWith('.'))
      .map((specifier) => roomOf(targetOf(file, specifier, files)))
      .filter((other) => other !== room && !allowed.includes(other))
      .map((other) => `${file}: ${room} must not import ${other}`);
  });
}

function homeViolations(files: Sources): string[] {
  return [...files].flatMap(([file, source]) => {
    const packages = importsOf(source).filter((name) => !name.startsWith('.') && !name.startsWith('node:'));
    return packages.map(packageOf).flatMap((name) => {
      if (isBuiltin(name)) return [`${file}: ${name} must be imported as node:${name}`];
      const homes = HOMES[name];
      if (!homes) return [`${file}: the package ${name} has no home`];
      const atHome = roomOf(file) === FREE_ROOM || homes.some((home) => file.startsWith(home));
      return atHome ? [] : [`${file}: the package ${name} lives in ${homes.join(', ') || 'tests/'}`];
    });
  });
}

function cycleViolations(files: Sources): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, trail: readonly string[]): void => {
    const start = trail.indexOf(file);
    if (start >= 0) found.push(`import cycle: ${[...trail.slice(start), file].join(' -> ')}`);
    if (start >= 0 || done.has(file)) return;
    for (const specifier of importsOf(files.get(file) ?? '')) {
      if (specifier.startsWith('.')) visit(targetOf(file, specifier, files), [...trail, file]);
    }
    done.add(file);
  };
  for (const file of files.keys()) visit(file, []);
  return found;
}

/** The environment, the arguments and signals belong to `cmd/`; tests and examples are programs of their own. */
function processViolations(files: Sources): string[] {
  return [...files].flatMap(([file, source]) => {
    if (!file.startsWith('src/')) return [];
    const found: string[] = importsOf(source).includes('node:process') ? [`${file}: imports node:process`] : [];
    const visit = (node: ts.Node): void => {
      if (ts.isPropertyAccessExpression(node) && /^(globalThis\.)?process\.(env|argv)$/.test(node.getText())) {
        found.push(`${file}: reads ${node.getText()}`);
      }
      if (ts.isCallExpression(node) && /^process\.(on|once|addListener)$/.test(node.expression.getText())) {
        const [event] = node.arguments;
        if (event && ts.isStringLiteralLike(event) && event.text.startsWith('SIG'))
          found.push(`${file}: listens to ${event.text}`);
      }
      ts.forEachChild(node, visit);
    };
    visit(ts.createSourceFile(file, source, ts.ScriptTarget.Latest, true));
    return found;
  });
}

function shapeViolations(files: Sources): string[] {
  return [...files].flatMap(([file, source]) => {
    const found: string[] = [];
    const drawer = file
      .split('/')
      .slice(0, -1)
      .find((folder) => DRAWERS.includes(folder));
    if (drawer) found.push(`${file}: no folder may be named ${drawer}`);
    const lines = source.replace(/\n$/, '').split('\n').length;
    if (lines > MAX_LINES && !UNBOUNDED.includes(file))
      found.push(`${file}: ${lines} lines, the wall is at ${MAX_LINES}`);
    const { statements } = ts.createSourceFile(file, source, ts.ScriptTarget.Latest);
    const exports = statements.filter(ts.isExportDeclaration).length;
    if (exports > 0 && exports + statements.filter(ts.isImportDeclaration).length === statements.length) {
      found.push(`${file}: a barrel, it only re-exports`);
    }
    return found;
  });
}

function readSources(root: string): Sources {
  const files = new Map<string, string>();
  const walk = (folder: string): void => {
    for (const entry of fs.readdirSync(path.join(root, folder), { withFileTypes: true })) {
      const name = path.posix.join(folder, entry.name);
      if (entry.isDirectory()) walk(name);
      else if (/\.(tsx?|mjs|js)$/.test(entry.name)) files.set(name, fs.readFileSync(path.join(root, name), 'utf8'));
    }
  };
  for (const folder of ['cmd', 'src', 'examples', 'tests']) walk(folder);
  return files;
}

describe('the house', () => {
  // From dist/tests/layers.test.js.
  const files = readSources(path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..'));
  const rules = { arrowViolations, homeViolations, cycleViolations, processViolations, shapeViolations };
  for (const [name, violations] of Object.entries(rules)) {
    it(`has no ${name}`, () => assert.deepEqual(violations(files), []));
  }
  it('was read whole', () => {
    for (const file of ['cmd/setup.mjs', 'src/app.ts', 'src/core/errors.ts', 'tests/layers.test.ts'])
      assert.ok(files.has(file), file);
  });
});

/** Planted sources: shown to the rule, exactly these sentences must come back. */
type Planted = [why: string, rule: (files: Sources) => string[], files: Record<string, string>, expected: string[]];

const PLANTED: Planted[] = [
  [
    'core imports a room',
    arrowViolations,
    { 'src/core/a.ts': "import '../gateway/b.ts'" },
    ['src/core/a.ts: core must not import gateway'],
  ],
  [
    'a type counts',
    arrowViolations,
    { 'src/api/a.ts': "import type { A } from '../gateway/b.ts'" },
    ['src/api/a.ts: api must not import gateway'],
  ],
  [
    'a dynamic import counts',
    arrowViolations,
    { 'src/runtime/a.ts': "await import('../drivers/b.ts')" },
    ['src/runtime/a.ts: runtime must not import drivers'],
  ],
  [
    'a re-export counts',
    arrowViolations,
    { 'src/client/a.ts': "export { A } from '../core/a.ts'" },
    ['src/client/a.ts: client must not import core'],
  ],
  [
    'config imports core at most',
    arrowViolations,
    { 'src/config.ts': "import './storage/disk.ts'" },
    ['src/config.ts: config must not import storage'],
  ],
  [
    'commands do not reach past app',
    arrowViolations,
    { 'cmd/a.ts': "import '../src/drivers/local.ts'" },
    ['cmd/a.ts: cmd must not import drivers'],
  ],
  [
    'examples are clients',
    arrowViolations,
    { 'examples/a.ts': "import '../src/core/a.ts'" },
    ['examples/a.ts: examples must not import core'],
  ],
  ['an unknown room', arrowViolations, { 'src/misc/a.ts': '' }, ['src/misc/a.ts: misc is no room of the design']],
  [
    'allowed arrows',
    arrowViolations,
    {
      'src/app.ts': "import './gateway/a.ts'",
      'src/api/a.ts': "import '../core/a.ts'; import './b.ts'",
      'tests/unit/a.test.ts': "import '../../src/core/a.ts'",
    },
    [],
  ],
  [
    'a package out of its home',
    homeViolations,
    { 'src/core/a.ts': "import pino from 'pino'" },
    ['src/core/a.ts: the package pino lives in src/app.ts, cmd/'],
  ],
  [
    'a deep import is its package',
    homeViolations,
    { 'src/core/a.ts': "import { A } from 'ajv/dist/2020.js'" },
    ['src/core/a.ts: the package ajv lives in src/api/'],
  ],
  [
    'a package nobody decided on',
    homeViolations,
    { 'cmd/a.ts': "import '@acme/left/pad.js'" },
    ['cmd/a.ts: the package @acme/left has no home'],
  ],
  [
    'a built-in without its prefix',
    homeViolations,
    { 'src/core/a.ts': "import 'fs'" },
    ['src/core/a.ts: fs must be imported as node:fs'],
  ],
  [
    'packages at home',
    homeViolations,
    { 'src/api/a.ts': "import 'koa'; import '@koa/router'; import 'node:fs'", 'tests/a.test.ts': "import 'koa'" },
    [],
  ],
  [
    'a cycle of types',
    cycleViolations,
    {
      'src/core/a.ts': "import type { B } from './b.ts'",
      'src/core/b.ts': "import './c.js'",
      'src/core/c.ts': "import './a.ts'",
    },
    ['import cycle: src/core/a.ts -> src/core/b.ts -> src/core/c.ts -> src/core/a.ts'],
  ],
  [
    'a diamond is no cycle',
    cycleViolations,
    {
      'src/core/a.ts': "import './b.ts'; import './c.ts'",
      'src/core/b.ts': "import './d.ts'",
      'src/core/c.ts': "import './d.ts'",
      'src/core/d.ts': '',
    },
    [],
  ],
  [
    'a room reads the environment',
    processViolations,
    { 'src/api/a.ts': 'const a = process.env.A; const { argv } = { argv: process.argv };' },
    ['src/api/a.ts: reads process.env', 'src/api/a.ts: reads process.argv'],
  ],
  [
    'under another name',
    processViolations,
    { 'src/api/a.ts': "import { env } from 'node:process'" },
    ['src/api/a.ts: imports node:process'],
  ],
  [
    'a room takes signals',
    processViolations,
    { 'src/app.ts': "process.once('SIGTERM', () => {})" },
    ['src/app.ts: listens to SIGTERM'],
  ],
  [
    'comments, other events and commands are fine',
    processViolations,
    { 'src/app.ts': "// process.env\nprocess.on('exit', () => {})", 'cmd/a.ts': 'process.env.A' },
    [],
  ],
  ['a drawer', shapeViolations, { 'src/core/utils/a.ts': '' }, ['src/core/utils/a.ts: no folder may be named utils']],
  [
    'a long file',
    shapeViolations,
    { 'src/core/a.ts': '\n'.repeat(501) },
    ['src/core/a.ts: 501 lines, the wall is at 500'],
  ],
  [
    'a barrel',
    shapeViolations,
    { 'src/core/a.ts': "import { A } from './b.ts';\nexport * from './c.ts';\nexport { A };" },
    ['src/core/a.ts: a barrel, it only re-exports'],
  ],
  [
    'a file at the wall, a program without exports',
    shapeViolations,
    { 'src/core/a.ts': '\n'.repeat(500), 'cmd/a.ts': "import './b.ts'" },
    [],
  ],
];

describe('the rules', () => {
  for (const [why, violations, files, expected] of PLANTED) {
    test(`${violations.name}: ${why}`, () => assert.deepEqual(violations(new Map(Object.entries(files))), expected));
  }
});
