import { createHash, randomUUID } from 'node:crypto';
import type { Admission } from './admission.ts';
import type { Driver, FoundSandbox, Log, OpenRuntimeLink, RuntimeAddress, RuntimeLink } from './contracts.ts';
import { Demand, type PoolSize } from './demand.ts';
import { hasEnded, type SandboxSpec, type SandboxStatus } from './sandbox.ts';

/** What the pool is made of, and how large it is to be. */
export interface PoolOptions {
  readonly driver: Driver;
  readonly openLink: OpenRuntimeLink;
  readonly admission: Admission;
  /** By template; of the others none wait. */
  readonly sizes: ReadonlyMap<string, PoolSize>;
  /** READY within this time, else the start has failed. */
  readonly startTimeoutSeconds: number;
  /** What a create that asks for nothing but this template would get under this id. */
  readonly plain: (templateName: string, id: string) => SandboxSpec;
  /** Sandboxes that somebody has. */
  readonly living: () => number;
  /** Hears of one that the driver could not remove. */
  readonly onNotRemoved: (id: string) => void;
  readonly log: Log;
  /** Pauses, in milliseconds. Default: {@link PAUSES}. */
  readonly pauses?: typeof PAUSES;
}

/** One that is starting, waiting, or being claimed. */
interface Pooled {
  readonly spec: SandboxSpec;
  readonly abort: AbortController;
  address?: RuntimeAddress;
  status?: SandboxStatus;
  link?: RuntimeLink;
  taken: boolean;
}

/** A pooled one that nobody wanted for this long ends by itself and is replaced, also when no service is there: in seconds. */
const MAX_AGE_SECONDS = 3600;
/** Longer than it lives: nobody connects to one that is nobody's. */
const NEVER_SECONDS = 7 * 24 * 3600;
/** A runtime answers within milliseconds; one that does not within this time is not handed out. */
const CLAIM_MS = 2000;

const PAUSES = {
  /** For one of an earlier run to answer. */
  adopt: 5000,
  /** Its sandbox has work to do first. */
  afterClaim: 250,
  /** While others start. */
  busy: 1000,
  failed: 1000,
  failedMost: 60_000,
  /** When all is well. */
  full: 10_000,
  /** As many are wanted as creates came within this time. */
  demand: 60_000,
};

/**
 * Sandboxes started ahead of demand, each under an id of its own that nobody hears of. They are started one at a time, and
 * only while no create starts or waits; room that a create needs they give back. A claim makes one of them the create's.
 */
export class Pool {
  readonly #options: PoolOptions;
  readonly #pauses: typeof PAUSES;
  readonly #all = new Map<string, Pooled>();
  readonly #endings = new Set<Promise<void>>();
  readonly #claims: ReadonlyMap<string, { warm: number; cold: number }>;
  readonly #demand: Demand;
  #failures = 0;
  /** No start before this moment (`performance.now()`): the last one failed. */
  #notBefore = 0;
  #timer: { readonly at: number; readonly timeout: NodeJS.Timeout } | undefined;
  #filling: Promise<void> | undefined;
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#pauses = options.pauses ?? PAUSES;
    this.#demand = new Demand(options.sizes, this.#pauses.demand);
    this.#claims = new Map([...options.sizes.keys()].map((name) => [name, { warm: 0, cold: 0 }]));
  }

  /** Those that may be claimed now, by template. */
  get ready(): ReadonlyMap<string, number> {
    return new Map([...this.#options.sizes.keys()].map((name) => [name, this.#free(name).filter(isReady).length]));
  }

  /** By template that has a pool: creates that got a pooled sandbox, and those that did not. */
  get claims(): ReadonlyMap<string, Readonly<Record<'warm' | 'cold', number>>> {
    return this.#claims;
  }

  /** Takes in one that an earlier run of the service has left, or ends it when it is not what would be started now. */
  async adopt(found: FoundSandbox): Promise<void> {
    const { spec } = found;
    const pooled: Pooled = { spec, abort: new AbortController(), taken: false };
    this.#all.set(spec.id, pooled);
    if (!found.ended) pooled.address = found.address;
    try {
      const { templateName } = spec;
      const good =
        this.#free(templateName).length <= this.#wanted(templateName) &&
        this.#free().length <= this.#room() &&
        spec.pooled === this.#shape(templateName, await this.#options.driver.shape());
      if (found.ended || !good) throw new Error('it is not what would be started now');
      await this.#makeReady(pooled, this.#pauses.adopt);
      this.#options.log.info({ handle: spec.id }, 'took over a pooled sandbox of an earlier run');
    } catch (err) {
      this.#options.log.info({ handle: spec.id, err }, 'ends a pooled sandbox of an earlier run');
      void this.#end(pooled);
    }
  }

  /** Keeps the pool full from now on. */
  begin(): void {
    this.#after(0);
  }

  /** Sets one aside that fits what is asked for, to be handed to {@link claim}; undefined when there is none. */
  take(spec: SandboxSpec): Pooled | undefined {
    const fits = this.#free(spec.templateName).find(
      (pooled) =>
        isReady(pooled) &&
        pooled.spec.viewport.width === spec.viewport.width &&
        pooled.spec.viewport.height === spec.viewport.height,
    );
    if (fits) fits.taken = true;
    return fits;
  }

  /**
   * Makes the one that was taken the sandbox of this spec, or the next one that fits, should something be wrong with it.
   * Answers where it is reached, or undefined when there is none: then it has to be started.
   */
  async claim(taken: Pooled | undefined, spec: SandboxSpec): Promise<RuntimeAddress | undefined> {
    const { templateName } = spec;
    const claims = this.#claims.get(templateName);
    if (!claims) return undefined;
    this.#demand.note(templateName);
    for (let pooled = taken; pooled; pooled = this.take(spec)) {
      try {
        const address = await this.#claim(pooled, spec);
        if (address) {
          claims.warm += 1;
          return address;
        }
        pooled.taken = false;
        // Its room may be the one that is started now, and a pool that closes has passed it over.
        this.trim();
        break;
      } catch (err) {
        this.#options.log.warn({ handle: pooled.spec.id, err }, 'a pooled sandbox could not be claimed');
        // By force: the create waits, and what does not answer will not end by itself.
        pooled.link?.close();
        await this.#end(pooled);
      }
    }
    claims.cold += 1;
    this.#after(this.#pauses.afterClaim);
    return undefined;
  }

  /** Gives back what is more than there is room for beside the sandboxes that somebody has. */
  trim(): void {
    for (const name of this.#options.sizes.keys()) {
      for (let surplus = this.#free(name).length - this.#wanted(name); surplus > 0; surplus--) this.#shrink(name);
    }
    for (let surplus = this.#free().length - this.#room(); surplus > 0; surplus--) this.#shrink();
  }

  /** Memory is short: gives one back, and the next one only if that was not enough. */
  relieve(): void {
    if (this.#endings.size === 0) this.#shrink();
  }

  /** Ends all of them. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer?.timeout);
    this.trim();
    await this.#filling;
    await Promise.all(this.#endings);
  }

  /** Those that nobody is being given, of one template or of all. */
  #free(templateName?: string): Pooled[] {
    return [...this.#all.values()].filter(
      ({ taken, spec }) => !taken && (templateName === undefined || spec.templateName === templateName),
    );
  }

  /** First one that is not ready yet. */
  #shrink(templateName?: string): void {
    const free = this.#free(templateName);
    const one = free.find((pooled) => !isReady(pooled)) ?? free[0];
    if (one) void this.#end(one);
  }

  #wanted(templateName: string): number {
    return this.#closed ? 0 : this.#demand.of(templateName);
  }

  /** How many there may be, of all templates together. */
  #room(): number {
    const { admission, living } = this.#options;
    return this.#closed ? 0 : Math.max(0, admission.room(living()));
  }

  async #claim(pooled: Pooled, spec: SandboxSpec): Promise<RuntimeAddress | undefined> {
    const { driver, log } = this.#options;
    const handle = pooled.spec.id;
    const claimed = await driver.claim(handle, spec);
    if (!claimed) return undefined;
    await within(CLAIM_MS, pooled.link?.claim(claimed.runtime));
    // A runtime that knows nothing of claims answers, too.
    if (pooled.link?.status.pooled) throw new Error('its runtime did not take the claim');
    this.#all.delete(handle);
    pooled.link?.close();
    log.info({ sandboxId: spec.id, handle }, 'claimed a pooled sandbox');
    this.#after(this.#pauses.afterClaim);
    return claimed.address;
  }

  /** Looks again after this time, unless that is due earlier. */
  #after(ms: number): void {
    if (this.#closed || this.#options.sizes.size === 0) return;
    const at = performance.now() + ms;
    if (this.#timer && this.#timer.at <= at) return;
    clearTimeout(this.#timer?.timeout);
    const timeout = setTimeout(() => {
      this.#timer = undefined;
      this.#filling ??= this.#fill().then((pause) => {
        this.#filling = undefined;
        this.#after(pause);
      });
    }, ms);
    timeout.unref();
    this.#timer = { at, timeout };
  }

  /** Starts one if one is missing; how long to wait for the next look. */
  async #fill(): Promise<number> {
    const { admission, driver, log } = this.#options;
    const pausesFor = this.#notBefore - performance.now();
    if (pausesFor > 0) return pausesFor;
    try {
      const madeBy = await driver.shape();
      for (const pooled of this.#free()) {
        if (pooled.spec.pooled !== this.#shape(pooled.spec.templateName, madeBy)) void this.#end(pooled);
      }
      this.trim();
      const templateName = this.#demand.neediest((name) => this.#free(name).length);
      if (templateName === undefined) return this.#pauses.full;
      const leave = this.#free().length < this.#room() ? admission.enterAhead() : undefined;
      if (!leave) return this.#pauses.busy;
      await this.#start(templateName, this.#shape(templateName, madeBy)).finally(leave);
      this.#failures = 0;
      return 0;
    } catch (err) {
      if (this.#closed) return 0;
      log.warn({ err }, 'no sandbox could be started for the pool');
      this.#failures += 1;
      const pause = Math.min(this.#pauses.failed * 2 ** (this.#failures - 1), this.#pauses.failedMost);
      this.#notBefore = performance.now() + pause;
      return pause;
    }
  }

  async #start(templateName: string, shape: string): Promise<void> {
    const { driver, plain, startTimeoutSeconds } = this.#options;
    const spec: SandboxSpec = {
      ...plain(templateName, `pool-${randomUUID()}`),
      owner: '',
      recording: 'off',
      idleTimeoutSeconds: NEVER_SECONDS,
      connectTimeoutSeconds: NEVER_SECONDS,
      maxLifetimeSeconds: MAX_AGE_SECONDS,
      pooled: shape,
    };
    const pooled: Pooled = { spec, abort: new AbortController(), taken: false };
    this.#all.set(spec.id, pooled);
    try {
      const limit = AbortSignal.timeout((startTimeoutSeconds + 5) * 1000);
      pooled.address = await driver.start(spec, AbortSignal.any([pooled.abort.signal, limit]));
      await this.#makeReady(pooled, startTimeoutSeconds * 1000);
      this.#options.log.info({ handle: spec.id }, 'a pooled sandbox is READY');
    } catch (err) {
      // Given back meanwhile: then it is no failure.
      const wanted = this.#all.has(spec.id);
      await this.#end(pooled);
      if (wanted) throw err;
    }
  }

  /** Resolves when it may be claimed. From then on its end is noticed. */
  async #makeReady(pooled: Pooled, withinMs: number): Promise<void> {
    const { openLink } = this.#options;
    const signal = AbortSignal.any([pooled.abort.signal, AbortSignal.timeout(withinMs)]);
    await new Promise<void>((resolve, reject) => {
      const look = (): void => {
        const { status } = pooled;
        if (status?.endingReason ?? status?.endedReason) reject(new Error(status?.endingReason ?? status?.endedReason));
        else if (isReady(pooled)) resolve();
      };
      const gone = (err: Error): void => {
        reject(err);
        // One that was there already and has ended, by its age for one.
        if (pooled.link && !pooled.taken && this.#all.has(pooled.spec.id)) void this.#end(pooled);
      };
      signal.addEventListener('abort', () => reject(new Error('it was not ready in time')), { once: true });
      const onStatus = (status: SandboxStatus): void => {
        pooled.status = status;
        look();
        if (pooled.link && hasSpoilt(status)) gone(new Error('it is not as good as new any more'));
      };
      const onClosed = (): void => gone(new Error('its runtime is gone'));
      openLink(pooled.address as RuntimeAddress, { onStatus, onClosed }, signal).then((link) => {
        pooled.link = link;
        // Given back while the link was being opened.
        if (signal.aborted) link.close();
        look();
      }, reject);
    });
  }

  /** Ends one, and everything of it. */
  #end(pooled: Pooled): Promise<void> {
    const { driver, onNotRemoved, log } = this.#options;
    const { id } = pooled.spec;
    this.#all.delete(id);
    pooled.abort.abort(new Error('it is not wanted any more'));
    const ending = (async () => {
      await (pooled.link ?? (await this.#linkTo(pooled)))?.stop('service_stopped');
      await driver.stop(id);
    })()
      .catch((err: unknown) => {
        log.error({ handle: id, err }, 'the driver could not remove a pooled sandbox');
        onNotRemoved(id);
      })
      .finally(() => this.#endings.delete(ending));
    this.#endings.add(ending);
    this.#after(this.#pauses.busy);
    return ending;
  }

  /** To one that was never ready, so that it can end in order; undefined when it does not answer. */
  async #linkTo({ address }: Pooled): Promise<RuntimeLink | undefined> {
    const nobody = { onStatus() {}, onClosed() {} };
    const signal = AbortSignal.timeout(this.#pauses.adopt);
    return address && this.#options.openLink(address, nobody, signal).catch(() => undefined);
  }

  /** What a pooled sandbox would be made of that is started now, `madeBy` being the driver's part of it. Throws TEMPLATE_NOT_FOUND. */
  #shape(templateName: string, madeBy: string): string {
    const { id, createdAt, ...made } = this.#options.plain(templateName, '');
    return createHash('sha256')
      .update(JSON.stringify([made, madeBy]))
      .digest('hex')
      .slice(0, 16);
  }
}

/** As good as new, and its parts are up. */
function isReady({ status, link, taken }: Pooled): boolean {
  if (!status || !link || taken) return false;
  return status.pooled === true && status.state === 'READY' && status.devtools !== undefined && !hasSpoilt(status);
}

function hasSpoilt(status: SandboxStatus): boolean {
  return status.browserRestarts > 0 || status.endingReason !== undefined || hasEnded(status.state);
}

async function within<T>(ms: number, work: Promise<T> | undefined): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`its runtime did not answer within ${ms} ms`)), ms);
  });
  await Promise.race([work, late]).finally(() => clearTimeout(timer));
}
