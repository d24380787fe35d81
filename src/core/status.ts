import { type EndedReason, mayMove, type SandboxState, type SandboxStatus } from './sandbox.ts';

const ENDED_REASON =
  /^(idle_timeout|connect_timeout|max_lifetime|deleted|browser_closed|service_stopped|failed: .{1,1000})$/s;

/** Whether this is a reason for an end, by its form. What says so may come out of a sandbox. */
export function isEndedReason(value: unknown): value is EndedReason {
  return typeof value === 'string' && ENDED_REASON.test(value);
}

/**
 * Whether a runtime's status has the form that everything relies on. A runtime lies inside its sandbox, and one whose
 * page has broken out of the browser may say anything.
 */
export function isStatus(value: unknown): value is SandboxStatus {
  if (!isObject(value)) return false;
  const { devtools, recorder, changes, stages } = value;
  return (
    isState(value.state) &&
    ['expiresAt', 'clients', 'viewers', 'browserRestarts'].every((key) => isTime(value[key])) &&
    ['readyAt', 'endedAt'].every((key) => value[key] === undefined || isTime(value[key])) &&
    ['endedReason', 'endingReason'].every((key) => value[key] === undefined || isEndedReason(value[key])) &&
    ['browserEnding', 'vncSocket'].every((key) => isTextOrNone(value[key])) &&
    (value.pooled === undefined || value.pooled === true) &&
    (value.idleDeadline === null || isTime(value.idleDeadline)) &&
    isObject(recorder) &&
    ['off', 'recording', 'paused', 'failed'].includes(recorder.state as string) &&
    ['sessionId', 'error'].every((key) => isTextOrNone(recorder[key])) &&
    ['segment', 'dropped'].every((key) => recorder[key] === undefined || isTime(recorder[key])) &&
    (devtools === undefined ||
      (isObject(devtools) && isTime(devtools.port) && typeof devtools.browserPath === 'string')) &&
    isObject(stages) &&
    Object.values(stages).every(isTime) &&
    isChange(changes)
  );
}

function isChange(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { idleTimeoutSeconds, maxLifetimeSeconds, activity, control, metadata, ...rest } = value;
  return (
    Object.keys(rest).length === 0 &&
    [idleTimeoutSeconds, maxLifetimeSeconds].every((limit) => limit === undefined || isTime(limit)) &&
    (activity === undefined || activity === 'any' || activity === 'automation') &&
    (control === undefined || control === 'collaborative' || control === 'exclusive') &&
    (metadata === undefined || (isObject(metadata) && Object.values(metadata).every((v) => typeof v === 'string')))
  );
}

function isState(value: unknown): value is SandboxState {
  return value === 'CREATING' || mayMove('CREATING', value as SandboxState);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What dates and counts are: finite, not below 0, and a date that JavaScript can show. */
function isTime(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value <= 8.64e15;
}

function isTextOrNone(value: unknown): boolean {
  return value === undefined || typeof value === 'string';
}
