import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { settingsTable } from '../src/config.ts';
import { ERRORS } from '../src/core/errors.ts';

/** From dist/tests/openapi.test.js. */
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');
const METHODS = ['get', 'put', 'post', 'delete', 'patch', 'head', 'options', 'trace'];

interface Operation {
  readonly operationId?: string;
  readonly summary?: string;
  readonly responses: Readonly<Record<string, unknown>>;
}
type Paths = Readonly<Record<string, Readonly<Record<string, Operation>>>>;

/** Every operation as `GET /path`. */
function operations(paths: Paths): { route: string; operation: Operation }[] {
  return Object.entries(paths).flatMap(([path, item]) =>
    Object.entries(item)
      .filter(([method]) => METHODS.includes(method))
      .map(([method, operation]) => ({ route: `${method.toUpperCase()} ${path}`, operation })),
  );
}

/** References that lead nowhere. */
function danglingReferences(document: unknown): string[] {
  const found: string[] = [];
  const walk = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    for (const [key, inner] of Object.entries(value)) {
      if (key === '$ref' && resolve(document, String(inner)) === undefined) found.push(String(inner));
      walk(inner);
    }
  };
  walk(document);
  return found;
}

function resolve(document: unknown, ref: string): unknown {
  if (!ref.startsWith('#/')) return undefined;
  const parts = ref
    .slice(2)
    .split('/')
    .map((part) => decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~'));
  return parts.reduce<unknown>((at, part) => (at as Record<string, unknown> | undefined)?.[part], document);
}

/** Components that nothing refers to, such as `schemas/Old`. */
function unusedComponents(document: { components: Readonly<Record<string, object>> }): string[] {
  const text = JSON.stringify(document);
  return Object.entries(document.components)
    .filter(([kind]) => kind !== 'securitySchemes')
    .flatMap(([kind, entries]) => Object.keys(entries).map((name) => `${kind}/${name}`))
    .filter((name) => !text.includes(`"#/components/${name}"`));
}

/**
 * The routes that stand in a file of src/api as `router.<method>('<path>'`, or with the path as a loop's variable or in a
 * template. Throws where it meets a path that it cannot read, so that none is overlooked.
 */
function routesOf(source: string): string[] {
  const loops = new Map<string, string[]>();
  for (const [, name, list] of source.matchAll(/for \(const (\w+) of \[([^\]]*)\]\)/g)) {
    loops.set(
      name as string,
      [...(list as string).matchAll(/'([^']*)'/g)].map((m) => m[1] as string),
    );
  }
  return [
    ...source.matchAll(/\brouter\s*\.\s*(get|put|post|delete|patch|all|use|head|register)\(\s*([^,)]+)/g),
  ].flatMap(([, method, first]) => {
    const text = (first as string).trim();
    let paths: string[] = [];
    const literal = /^'([^']*)'$/.exec(text) ?? /^`([^`]*)`$/.exec(text);
    if (literal) {
      paths = [literal[1] as string];
      for (const [name, values] of loops) {
        paths = paths.flatMap((path) =>
          path.includes(`\${${name}}`) ? values.map((v) => path.replace(`\${${name}}`, v)) : [path],
        );
      }
    } else paths = loops.get(text) ?? [];
    if (paths.length === 0 || paths.some((path) => path.includes('${')))
      throw new Error(`cannot read the route router.${method}(${text}`);
    return paths.map((path) => `${(method as string).toUpperCase()} ${path.replace(/:(\w+)/g, '{$1}')}`);
  });
}

/** Rows of the Markdown table whose header is this line, each as its cells. */
function tableRows(markdown: string, header: string): string[][] {
  const lines = markdown.split('\n');
  const start = lines.indexOf(header);
  assert.ok(start >= 0, `README.md has no table "${header}"`);
  const rows = lines.slice(start + 2);
  const end = rows.findIndex((line) => !line.startsWith('|'));
  return rows.slice(0, end < 0 ? undefined : end).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

/** Routes that are another name or a convenience beside a documented one, and the path that documents or explains them. */
const ALIASES: Readonly<Record<string, string>> = {
  'GET /sandboxes/{id}/json': 'DevTools answers it like /json/list; its summary says so',
  'PUT /sandboxes/{id}/json/new': "DevTools' own, for its HTTP clients",
  'GET /sandboxes/{id}/json/activate/{target}': "DevTools' own, for its HTTP clients",
  'GET /sandboxes/{id}/json/close/{target}': "DevTools' own, for its HTTP clients",
  'GET /sandboxes/{id}/inspector/{ticket}/*path': 'where `devtoolsFrontendUrl` of /json/list leads',
  'GET /novnc/*path': 'noVNC for pages of others',
  'GET /console/*path': 'files of the pages',
  'GET /': 'leads browsers to the console',
};

describe('openapi.yaml', () => {
  const document = parse(read('openapi.yaml')) as {
    openapi: string;
    info: { version: string };
    paths: Paths;
    components: Record<string, object>;
  };

  it('is an OpenAPI 3.1 document of this version of Berth', () => {
    assert.match(document.openapi, /^3\.1\./);
    assert.equal(document.info.version, JSON.parse(read('package.json')).version);
  });

  it('has no reference that leads nowhere and no part that nothing refers to', () => {
    assert.deepEqual(danglingReferences(document), []);
    assert.deepEqual(unusedComponents(document), []);
  });

  it('gives every operation an id of its own, a summary and answers', () => {
    const all = operations(document.paths);
    assert.ok(all.length > 15);
    const ids = all.map(({ operation }) => operation.operationId);
    assert.deepEqual(
      ids.filter((id, i) => id === undefined || ids.indexOf(id) !== i),
      [],
    );
    for (const { route, operation } of all) {
      assert.ok(operation.summary, `${route} has no summary`);
      assert.ok(
        Object.keys(operation.responses).some((status) => status.startsWith('2')),
        `${route} has no success`,
      );
    }
  });

  it('and the typed client were made for each other: src/client/schema.ts is what `npm run generate` writes', {
    timeout: 60_000,
  }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'berth-schema-'));
    try {
      const [program = '', ...args] = (JSON.parse(read('package.json')).scripts.generate as string).split(' ');
      const out = args.indexOf('src/client/schema.ts');
      assert.ok(out > 0, 'npm run generate writes src/client/schema.ts');
      args[out] = join(folder, 'schema.ts');
      await promisify(execFile)(join(ROOT, 'node_modules/.bin', program), args, { cwd: ROOT, timeout: 50_000 });
      assert.equal(readFileSync(join(folder, 'schema.ts'), 'utf8'), read('src/client/schema.ts'));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('describes every route of the API, and no other', () => {
    const routes = readdirSync(join(ROOT, 'src/api')).flatMap((file) => routesOf(read(`src/api/${file}`)));
    assert.ok(routes.length > 15);
    // The router takes a trailing slash where there is none, and the BrowserTool's list has one.
    const normal = (route: string): string => route.replace(/(?<=.)\/$/, '');
    const described = operations(document.paths).map(({ route }) => normal(route));
    assert.deepEqual(
      routes.filter((route) => !described.includes(normal(route)) && !(route in ALIASES)),
      [],
      'routes that are not described',
    );
    assert.deepEqual(
      described.filter((route) => !routes.map(normal).includes(route)),
      [],
      'descriptions without a route',
    );
    assert.deepEqual(
      Object.keys(ALIASES).filter((route) => !routes.includes(route) || described.includes(route)),
      [],
      'exceptions that are none any more',
    );
  });
});

describe('README.md', () => {
  const readme = existsSync(join(ROOT, 'README.md')) ? read('README.md') : '';

  it('lists every error with its code, status and words, and no other', () => {
    const shown = tableRows(readme, '| Code | Status | Error | When |').map(([code, status, error]) =>
      [code, status, error].join(' | '),
    );
    const real = Object.values(ERRORS).map(({ code, status, error }) => [code, status, error].join(' | '));
    assert.deepEqual(shown, [...real].sort());
    assert.equal(
      new Set(Object.values(ERRORS).map(({ code }) => code)).size,
      real.length,
      'codes are never used twice',
    );
  });

  it('says when each error comes', () => {
    for (const [code, , , when] of tableRows(readme, '| Code | Status | Error | When |'))
      assert.match(when ?? '', /^.{10,}\.$/, `code ${code}`);
  });

  it('has the table of settings that the program prints', () => {
    const wanted = settingsTable();
    const start = readme.indexOf(wanted.split('\n')[0] as string);
    assert.ok(start >= 0, 'README.md has no table of settings');
    assert.equal(readme.slice(start).split('\n\n')[0], wanted);
  });
});

describe('this test', () => {
  it('finds references that lead nowhere and parts that nothing uses', () => {
    const document = {
      a: { $ref: '#/components/schemas/Gone' },
      b: { $ref: '#/components/schemas/Here' },
      components: { schemas: { Here: {}, Old: {} } },
    };
    assert.deepEqual(danglingReferences(document), ['#/components/schemas/Gone']);
    assert.deepEqual(unusedComponents(document), ['schemas/Old']);
    assert.deepEqual(danglingReferences({ a: { $ref: 'other.yaml#/x' } }), ['other.yaml#/x']);
    assert.deepEqual(
      danglingReferences({ paths: { '/a/{b}': { get: {} } }, a: { $ref: '#/paths/~1a~1%7Bb%7D/get' } }),
      [],
    );
  });

  it('reads routes with literal, looped and composed paths, and refuses to overlook one', () => {
    assert.deepEqual(routesOf("router.get('/a/:id', f);\nrouter\n  .put('/b', g);"), ['GET /a/{id}', 'PUT /b']);
    assert.deepEqual(
      // biome-ignore lint/suspicious/noTemplateCurlyInString: it is source text
      routesOf("for (const base of ['/x', '/y/:id']) { router.get(base, f); router.delete(`${base}/:n`, g); }"),
      ['GET /x', 'GET /y/{id}', 'DELETE /x/{n}', 'DELETE /y/{id}/{n}'],
    );
    assert.throws(() => routesOf('router.get(PATH, f)'), /cannot read the route router\.get\(PATH/);
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is source text
    assert.throws(() => routesOf('router.get(`/a/${x}`, f)'), /cannot read/);
  });

  it('reads Markdown tables', () => {
    assert.deepEqual(tableRows('x\n| A | B |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |', '| A | B |'), [['1', '2']]);
    assert.throws(() => tableRows('x', '| A | B |'), /no table/);
  });
});
