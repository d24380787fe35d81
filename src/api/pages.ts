import { createReadStream, existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { extname, join, relative } from 'node:path';
import type { Router } from '@koa/router';
import type { Context } from 'koa';
import { AppError } from '../core/errors.ts';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.woff2': 'font/woff2',
  '.txt': 'text/plain; charset=utf-8',
};
/** What the build has made beside a file, the smallest first. */
const ENCODINGS = [
  ['br', '.br'],
  ['gzip', '.gz'],
] as const;

/** Everything comes from us. noVNC draws its cursor as a data: address; the player plays blob: addresses that it makes. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "font-src 'self'",
  "img-src 'self' data: blob:",
  "media-src 'self' blob:",
  "connect-src 'self' ws: wss:",
  "base-uri 'self'",
  "form-action 'none'",
];
const NOT_FRAMED = "frame-ancestors 'none'";

/** The pages that the build has made of src/console, by name, and the files they load. */
export class Pages {
  readonly #folder: string;
  /** Path from the folder to its encodings. */
  readonly #files = new Map<string, readonly string[]>();

  /** When the folder last changed, in Unix milliseconds: the build makes it anew. */
  #seenAt: number | undefined;

  constructor(folder: string) {
    this.#folder = folder;
    this.#look();
  }

  /** Only what was found is served, so no path leads anywhere else. */
  #look(): void {
    const folder = this.#folder;
    const changedAt = statSync(folder, { throwIfNoEntry: false })?.mtimeMs;
    if (changedAt === undefined || changedAt === this.#seenAt) return;
    this.#seenAt = changedAt;
    this.#files.clear();
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath ?? entry.path, entry.name);
      if (!entry.isFile() || !(extname(path) in TYPES)) continue;
      const encodings = ENCODINGS.filter(([, suffix]) => existsSync(`${path}${suffix}`)).map(([name]) => name);
      this.#files.set(relative(folder, path), encodings);
    }
  }

  /** A page that lies elsewhere than its files: `base` leads from its address to theirs. `framers` may frame it, sources as in CSP. */
  send(ctx: Context, name: string, base: string, framers = "'none'"): void {
    this.#look();
    if (!this.#files.has(name)) throw new AppError('NOT_FOUND', 'The pages were not built: npm run bundle makes them.');
    const html = readFileSync(join(this.#folder, name), 'utf8').replace('<head>', `<head><base href="${base}">`);
    ctx.type = 'text/html';
    ctx.set('Content-Security-Policy', [...POLICY, `frame-ancestors ${framers}`].join('; '));
    ctx.set('Cache-Control', 'no-cache');
    ctx.body = html;
  }

  /** A file as it lies in the folder, compressed where the caller takes it. Throws NOT_FOUND. */
  sendFile(ctx: Context, path: string): void {
    if (!this.#files.has(path) || path === 'index.html') this.#look();
    const encodings = this.#files.get(path);
    if (!encodings) throw new AppError('NOT_FOUND', `There is nothing at ${ctx.path}.`);
    const encoding = ctx.acceptsEncodings([...encodings, 'identity']);
    const suffix = ENCODINGS.find(([name]) => name === encoding)?.[1] ?? '';
    const file = join(this.#folder, `${path}${suffix}`);
    const { size, mtimeMs } = statSync(file);
    const isPage = path.endsWith('.html');
    ctx.set('Content-Type', TYPES[extname(path)] as string);
    ctx.set('Vary', 'Accept-Encoding');
    if (isPage) ctx.set('Content-Security-Policy', [...POLICY, NOT_FRAMED].join('; '));
    // The name of everything else has a hash of what is in it.
    ctx.set('Cache-Control', isPage ? 'no-cache' : 'public, max-age=31536000, immutable');
    ctx.set('ETag', `"${size.toString(16)}-${Math.round(mtimeMs).toString(16)}"`);
    ctx.status = 200;
    if (ctx.fresh) {
      ctx.status = 304;
      return;
    }
    if (suffix) ctx.set('Content-Encoding', encoding as string);
    ctx.length = size;
    ctx.body = createReadStream(file);
  }
}

/** The console, the page of the API's description, and the way there for who opens the bare address. */
export function pageRoutes(router: Router, { pages }: { pages: Pages }): void {
  router.get('/', (ctx) => {
    if (ctx.accepts('json', 'html') !== 'html') throw new AppError('NOT_FOUND', `There is nothing at ${ctx.path}.`);
    ctx.redirect('console/');
  });
  router.get('/docs', (ctx) => pages.send(ctx, 'docs.html', ctx.path.endsWith('/') ? '../console/' : 'console/'));
  router.get('/console', (ctx) => {
    // Whatever the page loads lies beside it.
    if (!ctx.path.endsWith('/')) return ctx.redirect('console/');
    pages.sendFile(ctx, 'index.html');
  });
  router.get('/console/*path', (ctx) => pages.sendFile(ctx, ctx.params.path ?? ''));
}
