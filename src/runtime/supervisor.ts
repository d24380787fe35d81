import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RuntimeClaim, RuntimeConfig } from '../core/contracts.ts';
import type {
  EndedReason,
  EndedSandbox,
  SandboxChange,
  SandboxSpec,
  SandboxState,
  SandboxStatus,
} from '../core/sandbox.ts';
import { hasEnded, mayMove } from '../core/sandbox.ts';
import { removeTracesOfX } from '../core/xtraces.ts';
import { Activity, type LifeLimits } from './activity.ts';
import { type DevTools, startBrowser } from './browser.ts';
import { downloadsOf, moveDownloads, prepareHome, startOpenbox, startXvfb, stopXvfb } from './desktop.ts';
import { MIB, trimDownloads, watchDownloads } from './downloads.ts';
import { listenForBrowser } from './egress.ts';
import { oomKills } from './memory.ts';
import { type Child, describeExit, Keeper } from './processes.ts';
import { Recorder } from './recorder.ts';
import { takeScreenshot } from './screenshot.ts';
import { endWhenStuck, startVnc } from './vnc.ts';
import { Watcher } from './watcher.ts';

/** Chromium's profile is thrown away, so it gets no time to say goodbye. */
const AT_ONCE = [['SIGKILL', 2000]] as const;
/** Time for the word to reach the clients that their browser is being ended, before their connections break, in milliseconds. */
const LAST_WORD_MS = 250;

/** One sandbox from the inside: starts its parts in order, keeps them alive, watches its clocks, ends itself on time. */
export class Supervisor {
  readonly activity: Activity;
  #config: RuntimeConfig;
  readonly #onChange: () => void;
  readonly #startedAt = performance.now();
  #stages: Record<string, number> = {};
  #state: SandboxState = 'CREATING';
  #readyAt: number | undefined;
  #ended: EndedSandbox | undefined;
  #ending: Promise<void> | undefined;
  #endingReason: EndedReason | undefined;
  #devtools: DevTools | undefined;
  #changes: SandboxChange = {};
  #watcher: Watcher | undefined;
  #browserEnding: string | undefined;
  #vncUp = false;
  #xvfb: ReturnType<typeof startXvfb> | undefined;
  #recorder: Recorder | undefined;
  readonly #keepers: { openbox?: Keeper; vnc?: Keeper; browser?: Keeper } = {};
  readonly #oomKillsBefore = oomKills();
  readonly #startAbort = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  constructor(config: RuntimeConfig, onChange: () => void) {
    this.#config = config;
    this.#onChange = onChange;
    this.activity = new Activity(limitsOf(config.spec), ageOf(config.spec));
  }

  get status(): SandboxStatus {
    const now = Date.now();
    const idle = this.activity.idleInMs();
    return {
      state: this.#state,
      ...(this.#readyAt === undefined ? {} : { readyAt: this.#readyAt }),
      ...(this.#endingReason ? { endingReason: this.#endingReason } : {}),
      ...(this.#ended ? { endedAt: this.#ended.endedAt, endedReason: this.#ended.endedReason } : {}),
      idleDeadline: idle === null ? null : Math.round(now + idle),
      changes: this.#changes,
      ...(this.#config.spec.pooled === undefined ? {} : { pooled: true }),
      expiresAt: Math.round(now + this.activity.expiresInMs()),
      clients: this.activity.clients,
      viewers: this.activity.viewers,
      recorder: this.#recorder?.status ?? { state: 'off' },
      browserRestarts: this.#keepers.browser?.restarts ?? 0,
      ...(this.#devtools ? { devtools: this.#devtools } : {}),
      ...(this.#browserEnding ? { browserEnding: this.#browserEnding } : {}),
      ...(this.#vncUp ? { vncSocket: this.#config.vncSocket } : {}),
      stages: this.#stages,
    };
  }

  /** Starts everything; never rejects: a failed start ends the sandbox with its reason. */
  async start(): Promise<void> {
    this.watchClocks();
    const timeout = setTimeout(() => {
      this.#startAbort.abort();
    }, this.#config.startTimeoutSeconds * 1000);
    try {
      await this.#startParts(this.#startAbort.signal);
      if (this.#state !== 'CREATING') return;
      this.#move('READY');
      this.#readyAt = Date.now();
      this.activity.ready();
      this.#stage('ready');
      this.watchClocks();
      this.#onChange();
    } catch (err) {
      void this.end(`failed: ${err instanceof Error ? err.message : String(err)}`);
    } finally {
      clearTimeout(timeout);
    }
  }

  async #startParts(signal: AbortSignal): Promise<void> {
    prepareHome(this.#config);
    this.#xvfb = startXvfb(this.#config, signal);
    const egressPort = await listenForBrowser(this.#config.egressSocket);
    const { child, display } = await this.#xvfb;
    this.#stage('xvfb');
    // Everything on the screen lives in the X server, so its end is the end of the sandbox.
    void child.exited.then((exit) => this.end(`failed: the X server ${describeExit(exit)}`));
    this.#recorder = new Recorder(this.#config, display, this.#onChange);
    if (this.#config.spec.recording === 'always') await this.#recorder.start();
    await Promise.all([
      this.#keep('openbox', () => startOpenbox(this.#config, display)),
      this.#keep('vnc', async () => {
        this.#vncUp = false;
        const vnc = await startVnc(this.#config, display, startLimit(signal, this.#state));
        this.#vncUp = true;
        endWhenStuck(vnc, this.#config.vncSocket);
        return vnc;
      }),
      this.#keep('browser', async () => {
        this.#setDevTools(undefined);
        const { child, devtools, cdp } = await startBrowser(
          this.#config,
          display,
          egressPort,
          startLimit(signal, this.#state),
        );
        const watcher = new Watcher(cdp, {
          onHung: (why) => void this.#endBrowser(child, why),
          onNavigated: (navigation) => this.#recorder?.navigated(navigation),
        });
        this.#watcher = watcher;
        this.#browserEnding = undefined;
        this.#setDevTools(devtools);
        const stopLooking = this.#limitDownloads(child);
        void child.exited.then(() => {
          watcher.close();
          stopLooking();
          this.#setDevTools(undefined);
        });
        return child;
      }),
    ]);
  }

  async #keep(name: 'openbox' | 'vnc' | 'browser', start: () => Promise<Child>): Promise<void> {
    const giveUp = (why: string): void => {
      const ours = name === 'browser' && this.#browserEnding ? `${this.#browserEnding}; ` : '';
      void this.end(`failed: ${ours}${why}`);
    };
    const keeper = new Keeper({ start, giveUp, mayEnd: name === 'browser' });
    this.#keepers[name] = keeper;
    await keeper.start();
    this.#stage(name);
  }

  #setDevTools(devtools: DevTools | undefined): void {
    this.#devtools = devtools;
    if (this.#state === 'READY') this.#onChange();
  }

  /** Ends this browser, not its sandbox, when its downloads take too much; the keeper starts the next one. */
  #limitDownloads(browser: Child): () => void {
    const { downloadsMb } = this.#config;
    if (downloadsMb === undefined) return () => {};
    const folder = (): string => downloadsOf(this.#config);
    const limit = downloadsMb * MIB;
    return watchDownloads(folder, limit, async () => {
      // Stands still with its connections open, and writes no more, while its clients are told why.
      browser.process.kill('SIGSTOP');
      const trimmed = trimDownloads(folder(), limit);
      await this.#endBrowser(browser, `downloads exceed the limit of ${downloadsMb} MB`, trimmed);
    });
  }

  /** Ends this browser, not its sandbox, once its clients have been told why. */
  async #endBrowser(browser: Child, why: string, meanwhile?: Promise<void>): Promise<void> {
    this.#browserEnding = why;
    this.#setDevTools(undefined);
    await Promise.all([meanwhile, sleep(LAST_WORD_MS)]);
    await browser.stop(AT_ONCE);
  }

  /** Makes a sandbox that was started ahead of demand somebody's, as if it had begun now. Throws when it is not as good as new. */
  async claim(claim: RuntimeClaim): Promise<void> {
    const screen = await this.#xvfb;
    const before = this.#config;
    const asNew = this.#devtools && this.#vncUp && this.status.browserRestarts === 0 && this.activity.clients === 0;
    if (before.spec.pooled === undefined || this.#state !== 'READY' || this.#ending || !asNew || !screen) {
      throw new Error('this sandbox cannot be claimed');
    }
    if (claim.downloadsDir !== undefined && before.downloadsDir === undefined)
      moveDownloads(before, claim.downloadsDir);
    this.#config = { ...before, ...claim };
    this.#recorder = new Recorder(this.#config, screen.display, this.#onChange);
    this.#stages = {};
    this.#readyAt = Date.now();
    this.activity.restart(limitsOf(claim.spec), ageOf(claim.spec));
    this.watchClocks();
    if (claim.spec.recording === 'always') await this.#recorder.start();
    this.#onChange();
  }

  /** Starts or stops the recorder; idempotent. */
  async setRecording(on: boolean): Promise<void> {
    if (hasEnded(this.#state) || this.#ending || !this.#recorder) return;
    await (on ? this.#recorder.start() : this.#recorder.stop());
  }

  /** Begins the next segment now, if something is recorded. */
  async cutRecording(): Promise<void> {
    if (!hasEnded(this.#state) && !this.#ending) await this.#recorder?.cut();
  }

  /** Changes limits or metadata of the running sandbox; a limit that is over already ends it at once. */
  async change(change: SandboxChange): Promise<void> {
    this.#changes = { ...this.#changes, ...change };
    this.activity.change(limitsOf(this.#spec));
    this.#onChange();
    this.watchClocks();
  }

  get #spec(): SandboxSpec {
    return { ...this.#config.spec, ...this.#changes };
  }

  /** A client has come: no page may keep it waiting for ever. */
  welcomeClient(): void {
    if (this.#devtools) this.#watcher?.unwedge();
  }

  /** Looks after the browser that is up. Throws while none is. */
  get watcher(): Watcher {
    if (!this.#watcher || !this.#devtools) throw new Error('the browser is down');
    return this.#watcher;
  }

  /** The screen as a JPEG of at most `width` pixels. */
  async screenshot(width: number): Promise<Buffer> {
    const screen = await this.#xvfb;
    if (!screen || this.#ending) throw new Error('there is no screen');
    return takeScreenshot(this.#config, screen.display, width);
  }

  /** Arms the timer for whichever limit strikes next. Called after whatever moves a limit. */
  watchClocks(): void {
    clearTimeout(this.#timer);
    if (this.#ending) return;
    const next = this.activity.next();
    if (next.inMs <= 0) {
      void this.end(next.reason);
      return;
    }
    this.#timer = setTimeout(() => this.watchClocks(), next.inMs + 1);
  }

  /** Ends the sandbox: recorder first, so that its file is whole, then everything else. One end for all callers. */
  end(reason: EndedReason): Promise<void> {
    this.#ending ??= this.#end(this.#explained(reason));
    return this.#ending;
  }

  /** A part that was killed while the kernel killed for want of memory was most likely killed for that. */
  #explained(reason: EndedReason): EndedReason {
    if (!reason.startsWith('failed: ') || !reason.includes('SIGKILL') || oomKills() === this.#oomKillsBefore)
      return reason;
    return `failed: out of memory: ${reason.slice('failed: '.length)}`;
  }

  async #end(reason: EndedReason): Promise<void> {
    clearTimeout(this.#timer);
    this.#startAbort.abort();
    this.#endingReason = reason;
    this.#onChange();
    // Whatever fails here must not keep the rest from ending; the log has it.
    await this.#recorder?.stop().catch((err: unknown) => console.error('recorder', err));
    await Promise.all([
      this.#keepers.browser?.stop(AT_ONCE),
      this.#keepers.vnc?.stop(AT_ONCE),
      this.#keepers.openbox?.stop(AT_ONCE),
    ]);
    // One that did not get ready has been stopped by its start.
    await this.#xvfb?.then(
      ({ child }) => stopXvfb(child),
      () => {},
    );
    await removeTracesOfX(this.#config.user).catch((err: unknown) => console.error('traces of the X server', err));
    this.#devtools = undefined;
    this.#vncUp = false;
    const state = reason.startsWith('failed: ') ? 'FAILED' : 'TERMINATED';
    this.#ended = {
      spec: this.#spec,
      state,
      ...(this.#readyAt === undefined ? {} : { readyAt: this.#readyAt }),
      endedAt: Date.now(),
      endedReason: reason,
    };
    this.#move(state);
    try {
      this.#bury(this.#ended);
    } catch (err) {
      console.error('could not remove the folder or leave word of the end', err);
    }
    this.#onChange();
  }

  /** Tombstone first, folder second: a kill between the two leaves a folder that the driver sweeps, never a lost end. */
  #bury(ended: EndedSandbox): void {
    const { tombstone, dir } = this.#config;
    mkdirSync(dirname(tombstone), { recursive: true, mode: 0o700 });
    writeFileSync(`${tombstone}.tmp`, JSON.stringify(ended), { mode: 0o600 });
    renameSync(`${tombstone}.tmp`, tombstone);
    rmSync(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
  }

  #move(to: SandboxState): void {
    if (!mayMove(this.#state, to)) throw new Error(`a sandbox may not move from ${this.#state} to ${to}`);
    this.#state = to;
  }

  #stage(name: string): void {
    this.#stages[name] = Math.round(performance.now() - this.#startedAt);
  }
}

function limitsOf(spec: SandboxSpec): LifeLimits {
  return {
    idleMs: spec.idleTimeoutSeconds * 1000,
    connectMs: spec.connectTimeoutSeconds * 1000,
    maxLifetimeMs: spec.maxLifetimeSeconds * 1000,
    viewersCount: spec.activity === 'any',
  };
}

/** Milliseconds since its creation. */
function ageOf(spec: SandboxSpec): number {
  return Math.max(0, Date.now() - spec.createdAt);
}

/** A restart has its own time limit; the first start shares the sandbox's. */
function startLimit(first: AbortSignal, state: SandboxState): AbortSignal {
  return state === 'CREATING' ? first : AbortSignal.timeout(20_000);
}
