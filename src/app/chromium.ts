import { existsSync } from 'node:fs';
import { Launcher } from 'chrome-launcher';

/** Debian's /usr/bin/chromium is a shell script around this one; it costs a third of a second at every start. */
const DEBIAN_CHROMIUM = { wrapper: '/usr/bin/chromium', program: '/usr/lib/chromium/chromium' };

/** Chromium or Chrome as chrome-launcher finds it; undefined when there is none. */
export function findChromium(): string | undefined {
  let found: string | undefined;
  try {
    found = Launcher.getFirstInstallation();
  } catch {
    return undefined;
  }
  return found === DEBIAN_CHROMIUM.wrapper && existsSync(DEBIAN_CHROMIUM.program) ? DEBIAN_CHROMIUM.program : found;
}
