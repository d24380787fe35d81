import { randomBytes } from 'node:crypto';
import { chownSync, mkdirSync, readdirSync, rmdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { type RuntimeConfig, SANDBOX_UIDS } from '../core/contracts.ts';
import { Child, type Exit } from './processes.ts';

/**
 * The sandbox's private folder, where everything that the browser's user may write lives. Short names: Chromium puts a
 * unix socket below TMPDIR, and a socket's path may not exceed 107 bytes (unix(7)).
 */
export function homeOf(config: RuntimeConfig): string {
  return join(config.dir, 'h');
}

/** Where what Chromium downloads lies, unless a client had it put elsewhere. */
export function downloadsOf(config: RuntimeConfig): string {
  return config.downloadsDir ?? join(homeOf(config), 'Downloads');
}

/** Chromium's profile. */
export function profileOf(config: RuntimeConfig): string {
  return join(homeOf(config), 'profile');
}

/**
 * What Chromium would otherwise ask somebody at the screen about a download: where to; whether a page may start a second
 * one; and whether to keep what comes over plain http. The last hangs on the setting "insecure content", which stays
 * shut for https pages: there it would let in scripts as well.
 */
const PREFERENCES = {
  download: { prompt_for_download: false },
  profile: {
    default_content_setting_values: { automatic_downloads: 1, mixed_script: 1 },
    content_settings: { exceptions: { mixed_script: { 'https://*,*': { setting: 2 } } } },
  },
};

/** Makes the folders of the browser's user, its own and nobody else's: temporary files, downloads, a profile. */
export function prepareHome(config: RuntimeConfig): void {
  const home = homeOf(config);
  const profile = profileOf(config);
  const downloads = join(home, 'Downloads');
  const made = [home, join(home, 't'), profile, join(profile, 'Default')];
  // Chromium looks for a folder of this name (xdg-user-dirs), and follows a link.
  if (config.downloadsDir === undefined) made.push(downloads);
  mkdirSync(config.dir, { recursive: true, mode: 0o711 });
  for (const folder of made) mkdirSync(folder, { mode: 0o700 });
  if (config.downloadsDir !== undefined) symlinkSync(config.downloadsDir, downloads);
  const preferences = join(profile, 'Default', 'Preferences');
  writeFileSync(preferences, JSON.stringify(PREFERENCES), { mode: 0o600, flag: 'wx' });
  // The home itself last: until then nobody else can have put anything in there that would lead us astray.
  if (config.user)
    for (const path of [preferences, ...made.reverse()]) chownSync(path, config.user.uid, config.user.gid);
}

/**
 * Has what Chromium downloads lie elsewhere from now on. Only for a sandbox that nobody has used: its folder is empty, and
 * neither call here follows a link, should there be one.
 */
export function moveDownloads(config: RuntimeConfig, to: string): void {
  const downloads = join(homeOf(config), 'Downloads');
  rmdirSync(downloads);
  symlinkSync(to, downloads);
}

/** The X cookie lies in our folder, not in the user's: as root we must not write where a planted link could lead us. */
function authFileOf(config: RuntimeConfig): string {
  return join(config.dir, 'xauth');
}

/** The environment of every child: nothing of ours leaks in, not even by accident. */
export function childEnv(config: RuntimeConfig, display?: number): Record<string, string> {
  const home = homeOf(config);
  return {
    PATH: '/usr/local/bin:/usr/bin:/bin',
    HOME: home,
    TMPDIR: join(home, 't'),
    XDG_CONFIG_HOME: join(home, '.config'),
    XDG_CACHE_HOME: join(home, '.cache'),
    XAUTHORITY: authFileOf(config),
    // Without it Chromium and Openbox try to reach or start a session bus.
    DBUS_SESSION_BUS_ADDRESS: 'disabled:',
    LANG: 'C.UTF-8',
    // Says that keys for Google's services are left out on purpose; else a bar across the window says that they are missing.
    GOOGLE_API_KEY: 'no',
    GOOGLE_DEFAULT_CLIENT_ID: 'no',
    GOOGLE_DEFAULT_CLIENT_SECRET: 'no',
    ...(display === undefined ? {} : { DISPLAY: `:${display}` }),
  };
}

/** One Xauthority entry that fits any display number, since Xvfb picks its number only after it has read the file (Xsecurity(7), Xau(3)). */
export function xauthority(cookie: Buffer): Buffer {
  const name = Buffer.from('MIT-MAGIC-COOKIE-1');
  const FAMILY_WILD = 0xffff;
  const head = Buffer.alloc(8 + name.length + 2);
  head.writeUInt16BE(FAMILY_WILD, 0);
  // Two empty counted strings follow (address, display number), then the counted name and the counted cookie.
  head.writeUInt16BE(name.length, 6);
  name.copy(head, 8);
  head.writeUInt16BE(cookie.length, 8 + name.length);
  return Buffer.concat([head, cookie]);
}

/**
 * Xvfb compiles its keymap to /tmp/server-<display>.xkm and removes it a moment later. One that was killed in that moment
 * leaves it, and no other user's server could then take that display number; so what is old and a sandbox's is removed.
 */
function removeStaleKeymaps(): void {
  for (const name of readdirSync('/tmp')) {
    if (!/^server-\d+\.xkm$/.test(name)) continue;
    const found = statSync(join('/tmp', name), { throwIfNoEntry: false });
    if (!found || Date.now() - found.mtimeMs < 2000) continue;
    const ours = found.uid === process.getuid?.() || (found.uid >= SANDBOX_UIDS.from && process.getuid?.() === 0);
    if (ours) rmSync(join('/tmp', name), { force: true });
  }
}

/** Starts the virtual screen with a fresh cookie; resolves with its display number once it accepts clients. */
export async function startXvfb(
  config: RuntimeConfig,
  signal: AbortSignal,
): Promise<{ child: Child; display: number }> {
  removeStaleKeymaps();
  const authFile = authFileOf(config);
  writeFileSync(authFile, xauthority(randomBytes(16)), { mode: 0o600 });
  if (config.user) chownSync(authFile, config.user.uid, config.user.gid);
  const { width, height } = config.spec.viewport;
  const child = new Child({
    name: 'Xvfb',
    command: 'Xvfb',
    // -displayfd lets the server take the first free number itself: no race between two sandboxes. It goes without a lock
    // file and tells a taken number by the abstract socket alone, so that one has to stay (`-nolisten local` would let a
    // second server of the same user take the first one's socket over). Both sockets ask for the cookie; TCP is off.
    // -noreset: no restart when the last client goes.
    args: [
      ...['-displayfd', '3', '-screen', '0', `${width}x${height}x24`, '-auth', authFile],
      ...['-nolisten', 'tcp', '-noreset'],
    ],
    env: childEnv(config),
    cwd: config.dir,
    user: config.user,
    pipe3: true,
  });
  const pipe = child.process.stdio[3] as Readable;
  const display = await new Promise<number>((resolve, reject) => {
    let text = '';
    pipe.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes('\n')) resolve(Number.parseInt(text, 10));
    });
    const fail = (why: string): void => reject(new Error(`Xvfb ${why}${child.lastWords}`));
    signal.addEventListener('abort', () => fail('did not get ready in time'), { once: true });
    void child.exited.then(() => fail('ended at its start'));
  }).catch(async (err: unknown) => {
    await stopXvfb(child);
    throw err;
  });
  return { child, display };
}

/** Asks first: only so it removes its socket. Within its first milliseconds it does not yet know how and dies at once. */
export function stopXvfb(child: Child): Promise<Exit> {
  return child.stop([
    ['SIGTERM', 2000],
    ['SIGKILL', 2000],
  ]);
}

/** Every normal window fills the screen and has no frame, so that what a viewer sees is the browser alone. */
const OPENBOX_CONFIG = `<?xml version="1.0" encoding="UTF-8"?>
<openbox_config xmlns="http://openbox.org/3.4/rc">
  <focus><focusNew>yes</focusNew><followMouse>no</followMouse></focus>
  <desktops><number>1</number><popupTime>0</popupTime></desktops>
  <keyboard/>
  <mouse>
    <context name="Client">
      <mousebind button="Left" action="Press"><action name="Focus"/><action name="Raise"/></mousebind>
    </context>
  </mouse>
  <menu/>
  <applications>
    <application type="normal"><decor>no</decor><maximized>yes</maximized><focus>yes</focus></application>
  </applications>
</openbox_config>
`;

/** Starts the window manager. It needs no readiness probe: it also arranges windows that were there before it. */
export async function startOpenbox(config: RuntimeConfig, display: number): Promise<Child> {
  const file = join(config.dir, 'openbox.xml');
  writeFileSync(file, OPENBOX_CONFIG, { mode: 0o644 });
  return new Child({
    name: 'Openbox',
    command: 'openbox',
    args: ['--config-file', file, '--sm-disable'],
    env: childEnv(config, display),
    cwd: config.dir,
    user: config.user,
  });
}
