import { EGRESS_REFUSALS, type EgressRefusal } from './egress.ts';
import { AppError, ERRORS, type ErrorName } from './errors.ts';

/** Which way bytes go through the gateway. livestream is RFB, also on `/ws/liveview`; http is bodies only. */
export type BytePath = 'automation' | 'livestream' | 'http';

/** `in` is from clients, `out` is to them. Two numbers and nothing more, since they are added to for every frame. */
export interface Bytes {
  in: number;
  out: number;
}

/** What rooms count while they work and `/metrics` reads out when it is asked. Since the start of the service. */
export class Counters {
  readonly bytes: Readonly<Record<BytePath, Bytes>> = {
    automation: { in: 0, out: 0 },
    livestream: { in: 0, out: 0 },
    http: { in: 0, out: 0 },
  };
  /** Answers of 400 and above by their row of {@link ERRORS}; each row is there from the start. */
  readonly refusals = new Map<ErrorName, number>((Object.keys(ERRORS) as ErrorName[]).map((name) => [name, 0]));

  /** Of the sandboxes' way out: connections refused, by what closed their target, and bytes of finished ones from and to sandboxes. */
  readonly egress = {
    denied: Object.fromEntries(EGRESS_REFUSALS.map((refusal) => [refusal, 0])) as Record<EgressRefusal, number>,
    sent: 0,
    received: 0,
  };

  /** Frames of recordings that their recorders had no time to take; of segments that are closed. */
  droppedFrames = 0;

  /** A failure has been answered. Whoever writes the answer calls this once. */
  refused(err: unknown): void {
    const name = err instanceof AppError ? err.errorName : 'INTERNAL';
    this.refusals.set(name, (this.refusals.get(name) ?? 0) + 1);
  }
}
