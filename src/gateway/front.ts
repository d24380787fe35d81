import type { Front, GatewayOptions } from './connect.ts';

/** `auto` is uWebSockets.js where its binary loads, else, with one warning, the `ws` package. */
export type FrontName = 'auto' | 'ws';

/** Each front is loaded only when it is the one, since one of them may not load at all. */
export async function openFront(name: FrontName, options: GatewayOptions): Promise<Front> {
  if (name === 'auto') {
    const missing = await whyNoBinary();
    if (missing === undefined) return new (await import('./server.ts')).Gateway(options);
    options.log.warn(
      { node: process.version, platform: `${process.platform} ${process.arch}`, why: missing },
      'uWebSockets.js does not load here, so the front on the ws package serves: the same in everything but speed',
    );
  }
  return new (await import('./ws-server.ts')).WsGateway(options);
}

/** Why the binary of uWebSockets.js cannot be used, in one line; undefined when it can. */
async function whyNoBinary(): Promise<string | undefined> {
  try {
    await import('uWebSockets.js');
    return undefined;
  } catch (err) {
    const lines = (err as Error).message.split('\n').filter((line) => line !== '');
    // Its own first line lists what it supports; the loader's, which says what went wrong, comes behind it.
    return lines[1] ?? lines[0] ?? String(err);
  }
}
