import type { Way } from './contracts.ts';
import { AppError } from './errors.ts';
import type { BrowserClose } from './sandbox.ts';

/** client: drives the browser over CDP. viewer: sees the screen over RFB. */
export type AttachKind = 'client' | 'viewer';

/** Why a connection was ended from our side: a WebSocket close code and a sentence (at most 123 bytes, RFC 6455 section 5.5). */
export interface Ending {
  readonly code: number;
  readonly reason: string;
}

/** One connection of a client or viewer to a sandbox. */
export interface Attachment {
  readonly sandboxId: string;
  /** Where to connect to for it. */
  readonly way: Way;
  /** Path of the browser's own DevTools socket; empty for viewers. */
  readonly browserPath: string;
  /** Of the ticket that it was let in with; set by the gateway. */
  ticketId: string | undefined;
  /** Called for each message from the client; cheap enough for the hot path. */
  active(): void;
  /** The client is about to close the browser; answers what becomes of that, the sandbox's own part of it being under way. */
  closeBrowser(): BrowserClose;
  /** Idempotent. */
  detach(): void;
  /** Ends it from our side. */
  end(how: Ending): void;
  /** Called once when the sandbox ends; set it last, it may fire at once. */
  set onEnd(listener: (ending: Ending) => void);
}

/** When a client may come again who found the sandbox full: they leave when they please, so it is a guess. */
const RETRY_AFTER_SECONDS = 5;
/** Between two words of activity to a runtime, in milliseconds. */
const TOUCH_EVERY_MS = 1000;

/** Who is connected to one sandbox through this gateway; tells its runtime so, at once on joins and leaves and at most once a second of activity. */
export class Presence {
  readonly #sandboxId: string;
  readonly #tell: (clients: number, viewers: number, active: boolean) => void;
  readonly #most: number;
  readonly #attached = new Set<Joined>();
  #touch: 'quiet' | 'told' | 'due' = 'quiet';
  #timer: NodeJS.Timeout | undefined;

  /** `most` may be joined at once; 0 is no limit. */
  constructor(sandboxId: string, tell: (clients: number, viewers: number, active: boolean) => void, most = 0) {
    this.#sandboxId = sandboxId;
    this.#tell = tell;
    this.#most = most;
  }

  /** `closeBrowser` is what the sandbox does about a client's `Browser.close`. Throws TOO_MANY_CLIENTS. */
  join(kind: AttachKind, way: Way, browserPath: string, closeBrowser: () => BrowserClose): Attachment {
    if (this.#most > 0 && this.#attached.size >= this.#most) throw this.#full();
    const joined = new Joined(this.#sandboxId, kind, way, browserPath, closeBrowser, this);
    this.#attached.add(joined);
    this.#say(kind === 'client');
    return joined;
  }

  /** It is no longer connected. Idempotent. */
  leave(joined: Joined): void {
    if (this.#attached.delete(joined)) this.#say(false);
  }

  /** Ends every connection, or every one of a kind, with this code and reason. */
  endAll(ending: Ending, kind?: AttachKind): void {
    for (const entry of this.#attached) if (kind === undefined || entry.kind === kind) entry.end(ending);
  }

  /** Ends those that were let in with this ticket, or with any. */
  endTicket(ending: Ending, ticketId: string | undefined): void {
    for (const entry of this.#attached) {
      if (entry.ticketId !== undefined && (ticketId === undefined || entry.ticketId === ticketId)) entry.end(ending);
    }
  }

  /** Says it again, to a runtime whose connection is new. */
  repeat(): void {
    if (this.#attached.size > 0) this.#say([...this.#attached].some(({ kind }) => kind === 'client'));
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  /** A client has sent something; cheap enough for the hot path. */
  onActivity(): void {
    if (this.#touch === 'due') return;
    if (this.#touch === 'told') this.#touch = 'due';
    else this.#say(true);
  }

  #full(): AppError {
    const sentence = `${this.#most} clients and viewers are connected to this sandbox already (BERTH_SANDBOX_CLIENTS).`;
    return new AppError('TOO_MANY_CLIENTS', sentence, { 'Retry-After': String(RETRY_AFTER_SECONDS) });
  }

  /** At once, then for a second no more than a note to say it again. */
  #say(active: boolean): void {
    let viewers = 0;
    for (const { kind } of this.#attached) if (kind === 'viewer') viewers++;
    this.#tell(this.#attached.size - viewers, viewers, active);
    if (!active) return;
    this.#touch = 'told';
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const due = this.#touch === 'due';
      this.#touch = 'quiet';
      if (due) this.#say(true);
    }, TOUCH_EVERY_MS);
  }
}

/** A class, not a literal with functions of its own: thousands may idle, and each function of each is memory. */
class Joined implements Attachment {
  readonly sandboxId: string;
  readonly kind: AttachKind;
  readonly way: Way;
  readonly browserPath: string;
  readonly closeBrowser: () => BrowserClose;
  ticketId: string | undefined;
  readonly #presence: Presence;
  #listener: ((ending: Ending) => void) | undefined;
  #ending: Ending | undefined;

  constructor(
    sandboxId: string,
    kind: AttachKind,
    way: Way,
    browserPath: string,
    closeBrowser: () => BrowserClose,
    presence: Presence,
  ) {
    this.sandboxId = sandboxId;
    this.kind = kind;
    this.way = way;
    this.browserPath = browserPath;
    this.closeBrowser = closeBrowser;
    this.#presence = presence;
  }

  active(): void {
    // A viewer's messages say no more than that it is attached.
    if (this.kind === 'client') this.#presence.onActivity();
  }

  detach(): void {
    this.#presence.leave(this);
  }

  set onEnd(listener: (ending: Ending) => void) {
    this.#listener = listener;
    if (this.#ending) this.end(this.#ending);
  }

  end(how: Ending): void {
    this.#ending ??= how;
    this.#listener?.(this.#ending);
    this.#listener = undefined;
  }
}
