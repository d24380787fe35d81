import { setTimeout as sleep } from 'node:timers/promises';
import { type Navigation, shownAddress } from '../core/recording.ts';
import type { PageInfo } from '../core/sandbox.ts';
import type { Cdp } from './cdp.ts';

/** How often the browser is asked whether it is still there, and how long it may take to say so, in milliseconds. */
const ASK_EVERY_MS = 1000;
const HUNG_AFTER_MS = 10_000;
/** A client may want to deal with a crashed tab itself; past this time we do, in milliseconds. */
const CRASH_PATIENCE_MS = 300;
/** A tab that crashes again within this time is emptied instead of loaded again, in milliseconds. */
const CRASH_WINDOW_MS = 60_000;
/** A page whose script lets nothing through for this long after a client came has that script stopped, in milliseconds. */
const WEDGED_AFTER_MS = 10_000;
/** Bound of a call that an unharmed browser answers at once, in milliseconds. */
const CALL_MS = 5000;
/** An address that a tab leaves again within this time only led to the next one, in milliseconds. */
const PASSING_MS = 300;
/** What a page may take to answer before the list of pages calls it unresponsive, in milliseconds. */
const PAGE_ANSWER_MS = 1000;

/** What is told of a tab, in characters: pages choose both, and Chromium takes two million of an address. */
const MAX_TITLE = 1000;
const MAX_URL = 8192;

interface TargetInfo {
  readonly targetId: string;
  readonly type: string;
  readonly title: string;
  readonly url: string;
}

/** A tab that we are attached to. */
interface Page {
  readonly session: string;
  crashed: boolean;
  /** On the clock of `performance.now()`. */
  crashedBefore: number;
}

/** Where a tab is, and where it was said to be last; with a timer while that is not the same. */
interface Address {
  url: string;
  told: string;
  timer?: NodeJS.Timeout | undefined;
}

/** Whom a {@link Watcher} tells. */
export interface WatcherEvents {
  /** Once, when the browser has not answered for 10 s. */
  onHung(why: string): void;
  /** A tab went to another address, and stayed there for a moment. */
  onNavigated(navigation: Navigation): void;
}

/**
 * Looks after one running browser over a CDP connection of its own: finds out when it hangs, and keeps its tabs from
 * hanging those who drive them. It enables no domain that changes what pages or other clients see. It stays attached to
 * every tab, since nothing gets into one that is stuck already.
 */
export class Watcher {
  readonly #cdp: Cdp;
  readonly #timer: NodeJS.Timeout;
  readonly #pages = new Map<string, Page>();
  readonly #addresses = new Map<string, Address>();
  readonly #events: WatcherEvents;
  #asking = false;

  constructor(cdp: Cdp, events: WatcherEvents) {
    this.#cdp = cdp;
    this.#events = events;
    this.#timer = setInterval(() => {
      if (this.#asking) return;
      this.#asking = true;
      cdp.call('Browser.getVersion', {}, HUNG_AFTER_MS).then(
        () => {
          this.#asking = false;
        },
        // Stays asking: whatever went wrong, this connection is of no use any more.
        (err: Error) => {
          if (err.message.includes('did not answer'))
            events.onHung(`the browser did not answer for ${HUNG_AFTER_MS / 1000} s`);
        },
      );
    }, ASK_EVERY_MS);
    cdp.listen((method, params, session) => this.#onEvent(method, params, session));
    const attach = { autoAttach: true, waitForDebuggerOnStart: false, flatten: true, filter: [{ type: 'page' }] };
    cdp.call('Target.setAutoAttach', attach, CALL_MS).catch(this.#tell('setAutoAttach'));
    const discover = { discover: true, filter: [{ type: 'page' }] };
    cdp.call('Target.setDiscoverTargets', discover, CALL_MS).catch(this.#tell('setDiscoverTargets'));
  }

  close(): void {
    clearInterval(this.#timer);
    for (const id of [...this.#addresses.keys()]) this.#forgetAddress(id);
    this.#cdp.close();
  }

  /** Every tab and how it is. Rejects when the browser itself does not answer. */
  async pages(): Promise<PageInfo[]> {
    const targets = await this.#targets();
    return Promise.all(
      targets.map(async ({ targetId, title, url }) => ({
        id: targetId,
        title: title.slice(0, MAX_TITLE),
        url: url.slice(0, MAX_URL),
        health: await this.#healthOf(targetId),
      })),
    );
  }

  /** Closes a tab without asking its page, which may be past answering. False when there is no such tab. */
  async closePage(id: string): Promise<boolean> {
    if (!(await this.#targets()).some((target) => target.targetId === id)) return false;
    await this.#cdp.call('Target.closeTarget', { targetId: id }, CALL_MS);
    // Chromium answers before it has done it; a moment later the list of pages tells no lie.
    for (let i = 0; i < 40 && (await this.#targets()).some((target) => target.targetId === id); i++) await sleep(50);
    return true;
  }

  /**
   * A new client asks every page for an answer before it gets anywhere, and one endless loop would keep it waiting for
   * ever. So the script of a page that lets nobody through is stopped; the page itself stays.
   */
  unwedge(): void {
    for (const { session, crashed } of this.#pages.values()) {
      if (crashed) continue;
      this.#cdp
        .call('Runtime.evaluate', { expression: '0' }, WEDGED_AFTER_MS, session)
        .catch((err: Error) => {
          if (!err.message.includes('did not answer')) return undefined; // the tab went away
          console.error(`a page let nothing through for ${WEDGED_AFTER_MS / 1000} s: its script is stopped`);
          return this.#cdp.call('Runtime.terminateExecution', {}, CALL_MS, session);
        })
        .catch(this.#tell('unwedge'));
    }
  }

  #onEvent(
    method: string,
    params: { sessionId: string; targetId: string; targetInfo: TargetInfo },
    session: string | undefined,
  ): void {
    switch (method) {
      case 'Target.targetCreated':
      case 'Target.targetInfoChanged':
        return this.#onAddress(params.targetInfo);
      case 'Target.targetDestroyed':
        return this.#forgetAddress(params.targetId);
      case 'Target.attachedToTarget': {
        const page = { session: params.sessionId, crashed: false, crashedBefore: Number.NEGATIVE_INFINITY };
        this.#pages.set(params.targetInfo.targetId, page);
        // Tells of crashes from now on, and of one that has been.
        this.#cdp.call('Inspector.enable', {}, CALL_MS, params.sessionId).catch(() => {}); // gone already
        return;
      }
      case 'Target.detachedFromTarget':
        for (const [id, page] of this.#pages) if (page.session === params.sessionId) this.#pages.delete(id);
        return;
      case 'Inspector.targetCrashed':
      case 'Inspector.targetReloadedAfterCrash':
        for (const [id, page] of this.#pages) {
          if (page.session !== session) continue;
          page.crashed = method === 'Inspector.targetCrashed';
          if (page.crashed) setTimeout(() => this.#onCrash(id, page), CRASH_PATIENCE_MS);
        }
    }
  }

  #onAddress({ targetId, url }: TargetInfo): void {
    const tab: Address = this.#addresses.get(targetId) ?? { url: 'about:blank', told: 'about:blank' };
    this.#addresses.set(targetId, tab);
    // Often only the title is another. A page may change both without a pause, so they are looked at when the timer has run.
    if (url === tab.url) return;
    tab.url = url;
    if (tab.timer) return;
    const at = Date.now();
    tab.timer = setTimeout(() => {
      tab.timer = undefined;
      const shown = shownAddress(tab.url);
      if (shown === tab.told) return;
      tab.told = shown;
      this.#events.onNavigated({ at, url: shown });
    }, PASSING_MS);
  }

  #forgetAddress(targetId: string): void {
    clearTimeout(this.#addresses.get(targetId)?.timer);
    this.#addresses.delete(targetId);
  }

  async #targets(): Promise<TargetInfo[]> {
    const { targetInfos } = await this.#cdp.call<{ targetInfos: TargetInfo[] }>('Target.getTargets', {}, CALL_MS);
    return targetInfos.filter((target) => target.type === 'page');
  }

  async #healthOf(targetId: string): Promise<PageInfo['health']> {
    const page = this.#pages.get(targetId);
    if (page?.crashed) return 'crashed';
    return this.#cdp.call('Runtime.evaluate', { expression: '0' }, PAGE_ANSWER_MS, page?.session).then(
      () => 'ok' as const,
      () => (page?.crashed ? 'crashed' : 'unresponsive'),
    );
  }

  /**
   * Calls that were under way when a tab crashed are never answered, until the tab gets a new renderer: then Chromium
   * answers "Target crashed". So it is loaded again, by its address: a reload might send a form a second time.
   */
  async #onCrash(targetId: string, page: Page): Promise<void> {
    try {
      const target = (await this.#targets()).find((one) => one.targetId === targetId);
      if (!target || !page.crashed) return;
      const again = performance.now() - page.crashedBefore > CRASH_WINDOW_MS && /^(https?|data|file):/.test(target.url);
      page.crashedBefore = performance.now();
      await this.#cdp.call('Page.navigate', { url: again ? target.url : 'about:blank' }, CALL_MS, page.session);
    } catch (err) {
      this.#tell('a crashed tab')(err as Error);
    }
  }

  /** For what fails when browser or tab go away meanwhile: the runtime's log has it. */
  #tell(what: string): (err: Error) => void {
    return (err) => console.error(`watcher: ${what}: ${err.message}`);
  }
}
