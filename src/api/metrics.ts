import type { Router } from '@koa/router';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { assertAdmin } from '../core/access.ts';
import type { Counters } from '../core/counters.ts';
import type { Events, SandboxEvent } from '../core/events.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import type { UploadStatus } from '../recordings/uploader.ts';
import { principalOf } from './context.ts';

/** What the metrics are read from. */
export interface MetricsDeps {
  readonly sandboxes: Sandboxes;
  readonly events: Events;
  readonly counters: Counters;
  /** Where closed recordings go into an archive: how that stands. */
  readonly uploads?: () => UploadStatus;
}

/** Stages that a runtime reports. A fixed list, since a label must never take whatever a sandbox says. */
const STAGES = ['xvfb', 'openbox', 'vnc', 'browser', 'ready'];
/** Of one that was started ahead of demand, of a cold start of a second on a fast machine, and of one that fails after the longest BERTH_START_TIMEOUT_SECONDS. */
const CREATE_BUCKETS = [0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300, 600];

/** How often the delay of the event loop is looked at, in milliseconds. */
const LOOP_LOOK_MS = 250;

/** `GET /metrics` in Prometheus' text format, for admins: it counts over all tenants. */
export function metricsRoutes(router: Router, deps: MetricsDeps): void {
  const registry = new Registry();
  // Under their usual names (process_…, nodejs_…), which dashboards know.
  // Its look at the event loop would wake an idle service a hundred times a second.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: LOOP_LOOK_MS });
  gauges(registry, deps);
  totals(registry, deps.counters);
  poolClaims(registry, deps.sandboxes);
  const readUploads = deps.uploads && uploadMetrics(registry, deps.uploads);
  const onEvent = eventMetrics(registry);
  deps.events.listen((event) => event && onEvent(event));

  router.get('/metrics', async (ctx) => {
    assertAdmin(principalOf(ctx));
    readUploads?.();
    const text = await registry.metrics();
    ctx.set('Content-Type', registry.contentType);
    ctx.body = text;
  });
}

/** What is so now, looked up when asked. */
function gauges(registry: Registry, { sandboxes, events }: MetricsDeps): void {
  const registers = [registry];
  new Gauge({
    name: 'berth_sandboxes',
    help: 'Sandboxes that have not ended, by state.',
    labelNames: ['state'],
    registers,
    collect() {
      const live = sandboxes.live();
      for (const state of ['CREATING', 'READY']) this.set({ state }, live.filter((s) => s.state === state).length);
    },
  });
  for (const what of ['clients', 'viewers'] as const) {
    new Gauge({
      name: `berth_${what}`,
      help: what === 'clients' ? 'CDP clients connected now.' : 'Viewers connected now.',
      registers,
      collect() {
        // A sandbox says these numbers; one that says nonsense must not end the whole answer.
        const all = sandboxes.live().map((s) => s.status?.[what]);
        this.set(all.reduce<number>((sum, n) => sum + (Number.isSafeInteger(n) ? (n as number) : 0), 0));
      },
    });
  }
  new Gauge({
    name: 'berth_pool_ready',
    help: 'Sandboxes started ahead of demand that a create may have now.',
    labelNames: ['template'],
    registers,
    collect() {
      for (const [template, ready] of sandboxes.pool.ready) this.set({ template }, ready);
    },
  });
  new Gauge({
    name: 'berth_event_streams',
    help: 'Streams of events open now.',
    registers,
    collect() {
      this.set(events.listening - 1); // we are one of them
    },
  });
}

/** What was counted elsewhere, read out when asked. */
function totals(registry: Registry, counters: Counters): void {
  const registers = [registry];
  new Counter({
    name: 'berth_bytes_total',
    help: 'Bytes through the gateway: in is from clients, out is to them; of http, bodies.',
    labelNames: ['path', 'direction'],
    registers,
    collect() {
      this.reset();
      for (const [path, bytes] of Object.entries(counters.bytes)) {
        this.inc({ path, direction: 'in' }, bytes.in);
        this.inc({ path, direction: 'out' }, bytes.out);
      }
    },
  });
  new Counter({
    name: 'berth_recorder_dropped_frames_total',
    help: 'Frames that recorders had no time to take, of closed segments.',
    registers,
    collect() {
      this.reset();
      this.inc(counters.droppedFrames);
    },
  });
  new Counter({
    name: 'berth_egress_denied_total',
    help: 'Connections that sandboxes were refused, by what closed their target.',
    labelNames: ['rule'],
    registers,
    collect() {
      this.reset();
      for (const [rule, times] of Object.entries(counters.egress.denied)) this.inc({ rule }, times);
    },
  });
  new Counter({
    name: 'berth_egress_bytes_total',
    help: "Bytes through the sandboxes' way out, of finished connections: out is from sandboxes, in is to them.",
    labelNames: ['direction'],
    registers,
    collect() {
      this.reset();
      this.inc({ direction: 'out' }, counters.egress.sent);
      this.inc({ direction: 'in' }, counters.egress.received);
    },
  });
  new Counter({
    name: 'berth_refusals_total',
    help: 'Answers of 400 and above, WebSocket upgrades included, by error.',
    labelNames: ['error'],
    registers,
    collect() {
      this.reset();
      for (const [error, times] of counters.refusals) this.inc({ error }, times);
    },
  });
}

/** Whether creates met a sandbox that was ready. */
function poolClaims(registry: Registry, sandboxes: Sandboxes): void {
  new Counter({
    name: 'berth_pool_claims_total',
    help: 'With a pool: creates that got a sandbox of it (warm), and those whose sandbox had to be started (cold).',
    labelNames: ['template', 'outcome'],
    registers: [registry],
    collect() {
      this.reset();
      for (const [template, { warm, cold }] of sandboxes.pool.claims) {
        this.inc({ template, outcome: 'warm' }, warm);
        this.inc({ template, outcome: 'cold' }, cold);
      }
    },
  });
}

/** Recordings on their way into the archive. What is returned reads them: all at once, since a status looks at every recording. */
function uploadMetrics(registry: Registry, status: () => UploadStatus): () => void {
  const registers = [registry];
  const gauge = (name: string, help: string): Gauge =>
    new Gauge({ name: `berth_recordings_upload_${name}`, help, registers });
  const pending = gauge('pending', 'Closed segments that the archive has not.');
  const bytes = gauge('pending_bytes', 'Their bytes.');
  const oldest = gauge('oldest_seconds', 'Since the oldest of them began; 0 when there is none.');
  const total = new Counter({
    name: 'berth_recordings_uploads_total',
    help: 'Uploads of segments: uploaded, or failed and to be tried again.',
    labelNames: ['outcome'],
    registers,
  });
  return () => {
    const now = status();
    pending.set(now.pending);
    bytes.set(now.pendingBytes);
    oldest.set(now.oldestPendingSeconds);
    total.reset();
    total.inc({ outcome: 'uploaded' }, now.uploads);
    total.inc({ outcome: 'failed' }, now.failures);
  };
}

/** What is counted as it happens. */
function eventMetrics(registry: Registry): (event: SandboxEvent) => void {
  const registers = [registry];
  const creates = new Counter({
    name: 'berth_creates_total',
    help: 'Sandboxes whose start is over: ready, failed, or stopped before. Those refused are in berth_refusals_total.',
    labelNames: ['outcome'],
    registers,
  });
  for (const outcome of ['ready', 'failed', 'stopped']) creates.inc({ outcome }, 0);
  const duration = new Histogram({
    name: 'berth_create_duration_seconds',
    help: "Time to READY: total is from the request, every other stage from the start of the sandbox's own runtime.",
    labelNames: ['stage'],
    buckets: CREATE_BUCKETS,
    registers,
  });
  const ends = new Counter({
    name: 'berth_sandboxes_ended_total',
    help: 'Sandboxes that ended, by reason.',
    labelNames: ['reason'],
    registers,
  });
  const restarts = new Counter({ name: 'berth_browser_restarts_total', help: 'Browsers started again.', registers });
  const recorderFailures = new Counter({
    name: 'berth_recorder_failures_total',
    help: 'Recorders given up after ffmpeg died again and again.',
    registers,
  });
  const removed = new Counter({
    name: 'berth_recordings_removed_total',
    help: 'Files of recordings that were removed, by reason.',
    labelNames: ['reason'],
    registers,
  });
  return (event) => {
    if (event.type === 'recording.removed') removed.inc({ reason: event.reason ?? '' });
    if (event.type === 'browser.restarted') restarts.inc();
    if (event.type === 'recorder.failed') recorderFailures.inc();
    if (event.type === 'sandbox.ready') {
      creates.inc({ outcome: 'ready' });
      if (event.startMs !== undefined) duration.observe({ stage: 'total' }, event.startMs / 1000);
      for (const stage of STAGES) {
        const ms = event.startStages?.[stage];
        if (ms !== undefined) duration.observe({ stage }, ms / 1000);
      }
    }
    if (event.type === 'sandbox.ended') {
      const reason = reasonLabel(event.endedReason ?? '');
      if (event.beforeReady) creates.inc({ outcome: reason === 'failed' ? 'failed' : 'stopped' });
      ends.inc({ reason });
    }
  };
}

/** Reasons are few, but the sentence after `failed:` is any, and a runtime says the whole of it. */
function reasonLabel(endedReason: string): string {
  const known = ['idle_timeout', 'connect_timeout', 'max_lifetime', 'deleted', 'browser_closed', 'service_stopped'];
  return known.includes(endedReason) ? endedReason : 'failed';
}
