/** A library on a folder of its own for each test, with everything around it faked that is not the disk. */
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach } from 'node:test';
import type { Log, OpenedFile, Storage } from '../../src/core/contracts.ts';
import type { MediaFacts, SegmentName } from '../../src/core/recording.ts';
import type { About } from '../../src/recordings/closer.ts';
import { Library, type LibraryOptions, type Removal } from '../../src/recordings/library.ts';
import { DiskStorage } from '../../src/storage/disk.ts';

const DAY = '20251116';
export const session = (id = 'box', time = '103022') => `vnc_${id}_${DAY}_${time}`;
export const segment = (n: number, id = 'box', time?: string) =>
  `${session(id, time)}_seg${String(n).padStart(3, '0')}.mkv`;

export let base: string;
export let root: string;
export let libraries: Library[];
export let removals: Removal[];
export let gone: string[];
export let errors: string[];
/** Files that were looked into. */
export let scans: string[];
export let scanning: { now: number; most: number };
/** Scans wait for it. */
export let gate: Promise<void> | undefined;
export let abouts: Record<string, About>;

/** Makes and removes the folder around each test of the file. */
export function aroundEach(): void {
  beforeEach(() => {
    base = fs.realpathSync(fs.mkdtempSync(join(tmpdir(), 'berth-library-')));
    root = join(base, 'recordings');
    fs.mkdirSync(root);
    [libraries, removals, gone, errors, scans] = [[], [], [], [], []];
    scanning = { now: 0, most: 0 };
    gate = undefined;
    abouts = { box: { owner: 'acme', metadata: { job: '1' }, createdAt: 0 } };
  });
  afterEach(async () => {
    for (const library of libraries) await library.close();
    fs.rmSync(base, { recursive: true });
  });
}

const log: Log = {
  info: () => {},
  warn: (_, message) => errors.push(message),
  error: (_, message) => errors.push(message),
};

async function scan(file: OpenedFile): Promise<MediaFacts> {
  scanning.now += 1;
  scanning.most = Math.max(scanning.most, scanning.now);
  const bytes = await buffer(file.stream(0, file.size - 1));
  await gate;
  scanning.now -= 1;
  scans.push(bytes.toString());
  if (bytes.toString() === 'bad disk') throw new Error('EIO');
  return {
    durationMs: bytes.length * 100,
    frames: bytes.length,
    headerBytes: 1,
    clusters: 1,
    frameBytes: bytes.length,
  };
}

export async function opened(options: Partial<LibraryOptions> = {}): Promise<Library> {
  const library = await Library.open({
    storage: new DiskStorage(root, { inUse: () => false }),
    indexFile: join(base, 'index.jsonl'),
    scan,
    about: (id) => abouts[id],
    onRemoved: (removal) => removals.push(removal),
    onGone: async (name) => void gone.push(name.filename),
    log,
    ...options,
  });
  libraries.push(library);
  return library;
}

/** One that has seen what is there and has looked into it. */
export async function started(options: Partial<LibraryOptions> = {}): Promise<Library> {
  const library = await opened(options);
  await library.start();
  await library.settled();
  return library;
}

/** Its last write was a minute ago. */
export function put(filename: string, content = '0123456789', id = 'box'): string {
  fs.mkdirSync(join(root, id), { recursive: true });
  const path = join(root, id, filename);
  fs.writeFileSync(path, content);
  fs.utimesSync(path, new Date(), new Date(Date.now() - 60_000));
  return path;
}

export function journal(...lines: unknown[]): void {
  const text = lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n');
  fs.writeFileSync(join(root, 'box', `${session()}.jsonl`), `${text}\n`);
}

export const closed = (library: Library) => library.closed().map((entry) => entry.filename);
export const name = (filename: string): SegmentName => {
  const [, sandboxId = ''] = filename.split('_');
  return {
    filename,
    sandboxId,
    sessionId: filename.split('_seg')[0] as string,
    segment: Number(filename.slice(-7, -4)),
  };
};

/** Holds all scans until it is called back. */
export function hold(): () => void {
  let release = (): void => {};
  gate = new Promise((resolve) => {
    release = resolve;
  });
  return release;
}

/** Counts how often names are read. */
export function counting(storage: Storage): Storage & { calls: { names: number } } {
  const calls = { names: 0 };
  return {
    calls,
    folders: () => storage.folders(),
    names: (id) => {
      calls.names += 1;
      return storage.names(id);
    },
    find: (id, filename) => storage.find(id, filename),
    open: (id, filename) => storage.open(id, filename),
    remove: (id, filename) => storage.remove(id, filename),
    journal: (id, sessionId) => storage.journal(id, sessionId),
    removeJournal: (id, sessionId) => storage.removeJournal(id, sessionId),
  };
}
