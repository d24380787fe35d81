/** The program inside a sandbox: `node runtime.js <config file>`. Started by a driver, outlives the service, ends itself on time. */
import { closeSync, readFileSync, rmSync, writeSync } from 'node:fs';
import type { RuntimeConfig } from '../src/core/contracts.ts';
import { keepNewSpaceSmall } from '../src/core/heap.ts';
import { hasEnded } from '../src/core/sandbox.ts';
import { RuntimeServer } from '../src/runtime/server.ts';
import { Supervisor } from '../src/runtime/supervisor.ts';

const configFile = process.argv[2] as string;
const config = JSON.parse(readFileSync(configFile, 'utf8')) as RuntimeConfig;
if (config.forgetConfig) rmSync(configFile);

const supervisor = new Supervisor(config, () => {
  server.announce();
  if (hasEnded(supervisor.status.state)) void server.close().then(() => process.exit(0));
});
const server = new RuntimeServer(config, supervisor);

// The log lies on a disk that may be full, and an error of writing it would be written there, too, without an end.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
// Not ours: an engine or a machine that goes down asks so. The recording gets its end all the same.
process.on('SIGTERM', () => void supervisor.end('failed: it was stopped from outside (SIGTERM)'));
// The service's terminal is not ours: a Ctrl-C there is for the service, which decides about its sandboxes.
process.on('SIGINT', () => {});
process.on('uncaughtException', (err) => {
  console.error(err);
  void supervisor.end(`failed: the runtime had an internal error: ${err.message}`);
});

await server.listen();
if (config.notify) {
  writeSync(3, 'listening\n');
  closeSync(3);
}
await supervisor.start();
keepNewSpaceSmall();
