import {
  DEVTOOLS_PREFIX,
  type Driver,
  type Log,
  type OpenRuntimeLink,
  type RuntimeAddress,
  type RuntimeLink,
  type Way,
} from './contracts.ts';
import { Control, type Onlooker, type Viewer } from './control.ts';
import { AppError } from './errors.ts';
import { type AttachKind, type Attachment, Presence } from './presence.ts';
import {
  type BrowserClose,
  DEFAULTS,
  type EndedReason,
  type EndedSandbox,
  hasEnded,
  type PageInfo,
  type SandboxChange,
  type SandboxSpec,
  type SandboxState,
  type SandboxStatus,
} from './sandbox.ts';

/** A sandbox as the API shows it: alive (with a status) or remembered (with its end). */
export interface SandboxInfo {
  readonly spec: SandboxSpec;
  readonly state: SandboxState;
  readonly status?: SandboxStatus;
  readonly ended?: EndedSandbox;
}

/** Resolves when a start may begin, or with the address of a sandbox that needs none. */
export type Turn = (signal: AbortSignal) => Promise<RuntimeAddress | undefined>;

interface LiveOptions {
  readonly driver: Driver;
  readonly openLink: OpenRuntimeLink;
  readonly startTimeoutSeconds: number;
  /** Clients and viewers at once; 0 or absent: no limit. */
  readonly mostClients?: number;
  readonly log: Log;
  /** Remembers its end, before what the driver knows of it goes. */
  readonly onEnded: (ended: EndedSandbox) => Promise<void>;
  /** It has ended and its room is free. */
  readonly onGone: () => void;
  /** Looks at it when it begins and after each change. */
  readonly watcher: { saw(info: SandboxInfo): void };
  /** The driver could not remove it, as when its engine is away. */
  readonly onNotRemoved: () => void;
  /** Another viewer has exclusive control, or nobody any more. */
  readonly onControl: (controller: string | undefined) => void;
}

/** How long a browser that was told to close may take before new clients get it again, in milliseconds. */
const CLOSING_MS = 5000;
/** How long a client that joins waits for a browser that is being started again, in milliseconds: as long as Puppeteer and Playwright do by default. */
const BROWSER_WAIT_MS = 30_000;
/** A control connection that broke is opened again within this time, else the runtime counts as dead. */
const RELINK_MS = 2000;

const DIED = new Error('its runtime died');

/** One sandbox that has not ended, seen from the service. */
export class LiveSandbox {
  readonly #spec: SandboxSpec;
  readonly #options: LiveOptions;
  readonly #presence: Presence;
  /** Its viewers. */
  readonly control: Control;
  /** Called after every change; each waiter looks for itself. */
  readonly #waiters = new Set<() => void>();
  readonly #startAbort = new AbortController();
  #stopReason: EndedReason | undefined;
  /** Our own start of it is under way, and deals with whatever goes wrong meanwhile. */
  #starting = false;
  #state: SandboxState = 'CREATING';
  #status: SandboxStatus | undefined;
  #address: RuntimeAddress | undefined;
  #link: RuntimeLink | undefined;
  #ended: EndedSandbox | undefined;
  /** Path of a browser that a client has just closed and that may still take connections. */
  #closing: string | undefined;
  #finishing: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;
  /** Settles with the change that came last. */
  #changing: Promise<void> = Promise.resolve();
  #released = false;

  constructor(spec: SandboxSpec, options: LiveOptions) {
    this.#spec = spec;
    this.#options = options;
    const tell = (clients: number, viewers: number, active: boolean) => this.#link?.presence(clients, viewers, active);
    this.#presence = new Presence(spec.id, tell, options.mostClients);
    this.control = new Control(spec.control ?? DEFAULTS.control, options.onControl);
  }

  /** As it was created, and changed since. */
  get spec(): SandboxSpec {
    return { ...this.#spec, ...this.#status?.changes };
  }

  get state(): SandboxState {
    return this.#state;
  }

  get info(): SandboxInfo {
    return {
      spec: this.spec,
      state: this.#state,
      ...(this.#status ? { status: this.#status } : {}),
      ...(this.#ended ? { ended: this.#ended } : {}),
    };
  }

  /**
   * Starts it, as soon as its turn has come, and waits for READY; a turn may also come with one that runs already. Whatever
   * goes wrong, the sandbox is undone and remembered as FAILED, and START_FAILED is thrown, or what the turn was refused with.
   */
  async start(caller: AbortSignal | undefined, turn: Turn): Promise<void> {
    const givenUp = AbortSignal.any([this.#startAbort.signal, ...(caller ? [caller] : [])]);
    let limit: AbortSignal | undefined;
    this.#starting = true;
    this.#options.watcher.saw(this.info);
    try {
      const claimed = await turn(givenUp);
      limit = AbortSignal.timeout((this.#options.startTimeoutSeconds + 5) * 1000);
      const signal = AbortSignal.any([limit, givenUp]);
      this.#address = claimed ?? (await this.#options.driver.start(this.spec, signal));
      await this.#openLink(this.#address, signal);
      await this.whenReady(signal);
    } catch (err) {
      const sentence = err instanceof Error ? err.message : String(err);
      const why = caller?.aborted
        ? 'the caller went away before it was ready'
        : limit?.aborted && !(err instanceof AppError && err.errorName === 'START_FAILED')
          ? 'it was not ready in time'
          : this.#startAbort.signal.aborted
            ? await this.#whyGivenUp()
            : sentence.replace(/^The sandbox did not start: /, '');
      await this.#destroy(this.#stopReason ?? `failed: ${why}`);
      const ended = this.#ended?.endedReason ?? why;
      throw err instanceof AppError && ['START_FAILED', 'NO_CAPACITY', 'SHUTTING_DOWN'].includes(err.errorName)
        ? err
        : new AppError('START_FAILED', `The sandbox did not start: ${ended}`, {}, err);
    } finally {
      this.#starting = false;
    }
  }

  /** Takes over a running sandbox after a restart of the service. A runtime that does not answer is dead. */
  async adopt(address: RuntimeAddress, signal: AbortSignal): Promise<void> {
    try {
      await this.#openLink(address, signal);
      // Not before: a connection that breaks meanwhile is not to be opened again.
      this.#address = address;
      // Killed in the middle of a claim: nobody has been told of it.
      if (this.#status?.pooled) await this.#destroy('failed: the service ended before it was handed out');
    } catch (err) {
      // It may have been ending, and has ended since the driver saw it.
      const reason = await this.#options.driver.autopsy?.(this.spec.id).catch(() => undefined);
      await this.#destroy(reason ?? 'failed: the runtime was gone when the service came back');
      throw err;
    }
  }

  /** Throws SANDBOX_ENDED when it ended meanwhile, SANDBOX_NOT_READY when the signal fired first. */
  async whenReady(signal: AbortSignal): Promise<void> {
    await this.#until(() => this.#state !== 'CREATING', signal, 'SANDBOX_NOT_READY', 'it is still starting');
    this.#assertAlive();
  }

  /** Resolves when the runtime has confirmed. Throws SANDBOX_ENDED, SANDBOX_NOT_READY, and INVALID_REQUEST where recording is off. */
  async setRecording(on: boolean): Promise<void> {
    const link = this.#linked();
    if (this.spec.recording === 'off' && on) {
      throw new AppError('INVALID_REQUEST', 'recording: this sandbox was created with recording "off".');
    }
    await link.setRecording(on);
  }

  /** Throws as {@link setRecording}. */
  async cutRecording(): Promise<void> {
    await this.#linked().cutRecording();
  }

  /**
   * Changes limits or metadata as `changeOf` says, one change after the other: each is made from what the one before has
   * left. Throws SANDBOX_ENDED, SANDBOX_NOT_READY, BROWSER_UNREACHABLE, and what `changeOf` throws.
   */
  async change(changeOf: (spec: SandboxSpec) => SandboxChange): Promise<void> {
    const changed = this.#changing.then(() => {
      const change = changeOf(this.spec);
      return this.#asked((link) => link.change(change));
    });
    this.#changing = changed.catch(() => {}); // the caller has the rejection; the next change goes on
    await changed;
  }

  /** The browser's tabs. Throws SANDBOX_ENDED, SANDBOX_NOT_READY, BROWSER_UNREACHABLE. */
  async pages(): Promise<PageInfo[]> {
    return this.#asked((link) => link.pages());
  }

  /** The screen as a JPEG of at most `width` pixels. Throws SANDBOX_ENDED, SANDBOX_NOT_READY, BROWSER_UNREACHABLE. */
  async screenshot(width: number): Promise<Buffer> {
    return Buffer.from(await this.#asked((link) => link.screenshot(width)), 'base64');
  }

  /** False when there is no tab of this id. */
  async closePage(page: string): Promise<boolean> {
    return this.#asked((link) => link.closePage(page));
  }

  /** The control connection. Throws SANDBOX_ENDED, and SANDBOX_NOT_READY while a broken one is opened again. */
  #linked(): RuntimeLink {
    this.#assertAlive();
    if (this.#link) return this.#link;
    throw new AppError('SANDBOX_NOT_READY', `Sandbox ${this.spec.id} cannot be used now: its runtime does not answer.`);
  }

  async #asked<T>(ask: (link: RuntimeLink) => Promise<T>): Promise<T> {
    return ask(this.#linked()).catch((err: Error) => {
      this.#assertAlive();
      throw new AppError('BROWSER_UNREACHABLE', `The browser cannot be asked: ${err.message}.`, {}, err);
    });
  }

  /** Joins a client. `not` is the path of a browser that was found dead: the next one is waited for. */
  async attach(signal: AbortSignal, not?: string): Promise<Attachment> {
    const path = (): string | undefined => this.#status?.devtools?.browserPath;
    const up = (): boolean => path() !== undefined && path() !== not && path() !== this.#closing;
    await this.#untilUp(up, signal, 'its browser is down');
    return this.#presence.join('client', this.#wayOf('client'), path() ?? '', () => this.#closeBrowser());
  }

  /** Joins a viewer. */
  async watch(who: Onlooker, signal: AbortSignal): Promise<Viewer> {
    await this.#untilUp(() => this.#status?.vncSocket !== undefined, signal, 'its VNC server is down');
    const joined = this.#presence.join('viewer', this.#wayOf('viewer'), '', () => 'restart');
    try {
      return this.control.join(who, joined);
    } catch (err) {
      joined.detach();
      throw err;
    }
  }

  async #untilUp(up: () => boolean, signal: AbortSignal, why: string): Promise<void> {
    const wait = AbortSignal.any([signal, AbortSignal.timeout(BROWSER_WAIT_MS)]);
    await this.#until(() => hasEnded(this.#state) || up(), wait, 'BROWSER_UNREACHABLE', why);
    this.#assertAlive();
  }

  /** The way to the browser's DevTools for who is no client, waiting for the next one where none is up. Throws as {@link attach}. */
  async devToolsWay(signal: AbortSignal): Promise<Way> {
    const up = (): boolean => hasEnded(this.#state) || this.#status?.devtools !== undefined;
    const wait = AbortSignal.any([signal, AbortSignal.timeout(BROWSER_WAIT_MS)]);
    await this.#until(up, wait, 'BROWSER_UNREACHABLE', 'its browser is down');
    this.#assertAlive();
    return this.#wayOf('client');
  }

  /** A client closes the browser. */
  #closeBrowser(): BrowserClose {
    const policy = this.spec.onBrowserClose;
    if (policy === 'terminate') this.stop('browser_closed').catch(() => {}); // its outcome is the sandbox's state
    if (policy !== 'restart') return policy;
    const path = this.#status?.devtools?.browserPath;
    this.#closing = path;
    // One that does not end after all may be used again.
    setTimeout(() => {
      if (this.#closing === path) this.#closing = undefined;
    }, CLOSING_MS).unref();
    return policy;
  }

  #wayOf(kind: AttachKind): Way {
    const { endpoint, secret, direct, vncSocket } = this.#address as RuntimeAddress;
    if (kind === 'viewer') return { endpoint: { path: vncSocket ?? (this.#status?.vncSocket as string) }, prefix: '' };
    if (!direct) return { endpoint, prefix: DEVTOOLS_PREFIX, secret };
    return { endpoint: { host: '127.0.0.1', port: this.#status?.devtools?.port as number }, prefix: '' };
  }

  /** Asks the runtime to end; one that does not is ended by its driver. Resolves when everything is gone and remembered. */
  stop(reason: EndedReason): Promise<void> {
    this.#stopping ??= this.#stop(reason);
    return this.#stopping;
  }

  /** Ends the connections that were let in with this ticket, or with any. */
  endTicket(ticketId: string | undefined): void {
    this.#presence.endTicket({ code: 1008, reason: 'the ticket was revoked' }, ticketId);
  }

  /** Lets go without ending it. */
  release(): void {
    this.#released = true;
    this.#presence.endAll({ code: 1001, reason: 'the service is going away; connect again' });
    this.#presence.close();
    this.#link?.close();
  }

  async #stop(reason: EndedReason): Promise<void> {
    if (this.#starting) {
      this.#stopReason = reason;
      this.#startAbort.abort(new Error(`it was stopped while it was starting: ${reason}`));
      await this.#until(() => hasEnded(this.#state), AbortSignal.timeout(30_000), 'INTERNAL', 'it did not end');
    } else {
      await this.#link?.stop(reason);
      // A last status that says so has arrived by now, or the runtime hangs.
      if (!this.#finishing) await this.#destroy(reason);
    }
    await this.#finishing;
  }

  async #openLink(address: RuntimeAddress, signal: AbortSignal): Promise<void> {
    const events = {
      onStatus: (status: SandboxStatus) => this.#onStatus(status),
      onClosed: () => void this.#onLinkClosed(),
    };
    this.#link = await this.#options.openLink(address, events, signal);
    this.#presence.repeat();
  }

  #onStatus(status: SandboxStatus): void {
    if (this.#finishing) return;
    this.#status = status;
    this.control.mode = this.spec.control ?? DEFAULTS.control;
    if (status.endingReason !== undefined) this.#dismiss(status.endingReason);
    if (status.browserEnding !== undefined) {
      this.#presence.endAll({ code: 1011, reason: status.browserEnding }, 'client');
    }
    if (status.endedReason !== undefined && hasEnded(status.state)) {
      void this.#finish(status.endedReason, status.endedAt ?? Date.now());
    } else if (this.#state === 'CREATING' && status.state === 'READY') {
      this.#state = 'READY';
      this.#options.log.info({ sandboxId: this.spec.id, stages: status.stages }, 'sandbox is READY');
    }
    this.#changed();
  }

  /** The connection broke without a word of the sandbox's end: the runtime died, or only the connection did. */
  async #onLinkClosed(): Promise<void> {
    if (this.#finishing || this.#released || !this.#address) return;
    if (this.#starting) return this.#startAbort.abort(DIED);
    this.#link = undefined;
    const limit = AbortSignal.timeout(RELINK_MS);
    try {
      await this.#openLink(this.#address, limit);
    } catch {
      // Dead, and its children with it (death signal), or stuck. The driver removes what lies about.
      const reason = await this.#options.driver.autopsy?.(this.spec.id).catch(() => undefined);
      if (!this.#finishing)
        await this.#destroy(reason ?? `failed: the runtime ${limit.aborted ? 'does not answer' : 'died'}`);
    }
  }

  /** Why its start was given up. A runtime's last word may be lost with the connection, as when our ping meets its end. */
  async #whyGivenUp(): Promise<string> {
    const { reason } = this.#startAbort.signal as { reason: Error };
    const found = reason === DIED && (await this.#options.driver.autopsy?.(this.spec.id).catch(() => undefined));
    return found ? found.replace(/^failed: /, '') : reason.message;
  }

  /** Ends it by force through the driver. */
  async #destroy(reason: EndedReason): Promise<void> {
    this.#link?.close();
    await this.#finish(reason, Date.now());
  }

  #finish(reason: EndedReason, endedAt: number): Promise<void> {
    this.#finishing ??= this.#finishOnce(reason, endedAt);
    return this.#finishing;
  }

  async #finishOnce(reason: EndedReason, endedAt: number): Promise<void> {
    const failed = reason.startsWith('failed: ');
    const { readyAt } = this.#status ?? {};
    const state = failed ? 'FAILED' : 'TERMINATED';
    const ended: EndedSandbox = {
      spec: this.spec,
      state,
      ...(readyAt === undefined ? {} : { readyAt }),
      endedAt,
      endedReason: reason,
    };
    this.#dismiss(reason);
    this.#presence.close();
    await this.#options.onEnded(ended);
    try {
      await this.#options.driver.stop(this.spec.id);
    } catch (err) {
      this.#options.log.error({ sandboxId: this.spec.id, err }, 'the driver could not remove a sandbox');
      this.#options.onNotRemoved();
    }
    // Seen as ended only once its room is free for the next one.
    this.#options.onGone();
    // Both at once: nobody may see an end without its state.
    this.#ended = ended;
    this.#state = state;
    this.#options.log.info({ sandboxId: this.spec.id, reason }, `sandbox is ${state}`);
    this.#changed();
  }

  /** Tells everybody who is attached why it ends. */
  #dismiss(reason: EndedReason): void {
    // 1001: going away as planned. 1011: an unexpected condition (RFC 6455 section 7.4.1).
    const code = reason.startsWith('failed: ') ? 1011 : 1001;
    this.#presence.endAll({ code, reason: `sandbox ended: ${reason}` });
  }

  #assertAlive(): void {
    if (!this.#finishing && !hasEnded(this.#state) && this.#status?.endingReason === undefined) return;
    const reason = this.#ended?.endedReason ?? this.#status?.endingReason ?? 'it is ending';
    throw new AppError('SANDBOX_ENDED', `Sandbox ${this.spec.id} has ended: ${reason}.`);
  }

  #changed(): void {
    this.#options.watcher.saw(this.info);
    for (const look of this.#waiters) look();
  }

  #until(
    condition: () => boolean,
    signal: AbortSignal,
    error: 'SANDBOX_NOT_READY' | 'BROWSER_UNREACHABLE' | 'INTERNAL',
    why: string,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (): void =>
        done(() => reject(new AppError(error, `Sandbox ${this.spec.id} cannot be used now: ${why}.`)));
      const look = (): void => {
        if (condition()) done(resolve);
      };
      const done = (settle: () => void): void => {
        this.#waiters.delete(look);
        signal.removeEventListener('abort', fail);
        settle();
      };
      this.#waiters.add(look);
      signal.addEventListener('abort', fail);
      look();
      if (signal.aborted) fail();
    });
  }
}
