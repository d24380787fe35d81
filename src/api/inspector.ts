import { type IncomingMessage, request } from 'node:http';
import type { Router } from '@koa/router';
import type { Context } from 'koa';
import { assertMayChange } from '../core/access.ts';
import type { Way } from '../core/contracts.ts';
import { connectTo } from '../core/endpoint.ts';
import { AppError } from '../core/errors.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import { principalOf } from './context.ts';

/** A browser that takes longer to answer for one of its files is stuck, in milliseconds. */
const ANSWER_LIMIT_MS = 10_000;
/** The page itself is read whole, to be changed; Chromium's has some 10 KB. In bytes. */
const MAX_PAGE = 1024 * 1024;
/** Headers of a file that are passed on; whatever else a sandbox says is not. */
const PASSED_ON = ['content-type', 'content-length'];

/**
 * The files come out of a sandbox, and whoever has broken into it decides what is in them. So the page gets an origin of its
 * own, where neither the session of the console nor anything else of ours is to be had; and for the same reason its ticket
 * stands in the path: no cookie comes along, and the addresses within the page are relative.
 */
const POLICY = 'sandbox allow-scripts allow-forms allow-modals allow-popups allow-downloads';
/** The inspector keeps its settings where such an origin has nothing: for this page alone, then. */
const STORAGE = `for (const name of ['localStorage', 'sessionStorage']) {
  const kept = new Map();
  const storage = {
    getItem: (key) => kept.get(String(key)) ?? null,
    setItem: (key, value) => void kept.set(String(key), String(value)),
    removeItem: (key) => void kept.delete(String(key)),
    clear: () => kept.clear(),
    key: (i) => [...kept.keys()][i] ?? null,
    get length() { return kept.size; },
  };
  Object.defineProperty(window, name, { value: storage, configurable: true });
}
`;
const STORAGE_NAME = 'storage-of-this-page.js';

/** Chromium's own inspector, out of the sandbox's browser, for a page of it: `inspector.html?ws=…` and the files that it loads. */
export function inspectorRoutes(router: Router, { sandboxes }: { readonly sandboxes: Sandboxes }): void {
  router.get('/sandboxes/:id/inspector/:ticket/*path', async (ctx) => {
    const id = ctx.params.id ?? '';
    sandboxes.get(principalOf(ctx), id);
    assertMayChange(principalOf(ctx));
    const path = ctx.params.path ?? '';
    ctx.set('Content-Security-Policy', POLICY);
    // Its own origin is none, so every file comes from elsewhere; nothing is in them that the ticket does not allow.
    ctx.set('Access-Control-Allow-Origin', '*');
    ctx.set('Cross-Origin-Resource-Policy', 'cross-origin');
    ctx.set('Cross-Origin-Opener-Policy', 'unsafe-none');
    ctx.set('Cache-Control', 'private, max-age=3600');
    if (path === STORAGE_NAME) {
      ctx.type = 'text/javascript';
      ctx.body = STORAGE;
      return;
    }
    const answer = await ask(await sandboxes.devToolsWay(id), `/devtools/${encodeURI(path)}`);
    if (answer.statusCode !== 200) {
      answer.resume();
      throw new AppError('NOT_FOUND', 'The inspector has no such file.');
    }
    if (path === 'inspector.html') await sendPage(ctx, answer);
    else {
      for (const name of PASSED_ON) if (answer.headers[name]) ctx.set(name, answer.headers[name] as string);
      ctx.body = answer;
    }
  });
}

async function sendPage(ctx: Context, answer: IncomingMessage): Promise<void> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    size += chunk.length;
    // Leaving the loop ends the connection.
    if (size > MAX_PAGE) throw new AppError('BROWSER_UNREACHABLE', `The inspector has more than ${MAX_PAGE} bytes.`);
    chunks.push(chunk);
  }
  const html = Buffer.concat(chunks).toString();
  ctx.type = 'text/html';
  ctx.set('Cache-Control', 'no-store');
  // No picture of ours either: it would be asked for, and may not be had.
  const ahead = `<link rel="icon" href="data:,">\n<script src="./${STORAGE_NAME}"></script>\n`;
  ctx.body = html.replace('<script type="module"', `${ahead}<script type="module"`);
}

/** Throws BROWSER_UNREACHABLE. */
function ask(way: Way, path: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const req = request({
      createConnection: () => connectTo(way.endpoint),
      path: `${way.prefix}${path}`,
      // Chromium answers only to `localhost` or an address in Host.
      headers: { host: 'localhost', ...(way.secret === undefined ? {} : { 'x-berth-secret': way.secret }) },
      timeout: ANSWER_LIMIT_MS,
    });
    req.once('timeout', () => req.destroy(new Error('it took too long')));
    req.once('error', (err) =>
      reject(new AppError('BROWSER_UNREACHABLE', `The browser did not answer: ${err.message}`, {}, err)),
    );
    req.once('response', resolve);
    req.end();
  });
}
