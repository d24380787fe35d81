import type RFB from '@novnc/novnc';
import { createStore, type Store } from '../store.ts';
import { type LiveInfo, liveInfo, outcomeOf } from './info.ts';

/** How it stands with a screen. */
export type ScreenState =
  | { readonly kind: 'idle' }
  | { readonly kind: 'connecting' }
  | { readonly kind: 'connected' }
  | { readonly kind: 'waiting'; readonly why: string; readonly again: number }
  | { readonly kind: 'lost'; readonly why: string }
  | { readonly kind: 'ended'; readonly why: string }
  | { readonly kind: 'refused'; readonly why: string; readonly status: number };

export interface ConnectionOptions {
  readonly sandboxId: string;
  /** Of whoever has no session. */
  readonly ticket?: string | undefined;
  readonly viewOnly: boolean;
  readonly scale: boolean;
  readonly reconnect: boolean;
  /** Before the first new attempt, in milliseconds; doubled with each, up to ten seconds. */
  readonly reconnectDelay: number;
}

const LONGEST_WAIT_MS = 10_000;
/** noVNC's own way to type: a character as X11 has it, with what Unicode has beyond Latin 1 above this number. */
const UNICODE_KEYSYMS = 0x0100_0000;
const SHIFT_KEYSYM = 0xffe1;
/** What the keyboard of a sandbox has behind its shift key. */
const SHIFTED = /^[A-Z~!@#$%^&*()_+{}|:"<>?]$/;

/** One screen of a page: connects, says how it stands, and connects again when the connection breaks. */
export class ScreenConnection {
  readonly state: Store<ScreenState> = createStore<ScreenState>({ kind: 'idle' });
  readonly info: Store<LiveInfo | undefined> = createStore<LiveInfo | undefined>(undefined);
  /** What somebody has copied in the sandbox, newest. */
  readonly copied: Store<string | undefined> = createStore<string | undefined>(undefined);
  /** Names us among the viewers. */
  readonly viewerId = `web-${Math.random().toString(36).slice(2, 10)}${Date.now().toString(36)}`;
  readonly #target: HTMLElement;
  readonly #options: ConnectionOptions;
  #viewOnly: boolean;
  #scale: boolean;
  #rfb: RFB | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #wait: number;
  #closed = false;

  constructor(target: HTMLElement, options: ConnectionOptions) {
    this.#target = target;
    this.#options = options;
    this.#viewOnly = options.viewOnly;
    this.#scale = options.scale;
    this.#wait = options.reconnectDelay;
  }

  /** Asks whether it may, then connects. Says in {@link state} how that went. */
  async connect(): Promise<void> {
    clearTimeout(this.#timer);
    this.state.set({ kind: 'connecting' });
    try {
      const info = await liveInfo(this.#options.sandboxId, this.#options.ticket);
      if (this.#closed) return;
      this.info.set(info);
      const { default: Rfb } = await import('@novnc/novnc');
      if (!this.#closed) this.#open(Rfb, info);
    } catch (err) {
      this.#failed(err);
    }
  }

  get sandboxId(): string {
    return this.#options.sandboxId;
  }

  get ticket(): string | undefined {
    return this.#options.ticket;
  }

  get viewOnly(): boolean {
    return this.#viewOnly || this.info.value?.role === 'view';
  }

  set viewOnly(on: boolean) {
    this.#viewOnly = on;
    if (this.#rfb) this.#rfb.viewOnly = this.viewOnly;
  }

  set scale(on: boolean) {
    this.#scale = on;
    this.#fit();
  }

  focus(): void {
    this.#rfb?.focus({ preventScroll: true });
  }

  /** Gives the keyboard back. What is held down is released first: its own release would go elsewhere. */
  blur(): void {
    // The one way that noVNC leaves open: it believes that the window has lost the focus.
    dispatchEvent(new Event('blur'));
    this.#rfb?.blur();
  }

  /** Puts text on the clipboard of the sandbox. */
  paste(text: string): void {
    this.#rfb?.clipboardPasteFrom(text);
  }

  /** Types text key by key, for where the sandbox has no clipboard. What no American keyboard has needs a TigerVNC of 1.15. */
  async type(text: string): Promise<void> {
    for (const character of text.replaceAll('\r\n', '\n')) {
      const code = character.codePointAt(0) as number;
      const keysym = code === 10 ? 0xff0d : code === 9 ? 0xff09 : code < 0x100 ? code : UNICODE_KEYSYMS + code;
      // TigerVNC before 1.15 presses the key and leaves the rest to whoever types.
      const shifted = SHIFTED.test(character);
      if (shifted) this.#rfb?.sendKey(SHIFT_KEYSYM, 'ShiftLeft', true);
      this.#rfb?.sendKey(keysym, null);
      if (shifted) this.#rfb?.sendKey(SHIFT_KEYSYM, 'ShiftLeft', false);
      // A character that no key has gets one made for it, of which the sandbox's programs have to hear first.
      await new Promise((next) => setTimeout(next, code < 0x80 ? 10 : 80));
    }
  }

  sendCtrlAltDel(): void {
    this.#rfb?.sendCtrlAltDel();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#rfb?.disconnect();
    this.#rfb = undefined;
  }

  #fit(): void {
    if (!this.#rfb) return;
    this.#rfb.scaleViewport = this.#scale;
    this.#rfb.clipViewport = false;
  }

  #open(Rfb: typeof RFB, info: LiveInfo): void {
    this.#target.replaceChildren();
    const url = new URL(info.url);
    url.searchParams.set('viewer', this.viewerId);
    if (this.#options.viewOnly) url.searchParams.set('view_only', 'true');
    const socket = new WebSocket(url);
    let why = '';
    // noVNC does not pass it on.
    socket.addEventListener('close', (event) => {
      why = event.reason;
    });
    const rfb = new Rfb(this.#target, socket, { shared: true });
    this.#rfb = rfb;
    rfb.viewOnly = this.viewOnly;
    rfb.background = 'transparent';
    rfb.focusOnClick = true;
    this.#fit();
    rfb.addEventListener('connect', () => {
      this.#wait = this.#options.reconnectDelay;
      this.state.set({ kind: 'connected' });
    });
    rfb.addEventListener('clipboard', (event) => {
      this.copied.set((event as CustomEvent<{ text: string }>).detail.text);
    });
    rfb.addEventListener('disconnect', () => {
      if (this.#rfb !== rfb || this.#closed) return;
      this.#rfb = undefined;
      const ended = /^sandbox ended: (.*)$/.exec(why)?.[1];
      if (ended !== undefined) this.state.set({ kind: 'ended', why: ended });
      else void this.#lost(why);
    });
  }

  /** Whether it is over, or only the connection is. */
  async #lost(why: string): Promise<void> {
    try {
      await liveInfo(this.#options.sandboxId, this.#options.ticket);
      this.#later(why === '' ? 'The connection was lost.' : `The connection was closed: ${why}.`);
    } catch (err) {
      this.#failed(err);
    }
  }

  #failed(err: unknown): void {
    if (this.#closed) return;
    const { kind, why, status } = outcomeOf(err);
    if (kind === 'ended') this.state.set({ kind, why });
    else if (kind === 'refused') this.state.set({ kind, why, status });
    else this.#later(why);
  }

  #later(why: string): void {
    if (this.#closed) return;
    if (!this.#options.reconnect) return this.state.set({ kind: 'lost', why });
    this.state.set({ kind: 'waiting', why, again: Date.now() + this.#wait });
    this.#timer = setTimeout(() => void this.connect(), this.#wait);
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
  }
}
