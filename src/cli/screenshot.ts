import { Cdp } from './cdp.ts';
import { EXIT, Failure, misuse } from './failure.ts';
import type { Io } from './io.ts';
import { withoutAddress } from './open.ts';
import { size } from './output.ts';
import { type CommonFlags, openSession } from './session.ts';
import { writeWhole } from './transfer.ts';

/** A page that has not been painted by then, in milliseconds, is hidden, hung or waits for an answer of somebody's. */
const LIMIT_MS = 20_000;

const FORMATS = { png: 'png', jpg: 'jpeg', jpeg: 'jpeg', webp: 'webp' } as const;

interface ScreenshotFlags extends CommonFlags {
  readonly page?: string;
  readonly fullPage?: true;
}

/** A picture of a page as its browser paints it. `file` says the format by its ending; `-` is stdout. */
export async function screenshot(io: Io, id: string, file: string | undefined, flags: ScreenshotFlags): Promise<void> {
  const name = file ?? `${id}.png`;
  const format = name === '-' ? 'png' : FORMATS[/\.(\w+)$/.exec(name)?.[1]?.toLowerCase() as keyof typeof FORMATS];
  if (format === undefined) throw misuse(`${name} has to end in .png, .jpg or .webp.`);
  if (name === '-' && io.stdout.isTTY)
    throw misuse('A picture is nothing for a terminal; name a file, or send it into one.');
  const session = await openSession(io, flags);
  const sandbox = await session.client.get(id);
  if (sandbox.cdpUrl === undefined) throw withoutAddress(sandbox);
  const url = sandbox.cdpUrl;
  const picture = await session.during('taking a picture', () => capture(url, format, flags, io.signal));
  if (name === '-') {
    io.stdout.write(picture);
    return;
  }
  await writeWhole(name, picture);
  session.print(
    { sandboxId: sandbox.sandboxId, file: name, format, bytes: picture.length },
    () => `${name} (${size(picture.length)})\n`,
  );
}

/** Connects, takes the picture of the named page or of the first one, and leaves everything as it was. */
export async function capture(
  cdpUrl: string,
  format: 'png' | 'jpeg' | 'webp',
  { page, fullPage }: { readonly page?: string; readonly fullPage?: true },
  signal: AbortSignal,
): Promise<Buffer> {
  const cdp = await Cdp.connect(cdpUrl, signal).catch((err: Error) => {
    throw signal.aborted
      ? signal.reason
      : new Failure(EXIT.failed, `The browser cannot be reached: ${err.message.replace(/\.$/, '')}.`, err);
  });
  const send = (method: string, params: object = {}, sessionId?: string) =>
    cdp.send(method, params, sessionId, LIMIT_MS);
  try {
    const { targetInfos } = (await send('Target.getTargets')) as { targetInfos: { targetId: string; type: string }[] };
    const pages = targetInfos.filter(({ type }) => type === 'page');
    const target = page === undefined ? pages[0] : pages.find(({ targetId }) => targetId === page);
    if (!target)
      throw new Failure(
        EXIT.notFound,
        page === undefined ? 'The browser has no page open.' : `There is no page ${page}.`,
      );
    const { sessionId } = await send('Target.attachToTarget', { targetId: target.targetId, flatten: true });
    const params = {
      format,
      ...(fullPage ? { captureBeyondViewport: true, ...(await wholePage(send, String(sessionId))) } : {}),
    };
    const { data } = await send('Page.captureScreenshot', params, String(sessionId));
    return Buffer.from(String(data), 'base64');
  } catch (err) {
    if (signal.aborted) throw signal.reason;
    if (err instanceof Failure) throw err;
    throw new Failure(
      EXIT.failed,
      `No picture: ${(err as Error).message}; berth open shows what the browser is at.`,
      err,
    );
  } finally {
    cdp.close();
  }
}

type Send = (method: string, params?: object, sessionId?: string) => Promise<Readonly<Record<string, unknown>>>;

async function wholePage(send: Send, sessionId: string): Promise<object> {
  const { cssContentSize } = await send('Page.getLayoutMetrics', {}, sessionId);
  const { width, height } = cssContentSize as { width: number; height: number };
  return { clip: { x: 0, y: 0, width, height, scale: 1 } };
}
