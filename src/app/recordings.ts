import { join } from 'node:path';
import type { Config } from '../config.ts';
import type { Log } from '../core/contracts.ts';
import type { Counters } from '../core/counters.ts';
import type { Events } from '../core/events.ts';
import type { SandboxInfo } from '../core/live.ts';
import { hasEnded } from '../core/sandbox.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import { ArchiveWatch } from '../recordings/archive-watch.ts';
import { exportMkv } from '../recordings/export.ts';
import { Library } from '../recordings/library.ts';
import { poster, toMp4 } from '../recordings/media.ts';
import { Posters } from '../recordings/posters.ts';
import { Recordings } from '../recordings/recordings.ts';
import { Retention, type RetentionLimits } from '../recordings/retention.ts';
import { scan } from '../recordings/scan.ts';
import type { Writing } from '../recordings/shelf.ts';
import { Uploader, type UploadStatus } from '../recordings/uploader.ts';
import { DiskStorage } from '../storage/disk.ts';
import { createArchive } from './archive.ts';

/** The recordings of a running service, and what the rest of it has to tell them. */
export interface RecordingsApp {
  readonly recordings: Recordings;
  /** Undefined without an archive. */
  readonly uploads: (() => UploadStatus) | undefined;
  readonly archiveState: () => 'ok' | 'unreachable' | undefined;
  /** Hears of every look at a live sandbox. */
  saw(info: SandboxInfo): void;
  /** To be called when all live sandboxes are known. */
  start(): Promise<void>;
  close(): Promise<void>;
}

/** All that has to do with recordings: library, pictures, retention, and the archive where the settings name one. */
export async function createRecordings(
  config: Config,
  find: Sandboxes['find'],
  cut: (sandboxId: string) => Promise<void>,
  { events, counters, log }: { readonly events: Events; readonly counters: Counters; readonly log: Log },
): Promise<RecordingsApp> {
  const archive = await createArchive(config, log);
  const posters = new Posters(join(config.dataDir, 'posters'), poster);
  const isLive = (id: string): boolean => {
    const info = find(id);
    return info !== undefined && info.ended === undefined;
  };
  const library = await Library.open({
    storage: new DiskStorage(join(config.dataDir, 'recordings'), { inUse: isLive }),
    indexFile: join(config.dataDir, 'recordings.index.jsonl'),
    ...(archive ? { archive } : {}),
    scan,
    about: (id) => find(id)?.spec,
    onClosed: (segment) => {
      counters.droppedFrames += segment.dropped ?? 0;
      events.recordingClosed(segment);
    },
    onRemoved: (removal) => events.recordingRemoved(removal),
    onChange: () => uploader?.wake(),
    onGone: (name) => posters.remove(name),
    log,
  });
  const uploader = archive && new Uploader({ queue: library, archive, localMs: config.s3LocalSeconds * 1000, log });
  const retention = new Retention({ library, limits: limitsOf(config), archives: archive !== undefined, log });
  const watch = archive && new ArchiveWatch(archive, log);
  const stopping = new AbortController();
  const recordings = new Recordings({
    library,
    posters,
    about: (id) => find(id)?.spec,
    cut,
    exportMkv,
    toMp4,
    keptMs: limitsOf(config).ageMs,
    ...(archive && config.s3Redirect ? { link: (name) => archive.link(name) } : {}),
    log,
  });
  return {
    recordings,
    uploads: uploader && (() => uploader.status()),
    archiveState: () => watch?.state,
    saw: (info) => library.saw(info.spec.id, writingOf(info)),
    async start() {
      await library.start();
      await posters.sweep((filename) => library.find(filename) !== undefined);
      retention.start();
      uploader?.wake();
      // Not waited for: a bucket that is away must not keep the service from starting.
      void archive?.sweepUploads(stopping.signal);
    },
    async close() {
      stopping.abort();
      watch?.close();
      await retention.close();
      await uploader?.close();
      await library.close();
      archive?.close();
    },
  };
}

/** What the recorder of a sandbox is writing; nothing once it has ended, whatever it said last. */
function writingOf({ state, status }: SandboxInfo): Writing | undefined {
  const { state: recorder, sessionId, segment } = status?.recorder ?? {};
  if (hasEnded(state) || recorder !== 'recording' || sessionId === undefined) return undefined;
  return { sessionId, ...(segment === undefined ? {} : { segment }) };
}

function limitsOf({ recordingsDays, recordingsGb, recordingsTenantGb }: Config): RetentionLimits {
  const GIB = 1024 ** 3;
  return { ageMs: recordingsDays * 24 * 3600 * 1000, bytes: recordingsGb * GIB, tenantBytes: recordingsTenantGb * GIB };
}
