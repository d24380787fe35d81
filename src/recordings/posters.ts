import { mkdir, readdir, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { OpenedFile } from '../core/contracts.ts';
import { parseSegmentName, type SegmentName } from '../core/recording.ts';
import { Turns } from './turns.ts';

/** Pictures that are made at once: each is a process. */
const AT_ONCE = 2;
/** A screen of 4K at good quality has a fraction of it. */
const MAX_BYTES = 4 * 1024 * 1024;

/** Pictures of recordings as JPEG files `<root>/<sandboxId>/<segment's name>.jpg`, made when first asked for. A cache: it may be deleted at any time. */
export class Posters {
  readonly #root: string;
  readonly #make: (file: Readable) => Promise<Buffer>;
  readonly #turns = new Turns(AT_ONCE);
  readonly #making = new Map<string, Promise<Buffer | undefined>>();

  /** `make` is given a whole segment and need not read it all. The root must be ours alone. */
  constructor(root: string, make: (file: Readable) => Promise<Buffer>) {
    this.#root = root;
    this.#make = make;
  }

  /** Undefined when `open` finds nothing. Rejects when no picture can be made. */
  async of(name: SegmentName, open: () => Promise<OpenedFile | undefined>): Promise<Buffer | undefined> {
    const known = await readFile(this.#pathOf(name)).catch(() => undefined);
    if (known) return known;
    const { filename } = name;
    const underWay = this.#making.get(filename);
    if (underWay) return underWay;
    const making = this.#turns.run(() => this.#made(name, open)).finally(() => this.#making.delete(filename));
    this.#making.set(filename, making);
    return making;
  }

  /** One that is not there is fine. */
  async remove(name: SegmentName): Promise<void> {
    await rm(this.#pathOf(name), { force: true });
    await rmdir(join(this.#root, name.sandboxId)).catch(() => {}); // others are in it, or there was none
  }

  /** Removes those of recordings that are not known any more. */
  async sweep(known: (filename: string) => boolean): Promise<void> {
    for (const folder of await readdir(this.#root).catch(() => [])) {
      for (const file of await readdir(join(this.#root, folder)).catch(() => [])) {
        const filename = file.replace(/\.jpg$/, '.mkv');
        if (parseSegmentName(filename)?.sandboxId === folder && known(filename)) continue;
        await rm(join(this.#root, folder, file), { recursive: true, force: true });
      }
      await rmdir(join(this.#root, folder)).catch(() => {}); // not empty
    }
  }

  async #made(name: SegmentName, open: () => Promise<OpenedFile | undefined>): Promise<Buffer | undefined> {
    const file = await open();
    if (!file) return undefined;
    const stream = file.stream(0, file.size - 1) as Readable;
    // Whoever makes the picture hears of it; nobody else has to.
    stream.on('error', () => {});
    try {
      const picture = await this.#make(stream);
      if (picture.length > MAX_BYTES) throw new Error(`the picture has ${picture.length} bytes`);
      await this.#keep(name, picture).catch(() => {}); // made again next time
      return picture;
    } finally {
      stream.destroy();
    }
  }

  async #keep(name: SegmentName, picture: Buffer): Promise<void> {
    const path = this.#pathOf(name);
    await mkdir(join(this.#root, name.sandboxId), { recursive: true, mode: 0o700 });
    await writeFile(`${path}.tmp`, picture, { mode: 0o600 });
    await rename(`${path}.tmp`, path);
  }

  #pathOf({ sandboxId, filename }: SegmentName): string {
    return join(this.#root, sandboxId, filename.replace(/\.mkv$/, '.jpg'));
  }
}
