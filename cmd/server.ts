/** The service: reads the environment, starts, and ends on SIGINT or SIGTERM. A second signal ends it at once. */
import { loadConfig } from '../src/config.ts';
import { keepNewSpaceSmall } from '../src/core/heap.ts';

// Before anything else is loaded: that alone would make it 32 MB, and the 20 ms that it costs are a start of the service's.
keepNewSpaceSmall();
// uWebSockets.js reads it when it is loaded; its own 4 KiB are fewer than browsers send to a host with many cookies.
process.env.UWS_HTTP_MAX_HEADERS_SIZE = '16384';
const { startApp } = await import('../src/app.ts');

try {
  const config = loadConfig(process.env);
  const { PATH = '/usr/local/bin:/usr/bin:/bin', TZ } = process.env;
  // Containers belong to their engine and outlive us by themselves; processes of this machine would be in their owner's way.
  const onExit = config.onExit ?? (config.driver === 'docker' ? 'keep' : 'stop');
  const app = await startApp(config, TZ === undefined ? { PATH } : { PATH, TZ });
  let ending = false;
  const end = (signal: NodeJS.Signals): void => {
    if (ending) process.exit(130);
    ending = true;
    app.log.info({ signal, sandboxes: onExit }, 'shutting down');
    app.close(onExit === 'stop').then(
      () => process.exit(0),
      (err: unknown) => {
        app.log.error({ err }, 'shutting down failed');
        process.exit(1);
      },
    );
  };
  process.on('SIGINT', end);
  process.on('SIGTERM', end);
  // An ordinary client must never be able to end the service through a rejection that nobody awaited.
  process.on('unhandledRejection', (err) => app.log.error({ err }, 'unhandled rejection'));
} catch (err) {
  console.error(`berth: ${err instanceof Error ? err.message : String(err)}`);
  process.exit(1);
}
