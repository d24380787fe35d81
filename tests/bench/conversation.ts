/** What is said in the replay: a conversation over CDP that looks like a recorded one, and the updates of a screen. The same at every run. */

/** A call, and what comes back for it. The id of a call says which one it is: {@link stepOf}. */
export interface Step {
  /** A screenshot otherwise. */
  readonly small: boolean;
  /** Behind the id. */
  readonly call: string;
  /** Whole messages that come before the answer. */
  readonly events: readonly string[];
  /** Behind the id. */
  readonly answer: string;
}

const STEPS = 400;
/** Once in so many calls a screenshot is taken. */
const SCREENSHOT_EVERY = 100;
const EVENTS_EVERY = 4;
const KIB = 1024;
const SESSION = `"sessionId":"${'0123456789ABCDEF'.repeat(2)}"`;
const METHODS = ['Runtime.evaluate', 'Runtime.callFunctionOn', 'Input.dispatchMouseEvent', 'DOM.querySelector'];
const EVENTS = ['Network.requestWillBeSent', 'Network.responseReceived', 'Page.lifecycleEvent'];

/** Numbers from 0 to 1 that look random. */
function* numbers(): Generator<number, never> {
  for (let seed = 42; ; ) {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    yield seed / 2 ** 31;
  }
}

function* steps(): Generator<Step> {
  const random = numbers();
  /** Small ones are as much more frequent as they are smaller. */
  const size = (from: number, to: number): number => Math.round(from * (to / from) ** random.next().value);
  const one = <T>(of: readonly T[]): T => of[Math.floor(random.next().value * of.length)] as T;
  const filled = (head: string, length: number, tail: string): string =>
    `${head}${'x'.repeat(Math.max(0, length - head.length - tail.length))}${tail}`;
  for (let i = 0; i < STEPS; i++) {
    const small = i % SCREENSHOT_EVERY !== SCREENSHOT_EVERY / 2;
    const method = small ? one(METHODS) : 'Page.captureScreenshot';
    const events = Array.from({ length: i % EVENTS_EVERY === 0 ? Math.ceil(random.next().value * 3) : 0 }, () =>
      filled(`{"method":"${one(EVENTS)}","params":{"of":"`, size(300, 1500), `"},${SESSION}}`),
    );
    yield {
      small,
      call: filled(`,"method":"${method}","params":{"of":"`, small ? size(90, 490) : 150, `"},${SESSION}}`),
      events,
      answer: filled(',"result":{"data":"', small ? size(100, 4 * KIB) : size(100 * KIB, 400 * KIB), `"},${SESSION}}`),
    };
  }
}

const CONVERSATION: readonly Step[] = [...steps()];

export function stepOf(id: number): Step {
  return CONVERSATION[id % STEPS] as Step;
}

/** A call or its answer as it goes over the wire. */
export function message(id: number, rest: string): string {
  return `{"id":${id}${rest}`;
}

/** The id of a call or an answer; undefined for an event. */
export function idIn(data: Uint8Array): number | undefined {
  const head = Buffer.from(data.buffer, data.byteOffset, Math.min(data.byteLength, 24)).toString('latin1');
  const id = /^\{"id":(\d+)/.exec(head)?.[1];
  return id === undefined ? undefined : Number(id);
}

/** A screen that changes as often as that, of which a viewer asks for each update when it has the one before, as in RFB. */
export const UPDATES_PER_SECOND = 25;
export const UPDATE_BYTES = 12_000;
export const UPDATE_REQUEST = Buffer.from([3, 1, 0, 0, 0, 0, 5, 0, 2, 208]);
