import type { SandboxEvent } from '../client/client.ts';
import { addressOf } from './api.ts';
import { resume } from './session.ts';
import { createStore } from './store.ts';

/** Whether the stream of events is up; while it is not, what the page shows may be old. */
export const connected = createStore<boolean>(true);

/** An EventSource hears only what it asks for by name; one that is missing here does not compile. */
const TYPES: Readonly<Record<SandboxEvent['type'], true>> = {
  'sandbox.creating': true,
  'sandbox.adopted': true,
  'sandbox.ready': true,
  'sandbox.ended': true,
  'client.joined': true,
  'client.left': true,
  'viewer.joined': true,
  'viewer.left': true,
  'viewer.control': true,
  'browser.down': true,
  'browser.restarted': true,
  'recording.started': true,
  'recording.stopped': true,
  'recorder.paused': true,
  'recorder.failed': true,
  'recording.closed': true,
  'recording.removed': true,
};
/** A stream that is broken is opened again after this long, in milliseconds. */
const AGAIN_MS = 1500;

const listeners = new Set<(event: SandboxEvent | undefined) => void>();
let source: EventSource | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;
let last: string | undefined;

/** Hears of every event, and of `undefined` when some may have been missed and all has to be looked at anew. Answers what ends that. */
export function onEvent(listener: (event: SandboxEvent | undefined) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(event: SandboxEvent | undefined): void {
  for (const listener of [...listeners]) listener(event);
}

/** Opens the stream and keeps it open, also across a restart of the service. */
export function follow(): void {
  stop();
  const after = last === undefined ? '' : `?after=${encodeURIComponent(last)}`;
  source = new EventSource(addressOf(`/events${after}`));
  source.onopen = () => {
    connected.set(true);
    tell(undefined);
  };
  source.onerror = () => {
    connected.set(false);
    // An EventSource comes back by itself from a broken connection, but not from an answer that is no stream.
    const given = source;
    source?.close();
    if (source === given) timer = setTimeout(again, AGAIN_MS);
  };
  for (const type of Object.keys(TYPES)) {
    source.addEventListener(type, (message) => {
      const event = JSON.parse((message as MessageEvent<string>).data) as SandboxEvent;
      last = event.id;
      tell(event);
    });
  }
}

/** The session may be what has ended. */
async function again(): Promise<void> {
  const asked = source;
  await resume();
  if (source === asked && asked !== undefined) follow();
}

export function stop(): void {
  clearTimeout(timer);
  source?.close();
  source = undefined;
}
