/** The sandboxes' way out, as a process of its own: what they load must not hold up what clients say. Started by the service, ends with it. */
import type { EgressReport, EgressRequest } from '../src/egress/messages.ts';
import { EgressServer } from '../src/egress/server.ts';

/** How often it is told what has been counted, in milliseconds. */
const COUNT_EVERY_MS = 1000;

const server = new EgressServer({ allow: [], deny: [], dns: [], doors: [] });
const tell = (report: EgressReport): void => {
  // The service may have gone in this very moment.
  if (process.connected) process.send?.(report, () => {});
};

async function answer(request: EgressRequest): Promise<void> {
  if (request.type === 'settings') return server.configure(request.settings);
  const { id, socket } = request;
  try {
    if (request.type === 'open') await server.open(socket, request.egress);
    else server.close(socket);
    tell({ type: 'done', id });
  } catch (err) {
    tell({ type: 'done', id, error: (err as Error).message });
  }
}

process.on('message', (request: EgressRequest) => void answer(request));
// The channel breaks however the service ends, kill -9 included.
process.on('disconnect', () => process.exit(0));
// Signals to the whole group (Ctrl-C, systemd) are for the service, which still needs us while it ends its sandboxes.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
// One connection must not end those of all others.
process.on('uncaughtException', (err) => console.error('egress:', err.stack));

setInterval(() => {
  const counts = server.counts();
  const some = counts.sent + counts.received > 0 || Object.values(counts.denied).some((times) => times > 0);
  if (some) tell({ type: 'counts', ...counts });
}, COUNT_EVERY_MS);
