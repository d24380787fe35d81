import { spawn } from 'node:child_process';
import type { RuntimeConfig } from '../core/contracts.ts';
import { childEnv } from './desktop.ts';

/** A picture takes a tenth of a second; an X server that is stuck never answers. In milliseconds. */
const LIMIT_MS = 5000;
/** In base64 it has to fit into a line of the control connection, of 4 MiB; in bytes. */
const MAX_BYTES = 2.5 * 1024 * 1024;
/** Of ffmpeg's scale from 2, the best, to 31. A screen full of noise may need the second. */
const QUALITIES = [4, 31];

/**
 * The screen as a JPEG, at most `width` pixels wide. From the X server and not from the browser: that way it shows what a
 * viewer sees, and a page that hangs does not keep it waiting.
 */
export async function takeScreenshot(config: RuntimeConfig, display: number, width: number): Promise<Buffer> {
  for (const quality of QUALITIES) {
    const picture = await take(config, display, width, quality);
    if (picture) return picture;
  }
  throw new Error(`the picture of the screen has more than ${MAX_BYTES} bytes`);
}

/** Undefined when it is too large. */
function take(config: RuntimeConfig, display: number, width: number, quality: number): Promise<Buffer | undefined> {
  const { viewport } = config.spec;
  const args = [
    ...['-hide_banner', '-loglevel', 'error', '-nostdin', '-threads', '1'],
    ...['-f', 'x11grab', '-draw_mouse', '0', '-video_size', `${viewport.width}x${viewport.height}`],
    ...['-i', `:${display}`, '-frames:v', '1'],
    ...(width < viewport.width ? ['-vf', `scale=${width}:-1:flags=area`] : []),
    ...['-c:v', 'mjpeg', '-q:v', String(quality), '-f', 'image2pipe', 'pipe:1'],
  ];
  const child = spawn('ffmpeg', args, {
    cwd: config.dir,
    env: childEnv(config, display),
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
  });
  const chunks: Buffer[] = [];
  let size = 0;
  let words = '';
  child.stdout.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size > MAX_BYTES) child.kill('SIGKILL');
    else chunks.push(chunk);
  });
  child.stderr.on('data', (chunk: Buffer) => {
    words = (words + chunk.toString('latin1')).slice(-500);
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      if (size > MAX_BYTES) resolve(undefined);
      else if (code === 0 && size > 0) resolve(Buffer.concat(chunks));
      else reject(new Error(`ffmpeg took no picture of the screen: ${words.trim().split('\n').at(-1) ?? ''}`));
    });
  });
}
