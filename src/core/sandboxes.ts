import { randomUUID } from 'node:crypto';
import { assertMayChange, type Principal, sees } from './access.ts';
import type { Admission } from './admission.ts';
import type { Driver, Log, OpenRuntimeLink, Registry, Way } from './contracts.ts';
import type { Control, Onlooker, Viewer } from './control.ts';
import type { PoolSize } from './demand.ts';
import { AppError } from './errors.ts';
import type { Events } from './events.ts';
import { type Earlier, IdempotencyKeys, idempotencyOf } from './idempotency.ts';
import { type ChangeInput, type CreateInput, merged, specOf, type Template, withoutCredentials } from './input.ts';
import { TenantLimits } from './limits.ts';
import { LiveSandbox, type SandboxInfo, type Turn } from './live.ts';
import { Pool } from './pool.ts';
import type { Attachment } from './presence.ts';
import { Removals } from './removals.ts';
import type { Idempotency, PageInfo, SandboxSpec } from './sandbox.ts';
import { Screenshots } from './screenshots.ts';

/** What the use cases are made of. */
export interface SandboxesOptions {
  readonly driver: Driver;
  readonly openLink: OpenRuntimeLink;
  readonly registry: Registry;
  readonly events: Events;
  readonly templates: ReadonlyMap<string, Template>;
  readonly admission: Admission;
  /** Default: none. */
  readonly tenantLimits?: TenantLimits;
  /** Clients and viewers of one sandbox at once; 0, the default, sets no limit. */
  readonly sandboxClients?: number;
  /** READY within this time of its turn, else a start has failed. */
  readonly startTimeoutSeconds: number;
  /** Sandboxes started ahead of demand, by template. */
  readonly poolSizes: ReadonlyMap<string, PoolSize>;
  /** Looks at each sandbox when it begins and after each change. */
  readonly saw: (info: SandboxInfo) => void;
  /** Makes what is secret fit to be written down. */
  readonly seal: (text: string, context: string) => string;
  readonly log: Log;
}

/** How long a WebSocket upgrade waits for a sandbox that is still starting, in milliseconds. */
const READY_WAIT_MS = 30_000;

/** The use cases. Holds a cache of live sandboxes; the truth is with the driver and the runtimes, so it may be lost at any moment. */
export class Sandboxes {
  readonly #options: SandboxesOptions;
  readonly #live = new Map<string, LiveSandbox>();
  readonly #screenshots = new Screenshots();
  readonly #keys = new IdempotencyKeys((id) => this.find(id));
  readonly #removals: Removals;
  readonly #tenantLimits: TenantLimits;
  readonly #pool: Pool;
  #closing = false;

  constructor(options: SandboxesOptions) {
    this.#options = options;
    this.#tenantLimits = options.tenantLimits ?? new TenantLimits();
    this.#removals = new Removals(options.driver, (id) => this.#live.has(id));
    this.#pool = new Pool({
      ...options,
      sizes: options.poolSizes,
      plain: (templateName, id) => {
        // What it may reach is said when it is claimed: nothing on its inside depends on it.
        const { egress, ...spec } = this.#specOf('', { templateName, sandboxId: id }, undefined);
        return spec;
      },
      living: () => this.#live.size,
      onNotRemoved: (id) => this.#removals.add(id),
    });
  }

  /** Sandboxes started ahead of demand. */
  get pool(): Pick<Pool, 'ready' | 'claims' | 'relieve'> {
    return this.#pool;
  }

  /** Takes over what the driver finds from an earlier run of the service. Called once, before anybody is served. */
  async adopt(): Promise<void> {
    for (const found of await this.#options.driver.list()) {
      const id = found.spec.id;
      if (found.spec.pooled !== undefined) {
        await this.#pool.adopt(found);
        continue;
      }
      if (found.ended) {
        await this.#options.registry.remember(found.ended);
        this.#options.events.watcher().saw({ spec: found.spec, state: found.ended.state, ended: found.ended });
        await this.#options.driver.stop(id);
        continue;
      }
      const live = this.#track(found.spec);
      await live.adopt(found.address, AbortSignal.timeout(5000)).catch((err: unknown) => {
        this.#options.log.error({ sandboxId: id, err }, 'could not take over a sandbox of an earlier run');
      });
    }
    const known = [...this.#options.registry.list(), ...this.#live.values()].map(({ spec }) => spec);
    for (const spec of known.sort((a, b) => a.createdAt - b.createdAt)) this.#keys.add(spec);
    this.#pool.begin();
  }

  /**
   * Resolves when READY, or at once when `wait` is false. With an idempotency key that was used before, with the sandbox of
   * then. Throws TEMPLATE_NOT_FOUND, SANDBOX_EXISTS, IDEMPOTENCY_KEY_REUSED, NO_CAPACITY, TOO_MANY_REQUESTS, START_FAILED, SHUTTING_DOWN.
   */
  async create(
    principal: Principal,
    input: CreateInput,
    wait: boolean,
    signal: AbortSignal,
    idempotencyKey?: string,
  ): Promise<SandboxInfo> {
    assertMayChange(principal);
    if (this.#closing) throw new AppError('SHUTTING_DOWN', 'Berth is shutting down and takes no new sandboxes.');
    const idempotency =
      idempotencyKey === undefined
        ? undefined
        : idempotencyOf(principal.tenant, idempotencyKey, withoutCredentials(input));
    const earlier = idempotency && this.#keys.earlier(idempotency);
    if (earlier) return this.#createdBefore(earlier, wait, signal);
    const own = this.live().filter(({ spec }) => spec.owner === principal.tenant);
    this.#tenantLimits.create(principal.tenant, own.length);
    const spec = this.#specOf(principal.tenant, input, idempotency);
    const { admission } = this.#options;
    const others = this.#live.size;
    admission.assertRoom(others);
    const pooled = this.#pool.take(spec);
    let place = pooled ? undefined : admission.enter(others);
    const live = this.#track(spec);
    this.#pool.trim();
    const turn: Turn = async (givenUp) => {
      const claimed = await this.#pool.claim(pooled, spec);
      if (claimed) return claimed;
      place ??= admission.enter(others);
      await place.turn(givenUp);
      return undefined;
    };
    // With a key it goes on when the caller hangs up: the caller's retry finds it.
    const started = live.start(wait && !idempotency ? signal : undefined, turn);
    const over = started.finally(() => place?.leave());
    over.catch(() => {}); // its outcome is the sandbox's state, also when nobody waits
    this.#keys.add(spec, over);
    if (wait) await over;
    return live.info;
  }

  /** Throws SANDBOX_NOT_FOUND, also for a sandbox of another tenant. */
  get(principal: Principal, id: string): SandboxInfo {
    const info = this.find(id);
    if (!info || !sees(principal, info.spec.owner)) throw notFound(id);
    return info;
  }

  /** Without asking who wants to know. */
  find(id: string): SandboxInfo | undefined {
    const live = this.#live.get(id);
    if (live) return live.info;
    const ended = this.#options.registry.find(id);
    return ended && { spec: ended.spec, state: ended.state, ended };
  }

  /** Newest first, live and remembered. */
  list(principal: Principal, keep: (info: SandboxInfo) => boolean): SandboxInfo[] {
    const live = this.live();
    const ended = this.#options.registry
      .list()
      .filter((e) => !this.#live.has(e.spec.id))
      .map((e): SandboxInfo => ({ spec: e.spec, state: e.state, ended: e }));
    return [...live, ...ended]
      .filter((info) => sees(principal, info.spec.owner) && keep(info))
      .sort((a, b) => b.spec.createdAt - a.spec.createdAt);
  }

  /** Ends a sandbox, recording finalised first. Idempotent: an ended one stays as it ended. */
  async stop(principal: Principal, id: string): Promise<SandboxInfo> {
    assertMayChange(principal);
    this.get(principal, id);
    await this.#live.get(id)?.stop('deleted');
    return this.get(principal, id);
  }

  /**
   * Extends or shortens the life of a READY sandbox, or changes its metadata. Lifetimes count from the creation, so one that
   * is over already ends it. Throws SANDBOX_NOT_FOUND, SANDBOX_ENDED, SANDBOX_NOT_READY, BROWSER_UNREACHABLE, INVALID_REQUEST.
   */
  async change(principal: Principal, id: string, input: ChangeInput): Promise<SandboxInfo> {
    assertMayChange(principal);
    this.get(principal, id);
    const live = await this.#readyOne(id, AbortSignal.timeout(READY_WAIT_MS));
    const { sandboxIdleTimeoutSeconds, maxLifetimeSeconds, activity, control } = input;
    await live.change(({ metadata }) => ({
      ...(sandboxIdleTimeoutSeconds === undefined ? {} : { idleTimeoutSeconds: sandboxIdleTimeoutSeconds }),
      ...(maxLifetimeSeconds === undefined ? {} : { maxLifetimeSeconds }),
      ...(activity === undefined ? {} : { activity }),
      ...(control === undefined ? {} : { control }),
      ...(input.metadata === undefined ? {} : { metadata: merged(metadata, input.metadata) }),
    }));
    return live.info;
  }

  /** Starts or stops the recorder of a READY sandbox. Throws SANDBOX_NOT_FOUND, SANDBOX_ENDED, SANDBOX_NOT_READY. */
  async setRecording(principal: Principal, id: string, on: boolean): Promise<SandboxInfo> {
    assertMayChange(principal);
    this.get(principal, id);
    const live = await this.#readyOne(id, AbortSignal.timeout(READY_WAIT_MS));
    await live.setRecording(on);
    return live.info;
  }

  /**
   * Ends the segment that is being written, if any, so that it may be deleted; the recording goes on with the next.
   * Throws SANDBOX_NOT_FOUND, SANDBOX_ENDED, SANDBOX_NOT_READY.
   */
  async cutRecording(id: string): Promise<void> {
    const live = await this.#readyOne(id, AbortSignal.timeout(READY_WAIT_MS));
    await live.cutRecording();
  }

  /** The tabs of a READY sandbox's browser and how each is. Throws as {@link setRecording}, and BROWSER_UNREACHABLE. */
  async pages(principal: Principal, id: string): Promise<PageInfo[]> {
    this.get(principal, id);
    const live = await this.#readyOne(id, AbortSignal.timeout(READY_WAIT_MS));
    return live.pages();
  }

  /** The screen as a JPEG of at most `width` pixels. Throws as {@link pages}. */
  async screenshot(principal: Principal, id: string, width: number): Promise<Buffer> {
    this.get(principal, id);
    const live = await this.#readyOne(id, AbortSignal.timeout(READY_WAIT_MS));
    // An id may be another tenant's soon after.
    return this.#screenshots.get(`${id} ${live.spec.createdAt} ${width}`, () => live.screenshot(width));
  }

  /** Closes a tab, also one that is past answering. Throws as {@link pages}, and NOT_FOUND. */
  async closePage(principal: Principal, id: string, page: string): Promise<void> {
    assertMayChange(principal);
    this.get(principal, id);
    const live = await this.#readyOne(id, AbortSignal.timeout(READY_WAIT_MS));
    if (!(await live.closePage(page))) throw new AppError('NOT_FOUND', `The browser has no page ${page}.`);
  }

  /**
   * Joins a client to a sandbox, waiting for READY at most 30 s. The caller must `detach` in the end. `not` is
   * the path of a browser that turned out to be dead: then the next one is waited for, at most 30 s.
   * Throws SANDBOX_NOT_FOUND, SANDBOX_ENDED, SANDBOX_NOT_READY, BROWSER_UNREACHABLE, TOO_MANY_CLIENTS.
   */
  async attach(id: string, record: boolean, signal: AbortSignal, not?: string): Promise<Attachment> {
    return (await this.#joinable(id, record, signal)).attach(signal, not);
  }

  /** Joins a viewer as {@link attach} does a client. Throws FORBIDDEN, too, when the viewer's id is somebody else's. */
  async watch(id: string, who: Onlooker, record: boolean, signal: AbortSignal): Promise<Viewer> {
    return (await this.#joinable(id, record, signal)).watch(who, signal);
  }

  /** The viewers of a sandbox, for who may see it. Throws SANDBOX_NOT_FOUND and SANDBOX_ENDED. */
  viewers(id: string): Control {
    const live = this.#live.get(id);
    if (live) return live.control;
    throw this.#goneOrUnknown(id);
  }

  /** Ends the connections to a sandbox that were let in with this ticket, or with any. */
  endTicket(id: string, ticketId?: string): void {
    this.#live.get(id)?.endTicket(ticketId);
  }

  /** The way to a browser's DevTools for who is no client. Throws as {@link attach}. */
  async devToolsWay(id: string): Promise<Way> {
    const signal = AbortSignal.timeout(READY_WAIT_MS);
    return (await this.#readyOne(id, signal)).devToolsWay(signal);
  }

  /** Whether nobody is admitted any more. */
  get closing(): boolean {
    return this.#closing;
  }

  /** All that have not ended, of every tenant. */
  live(): SandboxInfo[] {
    return [...this.#live.values()].map((sandbox) => sandbox.info);
  }

  get count(): number {
    return this.#live.size;
  }

  /** Admits nobody any more; with `stop` ends every sandbox, else lets go of them: they live on by their own clocks. */
  async close(stop: boolean): Promise<void> {
    this.#closing = true;
    this.#removals.close();
    this.#options.admission.close();
    const ended = [...this.#live.values()].map(async (live) => {
      try {
        if (stop || live.state === 'CREATING') await live.stop('service_stopped');
        else live.release();
      } catch (err) {
        // The others, and what comes after them, must not pay for one that cannot be ended.
        this.#options.log.error({ sandboxId: live.spec.id, err }, 'could not end a sandbox');
      }
    });
    // The pool's are never kept: nobody has them, and the next start has its own.
    await Promise.all([this.#pool.close(), ...ended]);
  }

  /** The sandbox of an earlier create with the same key, as it is now; one that is starting is waited for. */
  async #createdBefore({ id, started }: Earlier, wait: boolean, signal: AbortSignal): Promise<SandboxInfo> {
    const live = this.#live.get(id);
    if (wait && started) await started;
    else if (wait && live?.state === 'CREATING') {
      // Begun by an earlier run of the service.
      await live.whenReady(AbortSignal.any([signal, AbortSignal.timeout(READY_WAIT_MS)])).catch((err: unknown) => {
        const reason = this.find(id)?.ended?.endedReason;
        throw reason === undefined ? err : new AppError('START_FAILED', `The sandbox did not start: ${reason}`);
      });
    }
    const info = live?.info ?? this.find(id);
    if (!info) throw notFound(id);
    return info;
  }

  async #readyOne(id: string, signal: AbortSignal): Promise<LiveSandbox> {
    const live = this.#live.get(id);
    if (live) {
      await live.whenReady(signal);
      return live;
    }
    throw this.#goneOrUnknown(id);
  }

  async #joinable(id: string, record: boolean, signal: AbortSignal): Promise<LiveSandbox> {
    const live = await this.#readyOne(id, AbortSignal.any([signal, AbortSignal.timeout(READY_WAIT_MS)]));
    if (record) await live.setRecording(true);
    return live;
  }

  #goneOrUnknown(id: string): AppError {
    const ended = this.#options.registry.find(id);
    return ended ? new AppError('SANDBOX_ENDED', `Sandbox ${id} has ended: ${ended.endedReason}.`) : notFound(id);
  }

  #track(spec: SandboxSpec): LiveSandbox {
    const { driver, openLink, registry, events, startTimeoutSeconds, saw, log, sandboxClients } = this.#options;
    const watcher = events.watcher();
    const live = new LiveSandbox(spec, {
      driver,
      openLink,
      startTimeoutSeconds,
      mostClients: sandboxClients ?? 0,
      log,
      watcher: {
        saw: (info) => {
          watcher.saw(info);
          saw(info);
        },
      },
      onEnded: async (ended) => {
        // A registry that cannot write still has it in memory.
        await registry
          .remember(ended)
          .catch((err: unknown) => log.error({ sandboxId: spec.id, err }, 'could not write the history'));
      },
      onGone: () => {
        // By then the id may belong to a new one.
        if (this.#live.get(spec.id) === live) this.#live.delete(spec.id);
      },
      onNotRemoved: () => this.#removals.add(spec.id),
      onControl: (controller) => events.controlChanged(spec.id, spec.owner, controller),
    });
    this.#live.set(spec.id, live);
    return live;
  }

  #specOf(owner: string, input: CreateInput, idempotency: Idempotency | undefined): SandboxSpec {
    const templateName = input.templateName ?? 'default';
    const template = this.#options.templates.get(templateName);
    if (!template) throw new AppError('TEMPLATE_NOT_FOUND', `templateName: no template is called "${templateName}".`);
    const id = input.sandboxId ?? randomUUID();
    const taken = this.find(id);
    if (taken && (!taken.ended || taken.spec.owner !== owner)) {
      throw new AppError('SANDBOX_EXISTS', `sandboxId: "${id}" is taken.`);
    }
    const { seal } = this.#options;
    return specOf({ id, owner, templateName, template, input, seal, ...(idempotency ? { idempotency } : {}) });
  }
}

function notFound(id: string): AppError {
  return new AppError('SANDBOX_NOT_FOUND', `sandbox not found: ${id}`);
}
