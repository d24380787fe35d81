/**
 * Makes the pages of src/console, dist/console: static files that the service hands out, each beside its compressed forms.
 * Does nothing when none of what they are made of has changed.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { parse } from 'yaml';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const OUT = join(ROOT, 'dist/console');
const MARK = join(OUT, '.made-of');
const PAGES = ['index', 'live', 'docs'];
/** Smaller ones gain nothing, and pictures and fonts are compressed already. */
const MIN_BYTES = 512;
const PLAIN = /\.(html|js|css|svg)$/;

function filesBelow(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

function fingerprint() {
  const hash = createHash('sha256');
  const sources = ['src/console', 'src/client'].flatMap((folder) => filesBelow(join(ROOT, folder)));
  // What is installed counts by the lock file.
  for (const file of [
    ...sources,
    ...['package-lock.json', 'openapi.yaml'].map((name) => join(ROOT, name)),
    fileURLToPath(import.meta.url),
  ]) {
    hash.update(`${file}\0`).update(readFileSync(file)).update('\0');
  }
  return hash.digest('hex');
}

/** The fields of a create as openapi.yaml explains them, so that the console says the same and forgets none. */
function createFields() {
  const { components } = parse(readFileSync(join(ROOT, 'openapi.yaml'), 'utf8'));
  const resolved = ({ $ref, ...rest }) => ({ ...($ref ? components.schemas[$ref.split('/').at(-1)] : {}), ...rest });
  return Object.fromEntries(
    Object.entries(components.schemas.CreateSandbox.properties).map(([name, field]) => [name, resolved(field)]),
  );
}

const mark = fingerprint();
if (!existsSync(MARK) || readFileSync(MARK, 'utf8') !== mark) {
  // Loaded only when there is something to do: that alone takes half a second.
  const { build } = await import('vite');
  rmSync(OUT, { recursive: true, force: true });
  await build({
    configFile: false,
    root: join(ROOT, 'src/console'),
    // Relative addresses: behind a proxy the service may lie below a path.
    base: './',
    logLevel: 'warn',
    define: { __CREATE_FIELDS__: JSON.stringify(createFields()) },
    esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
    build: {
      outDir: OUT,
      emptyOutDir: true,
      // noVNC waits for the answer of a codec at its top level.
      target: 'es2022',
      // A data: address would need a hole in the policy of the pages.
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
      reportCompressedSize: false,
      chunkSizeWarningLimit: 2000,
      rollupOptions: { input: PAGES.map((page) => join(ROOT, `src/console/${page}.html`)) },
    },
  });
  for (const file of filesBelow(OUT)) {
    const bytes = readFileSync(file);
    if (!PLAIN.test(file) || bytes.length < MIN_BYTES) continue;
    writeFileSync(`${file}.gz`, gzipSync(bytes, { level: 9 }));
    const params = { [constants.BROTLI_PARAM_QUALITY]: 10, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
    writeFileSync(`${file}.br`, brotliCompressSync(bytes, { params }));
  }
  writeFileSync(MARK, mark);
}
