import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { RuntimeConfig } from '../core/contracts.ts';
import { Cdp } from './cdp.ts';
import { childEnv, homeOf, profileOf } from './desktop.ts';
import { Child } from './processes.ts';

/** A Chromium that takes a connection but does not answer its first call in this time is started again or given up, in milliseconds. */
const ANSWER_LIMIT_MS = 20_000;

/** Where a running Chromium answers. */
export interface DevTools {
  readonly port: number;
  /** Such as `/devtools/browser/<uuid>`; a new one at each start of Chromium. */
  readonly browserPath: string;
}

/** No name of the internet's (RFC 6761). */
const EGRESS_HOST = 'egress.invalid';

/** Chromium features that cost start time, reach for the network, or freeze tabs that a client still drives. */
const DISABLED_FEATURES = [
  'Translate',
  'OptimizationHints',
  'MediaRouter',
  'DialMediaRouteProvider',
  'CertificateTransparencyComponentUpdater',
  'AutofillServerCommunication',
  'InterestFeedContentSuggestions',
  // What Chromium 150 asks Google on its own, in spite of --disable-background-networking: the time, whether to offer its AI
  // mode, and a connection to the search engine ahead of need. The flags below end the two other questions.
  'NetworkTimeServiceQuerying',
  'AimEnabled',
  'PreconnectToSearch',
  // These two cost about 60 ms of every start and nobody types into the address bar of an automated browser.
  'WebUIOmniboxPopup',
  'WebUIOmniboxAimPopup',
  // A discarded or frozen tab makes connectOverCDP hang (microsoft/playwright#42730).
  'HighEfficiencyModeAvailable',
  'CalculateNativeWinOcclusion',
];

/** The command line of Chromium, one reason per group. */
function chromiumArgs(config: RuntimeConfig, egressPort: number): string[] {
  const { width, height } = config.spec.viewport;
  return [
    // Port 0: Chromium takes a free one itself and prints it. It listens on loopback only, whatever one asks (since M113).
    '--remote-debugging-port=0',
    // Without a profile folder of its own Chromium 136 and later ignore the debugging port.
    `--user-data-dir=${profileOf(config)}`,
    // A browser that nobody set up must not ask, phone, or update anything.
    ...[
      '--no-first-run',
      '--no-default-browser-check',
      '--disable-background-networking',
      '--disable-component-update',
    ],
    ...[
      '--disable-sync',
      '--disable-quic',
      '--disable-default-apps',
      '--disable-domain-reliability',
      '--disable-pings',
    ],
    ...['--disable-client-side-phishing-detection', '--disable-breakpad', '--metrics-recording-only'],
    ...['--password-store=basic', '--use-mock-keychain', '--disable-search-engine-choice-screen'],
    // Where it would ask which Google accounts are signed in, and check in for push messages: no port, no address. Pages at
    // Google's sign-in are as they were; that origin's own process hangs on the first, so it is said.
    ...['--gaia-url=https://gaia.invalid:0', '--gcm-checkin-url=', '--isolate-origins=https://accounts.google.com'],
    // Tabs in the background are driven too: no throttling, no "page unresponsive" dialog in the client's way.
    ...['--disable-background-timer-throttling', '--disable-backgrounding-occluded-windows'],
    ...['--disable-renderer-backgrounding', '--disable-hang-monitor', '--disable-ipc-flooding-protection'],
    '--disable-prompt-on-repost',
    // No "Chromium did not shut down correctly" bubble after a kill.
    ...['--hide-crash-restore-bubble', '--noerrdialogs'],
    '--mute-audio',
    // Without a GPU this is the only way to WebGL, which ordinary pages need; it costs nothing until one asks.
    '--enable-unsafe-swiftshader',
    `--disable-features=${DISABLED_FEATURES.join(',')}`,
    // A process less, and 15 MB of 116 that nothing else shares (docs/performance.md). It costs no wall: on Linux Chromium
    // starts its network process without a sandbox (--service-sandbox-type=none).
    '--enable-features=NetworkServiceInProcess2',
    // Everything goes through the way out, what is on a loopback address too. Only its name can be resolved, wherever a
    // context of a client's asks to go instead.
    ...[`--proxy-server=http://${EGRESS_HOST}:1`, '--proxy-bypass-list=<-loopback>'],
    `--host-resolver-rules=MAP ${EGRESS_HOST} 127.0.0.1:${egressPort}, MAP * ~NOTFOUND`,
    '--webrtc-ip-handling-policy=disable_non_proxied_udp',
    ...['--window-position=0,0', `--window-size=${width},${height}`, '--start-maximized'],
    // Chromium warns of --host-resolver-rules and --no-sandbox in a bar across the first tab, unless it is told that it is under test.
    '--test-type',
    ...(config.chromiumSandbox ? [] : ['--no-sandbox']),
    'about:blank',
  ];
}

/** Starts Chromium on the display, its proxy being at this port of our loopback; resolves once a `Browser.getVersion` over the connection that it hands out was answered. */
export async function startBrowser(
  config: RuntimeConfig,
  display: number,
  egressPort: number,
  signal: AbortSignal,
): Promise<{ child: Child; devtools: DevTools; cdp: Cdp }> {
  const profile = profileOf(config);
  // Left by a Chromium that was killed; with them the next one would refuse the profile (puppeteer#4860).
  for (const name of ['SingletonLock', 'SingletonSocket', 'SingletonCookie'])
    rmSync(join(profile, name), { force: true });
  const child = new Child({
    name: 'Chromium',
    command: config.chromium,
    args: chromiumArgs(config, egressPort),
    env: childEnv(config, display),
    cwd: homeOf(config),
    user: config.user,
  });
  try {
    const match = await child.line(/^DevTools listening on ws:\/\/[^/]*:(\d+)(\/devtools\/browser\/\S+)/, signal);
    const devtools = { port: Number(match[1]), browserPath: match[2] as string };
    const cdp = await Cdp.open(devtools.port, devtools.browserPath, signal);
    const giveUp = (): void => cdp.close();
    signal.addEventListener('abort', giveUp, { once: true });
    await cdp.call('Browser.getVersion', {}, ANSWER_LIMIT_MS).catch((err: unknown) => {
      throw signal.aborted ? new Error('Chromium did not answer Browser.getVersion in time') : err;
    });
    signal.removeEventListener('abort', giveUp);
    return { child, devtools, cdp };
  } catch (err) {
    await child.stop([['SIGKILL', 2000]]);
    throw err;
  }
}
