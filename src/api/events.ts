import { Readable } from 'node:stream';
import type { Router, RouterContext } from '@koa/router';
import { sees } from '../core/access.ts';
import { AppError } from '../core/errors.ts';
import type { Events, SandboxEvent } from '../core/events.ts';
import { isoTime } from '../core/recording.ts';
import type { Sandboxes } from '../core/sandboxes.ts';
import { principalOf } from './context.ts';
import type { Validator } from './validate.ts';

interface EventRoutesDeps {
  readonly sandboxes: Sandboxes;
  readonly events: Events;
  readonly validator: Validator;
}

/** Proxies drop what is silent for a minute, and some sooner; in milliseconds. A reader that took nothing for two of these is dropped. */
const COMMENT_EVERY_MS = 15_000;
/** Bytes that wait in the stream itself; everything else waits where it is, among the events remembered. */
const HIGH_WATER_MARK = 16 * 1024;

/** Events of all sandboxes that the caller may see, and of one: a page of those remembered, or a stream of those to come. */
export function eventRoutes(router: Router, { sandboxes, events, validator }: EventRoutesDeps): void {
  for (const path of ['/events', '/sandboxes/:id/events']) {
    router.get(path, (ctx) => {
      const principal = principalOf(ctx);
      const id = ctx.params.id;
      const over = id !== undefined && sandboxes.get(principal, id).ended !== undefined;
      // By the event's owner, not the sandbox's: an id may have been another tenant's before.
      const wanted = (event: SandboxEvent): boolean =>
        sees(principal, event.owner) && (id === undefined || event.sandboxId === id);
      if (ctx.accepts('application/json', 'text/event-stream') === 'text/event-stream') {
        answerStream(ctx, new EventReader(events, queryOf(ctx, validator, id).after, wanted), over);
      } else answerPage(ctx, events, queryOf(ctx, validator, id), wanted);
    });
  }
}

interface EventsQuery {
  readonly after?: string;
  readonly limit: number;
}

function queryOf(ctx: RouterContext, validator: Validator, id: string | undefined): EventsQuery {
  const params = new URLSearchParams(ctx.querystring);
  // A reader that comes back sends it, and its address still has the old `after`.
  const last = ctx.get('Last-Event-ID');
  if (!/^(\d{1,15}-\d{1,15})?$/.test(last))
    throw new AppError('INVALID_REQUEST', 'Last-Event-ID: not the id of an event');
  if (last !== '') params.set('after', last);
  return validator.query<EventsQuery>(id === undefined ? 'listEvents' : 'listSandboxEvents', params);
}

function answerPage(
  ctx: RouterContext,
  events: Events,
  { after = '0-0', limit }: EventsQuery,
  wanted: (event: SandboxEvent) => boolean,
): void {
  const page: object[] = [];
  let position = events.position(after);
  while (page.length < limit) {
    const found = events.next(position, wanted);
    position = found.position;
    if (!found.event) break;
    page.push(view(found.event));
  }
  const data = { events: page, next: events.idAt(position) };
  ctx.body = { code: 'SUCCESS', requestId: ctx.state.requestId, data };
}

function answerStream(ctx: RouterContext, reader: EventReader, over: boolean): void {
  // 204 is the one answer after which an EventSource does not come back: this sandbox will have no more events.
  if (over && reader.upToDate) {
    ctx.status = 204;
    return;
  }
  ctx.set('Content-Type', 'text/event-stream');
  ctx.set('Cache-Control', 'no-cache, no-transform');
  // nginx would keep events back until a buffer is full.
  ctx.set('X-Accel-Buffering', 'no');
  ctx.body = reader.stream(over, ctx.params.id !== undefined);
}

/** As the API shows it. */
function view(event: SandboxEvent): object {
  return { ...event, at: isoTime(event.at) };
}

/**
 * One reader of a stream. It has no queue of its own but a place among the events that are remembered, so a slow one
 * costs nothing; when what it has yet to read is forgotten, or it takes nothing for long, it is dropped.
 */
export class EventReader {
  readonly #events: Events;
  readonly #wanted: (event: SandboxEvent) => boolean;
  #position: number;

  constructor(events: Events, after: string | undefined, wanted: (event: SandboxEvent) => boolean) {
    this.#events = events;
    this.#wanted = wanted;
    this.#position = events.position(after);
  }

  get upToDate(): boolean {
    return this.#events.next(this.#position, this.#wanted).event === undefined;
  }

  /** `over`: the sandbox has ended before. `one`: of one sandbox, whose end is the stream's end. */
  stream(over: boolean, one: boolean): Readable {
    let hungry = false;
    let silentTicks = 0;
    let ended = false;
    const pump = (): void => {
      if (ended) return;
      if (this.#events.forgotten(this.#position)) return void stream.destroy();
      while (hungry) {
        const { event, position } = this.#events.next(this.#position, this.#wanted);
        this.#position = position;
        if (event === undefined) {
          if (over) end();
          return;
        }
        // An id may be used again: then the next one's beginning follows its end. Recordings are removed at any time.
        if (one && event.type.startsWith('sandbox.')) over = event.type === 'sandbox.ended';
        hungry = stream.push(frame(event));
      }
    };
    const end = (): void => {
      ended = true;
      stream.push(null);
    };
    const tick = setInterval(() => {
      silentTicks = hungry ? 0 : silentTicks + 1;
      if (silentTicks >= 2) stream.destroy();
      else if (hungry && !ended) hungry = stream.push(':\n\n');
    }, COMMENT_EVERY_MS);
    tick.unref();
    const stream = new Readable({
      highWaterMark: HIGH_WATER_MARK,
      read: () => {
        hungry = true;
        pump();
      },
      destroy: (err, done) => {
        clearInterval(tick);
        stopListening();
        done(err);
      },
    });
    // Something at once, so that the answer's head goes out.
    stream.push(':\n\n');
    const stopListening = this.#events.listen((event) => {
      if (event === undefined) over = true;
      pump();
    });
    return stream;
  }
}

/** In the format of the HTML standard, section 9.2; JSON has no line break that could end a field. */
function frame(event: SandboxEvent): string {
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(view(event))}\n\n`;
}
