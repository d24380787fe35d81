/**
 * Chromium writes a download to a file of its own name for temporary ones, then to `<name>.crdownload` (or
 * `Unconfirmed <number>.crdownload`), and gives it its name when it is whole.
 */
const UNFINISHED = /\.crdownload$|^\.(org\.chromium\.Chromium|com\.google\.Chrome)\.[A-Za-z0-9]{6}$/;

/** Linux's limit for the name of a file, in bytes. */
const MAX_NAME_BYTES = 255;

/** Whether Chromium has not finished this file, and never will if it has ended. */
export function isUnfinished(name: string): boolean {
  return UNFINISHED.test(name);
}

/** Whether this can be the name of a file in a folder, and not a way out of it. The only way from user input to a path. */
export function isFileName(name: string): boolean {
  return (
    name !== '' && name !== '.' && name !== '..' && !/[/\0]/.test(name) && Buffer.byteLength(name) <= MAX_NAME_BYTES
  );
}
