/**
 * Makes one file of the compiled runtime, dist/runtime.mjs: a sandbox's image has just that, and it loads in half the time. And
 * makes a program of `berth`, package.json's bin, which tsc does not and which `npx berth` in a clone wants. And the pages of
 * the console, dist/console.
 */
import { chmodSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

await build({
  absWorkingDir: fileURLToPath(new URL('..', import.meta.url)),
  entryPoints: ['dist/cmd/runtime.js'],
  outfile: 'dist/runtime.mjs',
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  // Packages in there that are not modules of ECMAScript call it for Node's own.
  banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
});

chmodSync(fileURLToPath(new URL('../dist/cmd/berth.js', import.meta.url)), 0o755);
await import('./console.mjs');
