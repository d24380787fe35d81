#!/usr/bin/env node
/** `berth`: the program for people and scripts. What it does is in src/cli; its surroundings are collected here. */
import { readFileSync } from 'node:fs';
import { constants, homedir } from 'node:os';
import { isatty } from 'node:tty';
import { fileURLToPath } from 'node:url';
import { Interrupted, type Io, type Machine } from '../src/cli/io.ts';
import { main } from '../src/cli/main.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const stop = new AbortController();
const listeners = new Set<(signal: NodeJS.Signals) => void>();

function onSignal(signal: NodeJS.Signals): void {
  // Whatever was under way had its chance to tidy up. Who listens decides by itself.
  if (stop.signal.aborted && listeners.size === 0) process.exit(128 + constants.signals[signal]);
  stop.abort(new Interrupted(signal));
  for (const listener of [...listeners]) listener(signal);
}
for (const signal of SIGNALS) process.on(signal, onSignal);

// `berth ls | head -1`: what nobody reads is not written, and is no error.
const unread = new AbortController();
process.stdout.on('error', () => unread.abort());
process.stderr.on('error', () => {});

const io: Io = {
  env: process.env,
  home: homedir(),
  stdin: () => process.stdin,
  stdinIsTTY: isatty(0),
  stdout: process.stdout,
  stderr: process.stderr,
  signal: stop.signal,
  unread: unread.signal,
  onSignal(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
  async serve(settings) {
    Object.assign(process.env, settings);
    for (const signal of SIGNALS) process.off(signal, onSignal);
    await import('./server.ts');
    // It ends the process.
    await new Promise(() => {});
  },
  machine: machineOf,
  server: fileURLToPath(new URL('./server.js', import.meta.url)),
};

async function machineOf(env: Io['env']): Promise<Machine> {
  const [{ loadConfig }, { findChromium }, { keysFileOf }] = await Promise.all([
    import('../src/config.ts'),
    import('../src/app/chromium.ts'),
    import('../src/app/keys.ts'),
  ]);
  const config = loadConfig(env);
  return { ...config, keysFile: keysFileOf(config), chromium: config.chromium ?? findChromium() };
}

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};
process.exit(await main(io, process.argv.slice(2), version));
