import { initSegment, mediaSegment, mimeType, type Sample } from './fmp4.ts';
import { type Frame, MatroskaReader } from './matroska.ts';

/** A file of a recording on the clock of the whole: where it begins, in milliseconds; how long it is, once it is closed. */
export interface Piece {
  readonly filename: string;
  readonly start: number;
  readonly duration: number | undefined;
  /** It is being written: what has been read is not all. */
  readonly grows: boolean;
}

export interface FeedOptions {
  /** As it is now: a recording that is made while it is watched grows. */
  readonly pieces: () => readonly Piece[];
  /** More may come behind the last piece. */
  readonly grows: () => boolean;
  readonly fetch: (filename: string, from: number, signal: AbortSignal) => Promise<Response>;
  readonly onFailure: (why: unknown) => void;
}

/** Read this far ahead of what is shown, and kept this far behind it, in seconds. */
const AHEAD = 30;
const BEHIND = 60;
/** How often it is looked for more of what is being written, in milliseconds. */
const LOOK_EVERY_MS = 600;
/** Frames go to the browser's buffer in lots of about this many milliseconds. */
const LOT_MS = 1000;
/** A frame without a next one is shown this long, in milliseconds, when nobody knows better. */
const LAST_FRAME_MS = 100;

/** The file has gone: somebody has deleted it, or its time was over. */
export class Deleted extends Error {}
/** This browser does not play what recordings are made of. */
export class Unplayable extends Error {}

/**
 * Feeds a video element with a recording, file after file, on one clock without the pauses between: what Matroska has in it
 * is put into the boxes that browsers play, here, so that the service need not. Reads only what is about to be shown.
 */
export class Feed {
  readonly #video: HTMLVideoElement;
  readonly #options: FeedOptions;
  readonly #source: MediaSource;
  #buffer: SourceBuffer | undefined;
  #type = '';
  #run = new AbortController();
  #sequence = 0;

  constructor(video: HTMLVideoElement, options: FeedOptions) {
    this.#video = video;
    this.#options = options;
    // Safari on phones has only this one.
    const Source =
      (globalThis as { ManagedMediaSource?: typeof MediaSource }).ManagedMediaSource ?? globalThis.MediaSource;
    if (!Source) throw new Unplayable('This browser has no media source.');
    this.#source = new Source();
    video.disableRemotePlayback = true;
    video.src = URL.createObjectURL(this.#source);
    this.#source.addEventListener('sourceopen', () => this.#start(video.currentTime * 1000), { once: true });
    video.addEventListener('seeking', this.#onSeeking);
  }

  close(): void {
    this.#run.abort();
    this.#video.removeEventListener('seeking', this.#onSeeking);
    URL.revokeObjectURL(this.#video.src);
    this.#video.removeAttribute('src');
    this.#video.load();
  }

  readonly #onSeeking = (): void => {
    const { currentTime, buffered } = this.#video;
    for (let i = 0; i < buffered.length; i++) {
      // What is fed already goes on from where it is.
      if (currentTime >= buffered.start(i) && currentTime < buffered.end(i) - 0.2 && this.#feeds(buffered.end(i)))
        return;
    }
    this.#start(currentTime * 1000);
  };

  /** Where the frames that were read last belong, in seconds. */
  #at = 0;

  #feeds(end: number): boolean {
    return Math.abs(end - this.#at) < 2 || this.#source.readyState === 'ended';
  }

  #start(fromMs: number): void {
    this.#run.abort();
    const run = new AbortController();
    this.#run = run;
    this.#feed(fromMs, run.signal).catch((err: unknown) => {
      if (!run.signal.aborted) this.#options.onFailure(err);
    });
  }

  async #feed(fromMs: number, signal: AbortSignal): Promise<void> {
    let last: string | undefined;
    let cursor: number | undefined;
    let wanted = fromMs;
    for (;;) {
      const pieces = this.#options.pieces();
      const known = pieces.findIndex(({ filename }) => filename === last);
      if (last !== undefined && known < 0) throw new Deleted();
      const next = last === undefined ? pieceAt(pieces, wanted) : pieces[known + 1];
      if (next) {
        cursor = await this.#feedPiece(next, cursor ?? next.start, wanted, signal);
        last = next.filename;
        wanted = 0;
      } else if (this.#options.grows()) {
        await pause(LOOK_EVERY_MS, signal);
      } else {
        await this.#idle(signal);
        if (this.#source.readyState === 'open') this.#source.endOfStream();
        return;
      }
    }
  }

  /** Answers where it ends. */
  async #feedPiece(piece: Piece, start: number, wantedMs: number, signal: AbortSignal): Promise<number> {
    const lot: Sample[] = [];
    let held: Frame | undefined;
    let heads: Uint8Array[] = [];
    let skipping = wantedMs > start;
    let lastDuration = LAST_FRAME_MS;
    const keep = (frame: Frame, duration: number): void => {
      const time = Math.round(start + frame.time);
      // To show a moment in the middle, decoding has to begin with the key frame before it.
      if (skipping && frame.isKey) lot.length = 0;
      if (skipping && time + duration > wantedMs) skipping = false;
      lot.push({ ...frame, time, duration: Math.max(1, Math.round(duration)) });
    };
    const reader = new MatroskaReader({
      onTrack: (track) => {
        const type = mimeType(track);
        if (!MediaSource.isTypeSupported(type)) throw new Unplayable(`This browser does not play ${type}.`);
        this.#prepare(type);
        heads = [initSegment(track)];
      },
      onFrame: (frame) => {
        if (held) {
          lastDuration = frame.time - held.time;
          keep(held, lastDuration);
        }
        held = frame;
      },
    });
    const send = async (all: boolean): Promise<void> => {
      const length = lot.length === 0 ? 0 : (lot.at(-1) as Sample).time - (lot[0] as Sample).time;
      if (lot.length === 0 || skipping || (!all && length < LOT_MS)) return;
      const samples = lot.splice(0);
      const end = samples.at(-1) as Sample;
      for (const head of heads.splice(0)) await this.#append(head, signal);
      await this.#append(mediaSegment(++this.#sequence, samples), signal);
      this.#at = (end.time + end.duration) / 1000;
      await this.#room(signal);
    };
    await this.#read(piece, reader, send, signal);
    if (held) keep(held, piece.duration === undefined ? lastDuration : piece.duration - held.time || lastDuration);
    skipping = false;
    await send(true);
    return held ? start + held.time + lastDuration : start;
  }

  /** Reads a file to its end, and further while it grows. */
  async #read(
    piece: Piece,
    reader: MatroskaReader,
    send: (all: boolean) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    for (let offset = 0; ; ) {
      // From the last byte that is here already: past the end there would be nothing, and that is a failure to the browser.
      let repeated = offset > 0 ? 1 : 0;
      const response = await this.#options.fetch(piece.filename, offset - repeated, signal);
      if (response.status === 404) throw new Deleted();
      if (!response.ok) throw new Error(`The service answered with ${response.status}.`);
      const body = response.body?.getReader();
      const before = offset;
      try {
        for (let part = await body?.read(); part?.value; part = await body?.read()) {
          const fresh = part.value.subarray(repeated);
          repeated = 0;
          offset += fresh.length;
          reader.push(fresh);
          await send(false);
        }
      } finally {
        body?.cancel().catch(() => {}); // broken off already
      }
      const now = this.#options.pieces().find(({ filename }) => filename === piece.filename);
      // One that was being written when this was asked for may have got its end since.
      if (!now?.grows && !(piece.grows && offset > before)) return;
      await send(true);
      await pause(LOOK_EVERY_MS, signal);
    }
  }

  #prepare(type: string): void {
    if (this.#buffer === undefined) this.#buffer = this.#source.addSourceBuffer(type);
    else if (type !== this.#type) this.#buffer.changeType(type);
    this.#type = type;
  }

  async #append(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.#idle(signal);
      try {
        this.#buffer?.appendBuffer(bytes as Uint8Array<ArrayBuffer>);
        await this.#idle(signal);
        return;
      } catch (err) {
        if (!(err instanceof DOMException && err.name === 'QuotaExceededError')) throw err;
        await this.#forget(5, signal);
        await pause(LOOK_EVERY_MS, signal);
      }
    }
  }

  /** Waits until what is ahead is little enough to read on. */
  async #room(signal: AbortSignal): Promise<void> {
    await this.#forget(BEHIND, signal);
    // While it is sought, the place that is wanted is the one that counts.
    while (this.#at - this.#video.currentTime > AHEAD * Math.max(1, this.#video.playbackRate)) {
      await pause(200, signal);
    }
  }

  async #forget(behind: number, signal: AbortSignal): Promise<void> {
    const { buffered, currentTime } = this.#video;
    if (buffered.length === 0 || buffered.start(0) > currentTime - behind * 2) return;
    await this.#idle(signal);
    this.#buffer?.remove(buffered.start(0), Math.max(0.1, currentTime - behind));
    await this.#idle(signal);
  }

  async #idle(signal: AbortSignal): Promise<void> {
    const buffer = this.#buffer;
    while (buffer?.updating) {
      await new Promise((done) => buffer.addEventListener('updateend', done, { once: true }));
    }
    signal.throwIfAborted();
  }
}

function pieceAt(pieces: readonly Piece[], ms: number): Piece | undefined {
  return pieces.findLast(({ start }) => start <= ms) ?? pieces[0];
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}
