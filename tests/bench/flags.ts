/**
 * What single flags of Chromium save or cost in memory: each sandbox has a browser whose command line differs from Berth's in
 * one of them. Run alone: `node dist/tests/bench/flags.js`.
 */
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { privateKb, unlessGone } from './measure.ts';
import { type Bench, type Row, runPart } from './part.ts';
import { commandOf, pidsOf } from './sandbox.ts';

const CHROMIUM = '/usr/lib/chromium/chromium';
/** After its start a browser has some tidying to do. */
const SETTLE_SECONDS = 15;

/** How a command line differs: an argument left out, or one more, or one more feature of those turned off. */
interface Change {
  readonly without?: string;
  readonly more?: string;
  readonly off?: string;
}

const CHANGES: Readonly<Record<string, Change>> = {
  "Berth's": {},
  'without NetworkServiceInProcess2': { without: '--enable-features=NetworkServiceInProcess2' },
  'without --enable-unsafe-swiftshader': { without: '--enable-unsafe-swiftshader' },
  'without SpareRendererForSitePerProcess': { off: 'SpareRendererForSitePerProcess' },
  'with --in-process-gpu': { more: '--in-process-gpu' },
  'with --disable-gpu': { more: '--disable-gpu' },
  'with --disable-extensions': { more: '--disable-extensions' },
};

/** A program that starts Chromium with its arguments changed so. */
function wrapper(file: string, { without = '', more = '', off = '' }: Change): string {
  const script = `#!/bin/sh
for arg do
  shift
  case "$arg" in
    '${without || '-'}') ;;
    --disable-features=*) set -- "$@" "$arg${off && `,${off}`}" ;;
    *) set -- "$@" "$arg" ;;
  esac
done
exec ${CHROMIUM} ${more} "$@"
`;
  writeFileSync(file, script, { mode: 0o755 });
  return file;
}

async function measure(bench: Bench, name: string, index: number): Promise<Row> {
  const program = wrapper(join(bench.folder, `chromium-${index}`), CHANGES[name] as Change);
  const service = await bench.service('local', { BERTH_CHROMIUM: program });
  const { sandboxId } = await service.client.create({ recording: 'off' });
  await sleep(bench.quick ? 0 : SETTLE_SECONDS * 1000);
  const pids = (await pidsOf(service, sandboxId)).filter((pid) => commandOf(pid).includes(CHROMIUM));
  const sizes = pids.flatMap((pid) => unlessGone(() => privateKb([pid])) ?? []);
  await service.client.delete(sandboxId);
  return { 'command line': name, processes: sizes.length, 'private MB': sizes.reduce((a, b) => a + b, 0) / 1000 };
}

await runPart('flags', 180, async (bench) => {
  // As root each browser has a user of its own.
  chmodSync(bench.folder, 0o711);
  const names = bench.quick ? Object.keys(CHANGES).slice(0, 2) : Object.keys(CHANGES);
  const rows: Row[] = [];
  // A few at a time: what they have for themselves does not depend on who runs beside them, but starts do.
  for (let i = 0; i < names.length; i += 3) {
    rows.push(...(await Promise.all(names.slice(i, i + 3).map((name, j) => measure(bench, name, i + j)))));
  }
  return [
    { title: `Chromium idle on about:blank, memory that nothing else shares, ${SETTLE_SECONDS} s after READY`, rows },
  ];
});
