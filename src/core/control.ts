import { AppError } from './errors.ts';
import type { Attachment, Ending } from './presence.ts';
import type { BrowserClose, ControlMode } from './sandbox.ts';
import type { Ticket } from './ticket.ts';

/** What a viewer may do by its key or ticket, and never more than that. view: look. */
export type ViewerRole = 'control' | 'view';

/** Who wants to see a sandbox's screen. */
export interface Onlooker {
  /** See {@link VIEWER_ID}. */
  readonly viewerId: string;
  readonly role: ViewerRole;
  /** Names the key or ticket: a viewer that comes back with the same one may have its id again. */
  readonly bearer: string;
}

/** Whether a viewer's address says that it only wants to look: `?view_only=true`, as noVNC's own pages read it. */
export function asksToLook(query: URLSearchParams): boolean {
  return !/^(|0|false|no|off)$/i.test(query.get('view_only') ?? '');
}

/** {@link Onlooker.bearer} of who comes with a ticket. */
export function ticketBearer({ id }: Pick<Ticket, 'id'>): string {
  return `ticket ${id}`;
}

/** One viewer as the API lists it; `since` is Unix milliseconds. */
export interface ViewerInfo {
  readonly viewerId: string;
  readonly role: ViewerRole;
  readonly controls: boolean;
  readonly since: number;
}

/** Chosen by the client, else by us; 1 to 64 letters, digits, `-` and `_`. */
export const VIEWER_ID = /^[A-Za-z0-9_-]{1,64}$/;

const KICKED: Ending = { code: 1008, reason: 'the owner of the sandbox has ended this view' };
const REPLACED: Ending = { code: 1008, reason: 'this viewer has connected again' };

/**
 * The viewers of one sandbox and which of them control it. While control is exclusive, the first who may have it and comes
 * while it is free gets it; when its controller goes or gives it back it is free until somebody asks for it or comes anew. Turned
 * exclusive, whoever of those who may control has been there longest keeps it.
 */
export class Control {
  readonly #onChange: (controller: string | undefined) => void;
  /** By id, the longest there first. */
  readonly #viewers = new Map<string, Viewer>();
  #mode: ControlMode;
  /** While control is exclusive and not free. */
  #controller: Viewer | undefined;

  /** `onChange` hears the id of the one viewer that controls now, or that control has become free. */
  constructor(mode: ControlMode, onChange: (controller: string | undefined) => void) {
    this.#mode = mode;
    this.#onChange = onChange;
  }

  get mode(): ControlMode {
    return this.#mode;
  }

  set mode(mode: ControlMode) {
    if (mode === this.#mode) return;
    this.#mode = mode;
    const first = [...this.#viewers.values()].find(({ role }) => role === 'control');
    this.#hand(mode === 'exclusive' ? first : undefined);
  }

  /** Longest there first. */
  list(): ViewerInfo[] {
    return [...this.#viewers.values()].map(({ viewerId, role, controls, since }) => ({
      viewerId,
      role,
      controls,
      since,
    }));
  }

  /** Throws FORBIDDEN when another key or ticket has a viewer of this id; one of the same is ended, since it has come back. */
  join(who: Onlooker, attachment: Attachment): Viewer {
    const before = this.#viewers.get(who.viewerId);
    if (before && before.bearer !== who.bearer) {
      throw new AppError('FORBIDDEN', `viewer: "${who.viewerId}" is somebody else's.`);
    }
    const viewer = new Viewer(who, attachment, this);
    const inherits = before !== undefined && before === this.#controller;
    if (before) {
      this.#viewers.delete(before.viewerId);
      before.attachment.end(REPLACED);
    }
    this.#viewers.set(viewer.viewerId, viewer);
    const isFree = this.#mode === 'exclusive' && (inherits || !this.#controller);
    this.#hand(isFree && viewer.role === 'control' ? viewer : this.#controller);
    return viewer;
  }

  /** It is no longer connected. Idempotent. */
  leave(viewer: Viewer): void {
    if (this.#viewers.get(viewer.viewerId) === viewer) this.#viewers.delete(viewer.viewerId);
    if (this.#controller === viewer) this.#hand(undefined);
  }

  /**
   * Lets a viewer control, whoever did before. With `bearer` only what the bearer of a ticket may: its own viewer, and only free control.
   * Throws NOT_FOUND, FORBIDDEN, INVALID_REQUEST for one that may only look, CONTROL_TAKEN.
   */
  give(viewerId: string, bearer?: string): void {
    const viewer = this.#find(viewerId, bearer);
    if (viewer.role === 'view') {
      throw new AppError('INVALID_REQUEST', `Viewer ${viewerId} may only look: it needs a control ticket.`);
    }
    if (this.#mode === 'collaborative' || this.#controller === viewer) return;
    if (bearer !== undefined && this.#controller) {
      throw new AppError('CONTROL_TAKEN', `Viewer ${this.#controller.viewerId} has control.`);
    }
    this.#hand(viewer);
  }

  /** Makes control free when this viewer has it. Throws NOT_FOUND, FORBIDDEN, and INVALID_REQUEST while control is collaborative. */
  giveBack(viewerId: string, bearer?: string): void {
    const viewer = this.#find(viewerId, bearer);
    if (this.#mode === 'collaborative') {
      throw new AppError('INVALID_REQUEST', 'control: it is collaborative, so no viewer has it alone.');
    }
    if (this.#controller === viewer) this.#hand(undefined);
  }

  /** Ends a viewer's connection. Throws NOT_FOUND. */
  kick(viewerId: string): void {
    this.#find(viewerId).attachment.end(KICKED);
  }

  #find(viewerId: string, bearer?: string): Viewer {
    const viewer = this.#viewers.get(viewerId);
    if (!viewer) throw new AppError('NOT_FOUND', `The sandbox has no viewer ${viewerId}.`);
    if (bearer !== undefined && viewer.bearer !== bearer) {
      throw new AppError('FORBIDDEN', 'This ticket is not that of this viewer.');
    }
    return viewer;
  }

  /** The one that loses control hears of it first, so that what it holds down is up before the next one begins. */
  #hand(controller: Viewer | undefined): void {
    const before = this.#controller;
    this.#controller = controller;
    const mayControl = (viewer: Viewer): boolean =>
      viewer.role === 'control' && (this.#mode === 'collaborative' || viewer === controller);
    for (const viewer of this.#viewers.values()) if (!mayControl(viewer)) viewer.controls = false;
    for (const viewer of this.#viewers.values()) if (mayControl(viewer)) viewer.controls = true;
    if (before?.viewerId !== controller?.viewerId) this.#onChange(controller?.viewerId);
  }
}

/** One connection that sees a sandbox's screen. */
export class Viewer implements Attachment {
  readonly viewerId: string;
  readonly role: ViewerRole;
  readonly bearer: string;
  readonly since = Date.now();
  readonly attachment: Attachment;
  readonly #control: Control;
  #controls = false;
  #listener: ((controls: boolean) => void) | undefined;

  constructor({ viewerId, role, bearer }: Onlooker, attachment: Attachment, control: Control) {
    this.viewerId = viewerId;
    this.role = role;
    this.bearer = bearer;
    this.attachment = attachment;
    this.#control = control;
  }

  get sandboxId(): string {
    return this.attachment.sandboxId;
  }

  get way(): Attachment['way'] {
    return this.attachment.way;
  }

  get browserPath(): string {
    return '';
  }

  get ticketId(): string | undefined {
    return this.attachment.ticketId;
  }

  set ticketId(ticketId: string | undefined) {
    this.attachment.ticketId = ticketId;
  }

  /** Whether what it types and points at goes to the desktop now. */
  get controls(): boolean {
    return this.#controls;
  }

  set controls(controls: boolean) {
    if (controls === this.#controls) return;
    this.#controls = controls;
    this.#listener?.(controls);
  }

  /** Called at once, and whenever {@link controls} has changed. */
  set onControl(listener: (controls: boolean) => void) {
    this.#listener = listener;
    listener(this.#controls);
  }

  /** A viewer's messages say no more than that it is attached. */
  active(): void {}

  /** Nothing in RFB closes the browser, so what looks like it is nothing. */
  closeBrowser(): BrowserClose {
    return 'restart';
  }

  detach(): void {
    this.#control.leave(this);
    this.attachment.detach();
  }

  set onEnd(listener: (ending: Ending) => void) {
    this.attachment.onEnd = listener;
  }

  end(how: Ending): void {
    this.attachment.end(how);
  }
}
