import { type BrowserContext, chromium, type Request } from 'playwright-core';
import { LIMIT } from './service.ts';

/** The machine's own Chromium without a screen; as root it cannot use its sandbox. */
export function startViewer(
  profile: string,
  viewport: { width: number; height: number } | undefined = undefined,
): Promise<BrowserContext> {
  return chromium.launchPersistentContext(profile, {
    executablePath: '/usr/bin/chromium',
    headless: true,
    ...LIMIT,
    ...(viewport ? { viewport } : {}),
    args: [
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
      ...[
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--disable-quic',
        '--no-first-run',
      ],
    ],
  });
}

/**
 * Chromium breaks off all that it loads when one of the machine's network interfaces changes, and with every container one
 * comes or goes. A step that was disturbed by that, and by nothing else, is done again.
 */
export async function undisturbed<T>(viewer: BrowserContext, step: () => Promise<T>): Promise<T> {
  for (;;) {
    let disturbed = false;
    const note = (request: Request): void => {
      if (request.failure()?.errorText === 'net::ERR_NETWORK_CHANGED') disturbed = true;
    };
    viewer.on('requestfailed', note);
    try {
      return await step();
    } catch (err) {
      if (!disturbed) throw err;
    } finally {
      viewer.off('requestfailed', note);
    }
  }
}
