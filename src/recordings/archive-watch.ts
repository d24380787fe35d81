import type { Archive, Log } from '../core/contracts.ts';

/** How often the archive is asked, in milliseconds. */
const EVERY_MS = 10_000;

/** Asks the archive now and then whether it is there, so that whoever wants to know has an answer without waiting for it. */
export class ArchiveWatch {
  readonly #archive: Pick<Archive, 'check'>;
  readonly #log: Log;
  readonly #timer: NodeJS.Timeout;
  #state: 'ok' | 'unreachable' = 'ok';
  #asking: Promise<void> | undefined;
  #closed = false;

  /** Looks at once, and then every `everyMs` milliseconds until it is closed. */
  constructor(archive: Pick<Archive, 'check'>, log: Log, everyMs = EVERY_MS) {
    this.#archive = archive;
    this.#log = log;
    this.#timer = setInterval(() => void this.look(), everyMs);
    this.#timer.unref();
    void this.look();
  }

  /** As it was when it was last looked; `ok` before that. */
  get state(): 'ok' | 'unreachable' {
    return this.#state;
  }

  /** Looks now. Resolves when the state is known; those who ask meanwhile share the answer. */
  look(): Promise<void> {
    this.#asking ??= this.#archive
      .check()
      .then(
        () => this.#become('ok', 'the archive can be reached'),
        (err: unknown) => this.#become('unreachable', err instanceof Error ? err.message : String(err)),
      )
      .finally(() => {
        this.#asking = undefined;
      });
    return this.#asking;
  }

  /** Looks no more. What was asked already may still be answered, and that is told nobody. */
  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
  }

  #become(state: 'ok' | 'unreachable', why: string): void {
    // The end of the service breaks off what was asked, which is no failure of the archive.
    if (this.#closed || state === this.#state) return;
    this.#state = state;
    if (state === 'ok') this.#log.info({}, why);
    else this.#log.error({ why }, 'recordings wait on the disk: the archive cannot be reached');
  }
}
