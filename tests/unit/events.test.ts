import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { EVENT_TYPES, Events, type SandboxEvent } from '../../src/core/events.ts';
import type { SandboxInfo } from '../../src/core/live.ts';
import type { SandboxSpec, SandboxStatus } from '../../src/core/sandbox.ts';

const SPEC = { id: 's', owner: 'tenant', metadata: { secret: 'no' } } as unknown as SandboxSpec;
const UP = { port: 1, browserPath: '/devtools/browser/one' };
const all = (): boolean => true;

/** A sandbox as it is seen; what is not said is as at rest. */
function info(state: SandboxInfo['state'], said: Partial<SandboxStatus> = {}): SandboxInfo {
  const rest = { clients: 0, viewers: 0, recorder: { state: 'off' }, browserRestarts: 0, stages: {}, devtools: UP };
  const ended = { spec: SPEC, state: 'TERMINATED', endedAt: 1, endedReason: said.endedReason ?? 'deleted' } as const;
  const over = state === 'TERMINATED' || state === 'FAILED';
  const status = { ...rest, state, ...said } as unknown as SandboxStatus;
  return { spec: SPEC, state, status, ...(over ? { ended: { ...ended, state } } : {}) };
}

/** What the looks tell, each event as its type and details. */
function told(...looks: SandboxInfo[]): unknown[] {
  const events = new Events();
  const watcher = events.watcher();
  for (const look of looks) watcher.saw(look);
  return from(events, 0).map(({ id: _, at: __, sandboxId, owner, type, startMs, ...details }) => {
    assert.deepEqual([sandboxId, owner], ['s', 'tenant']);
    return Object.keys(details).length === 0 ? type : [type, details];
  });
}

/** Every event after a position. */
function from(events: Events, start: number): SandboxEvent[] {
  const found: SandboxEvent[] = [];
  for (let { event, position } = events.next(start, all); event; { event, position } = events.next(position, all))
    found.push(event);
  return found;
}

const NEW: SandboxInfo = { spec: SPEC, state: 'CREATING' };
const READY = info('READY', { stages: { xvfb: 5, ready: 9 } });
const BEGIN = ['sandbox.creating', ['sandbox.ready', { startStages: { xvfb: 5, ready: 9 } }]];

describe('Events', () => {
  it('has the types that openapi.yaml lists', () => {
    const document = parse(readFileSync(new URL('../../../openapi.yaml', import.meta.url), 'utf8'));
    assert.deepEqual(document.components.schemas.Event.properties.type.enum, EVENT_TYPES);
  });

  it('tells a whole life in order, and nothing twice', () => {
    const recorder = { state: 'recording', sessionId: 'vnc_s_1' } as const;
    const looks = [
      NEW,
      info('CREATING'),
      READY,
      READY,
      info('READY', { clients: 1 }),
      info('READY', { clients: 1, viewers: 1 }),
      info('READY', { clients: 1, viewers: 1, recorder }),
      info('READY', { clients: 1, viewers: 1, recorder }),
      info('READY', { clients: 1 }),
      info('READY', {}),
      info('TERMINATED'),
      info('TERMINATED'),
    ];
    assert.deepEqual(told(...looks), [
      ...BEGIN,
      ['client.joined', { clients: 1 }],
      ['viewer.joined', { viewers: 1 }],
      ['recording.started', { sessionId: 'vnc_s_1' }],
      ['recording.stopped', { sessionId: 'vnc_s_1' }],
      ['viewer.left', { viewers: 0 }],
      ['client.left', { clients: 0 }],
      ['sandbox.ended', { status: 'TERMINATED', endedReason: 'deleted' }],
    ]);
  });

  it('tells what its end ended', () => {
    const busy = info('READY', { clients: 2, viewers: 1, recorder: { state: 'recording', sessionId: 'v' } });
    const last = { recorder: { state: 'off' }, endingReason: 'max_lifetime', devtools: undefined } as never;
    assert.deepEqual(
      told(NEW, READY, busy, info('READY', last), info('FAILED', { endedReason: 'failed: x' })).slice(2),
      [
        ['recording.started', { sessionId: 'v' }],
        ['client.joined', { clients: 2 }],
        ['viewer.joined', { viewers: 1 }],
        ['recording.stopped', { sessionId: 'v' }],
        ['client.left', { clients: 0 }],
        ['viewer.left', { viewers: 0 }],
        ['sandbox.ended', { status: 'FAILED', endedReason: 'failed: x' }],
      ],
    );
  });

  it('tells of a browser that died and came back, also when it was back before anybody looked', () => {
    const down = { ...READY, status: { ...READY.status, devtools: undefined } } as unknown as SandboxInfo;
    const next = info('READY', { devtools: { port: 1, browserPath: '/devtools/browser/two' }, browserRestarts: 1 });
    const expected = ['browser.down', ['browser.restarted', { browserRestarts: 1 }]];
    assert.deepEqual(told(NEW, READY, down, down, next).slice(2), expected);
    assert.deepEqual(told(NEW, READY, next).slice(2), expected);
  });

  it('tells of a recorder that was given up, once', () => {
    const failed = info('READY', { recorder: { state: 'failed', sessionId: 'v', error: 'ffmpeg died' } });
    const running = info('READY', { recorder: { state: 'recording', sessionId: 'v' } });
    assert.deepEqual(told(NEW, READY, running, failed, failed, READY).slice(2), [
      ['recording.started', { sessionId: 'v' }],
      ['recorder.failed', { sessionId: 'v', error: 'ffmpeg died' }],
    ]);
  });

  it('tells of a recorder that waits for room on the disk and goes on', () => {
    const recorder = { state: 'recording', sessionId: 'v' } as const;
    const paused = info('READY', { recorder: { state: 'paused', sessionId: 'v', error: 'full' } });
    const running = info('READY', { recorder });
    assert.deepEqual(told(NEW, READY, running, paused, running).slice(2), [
      ['recording.started', { sessionId: 'v' }],
      ['recorder.paused', { sessionId: 'v', error: 'full' }],
      ['recording.started', { sessionId: 'v' }],
    ]);
  });

  it('tells of a recording that was removed, also when nobody remembers whose it was', () => {
    const events = new Events();
    events.recordingRemoved({ sandboxId: 's', owner: 'tenant', filename: 'a.mkv', reason: 'age' });
    events.recordingRemoved({ sandboxId: 's', owner: undefined, filename: 'b.mkv', reason: 'deleted' });
    const type = 'recording.removed';
    assert.deepEqual(
      from(events, 0).map(({ id: _, at: __, ...said }) => said),
      [
        { type, sandboxId: 's', owner: 'tenant', filename: 'a.mkv', reason: 'age' },
        { type, sandboxId: 's', owner: '', filename: 'b.mkv', reason: 'deleted' },
      ],
    );
  });

  it('tells a start that failed from an end, and one that was found from one that was made', () => {
    const failed = info('FAILED', { endedReason: 'failed: no room' });
    const how = { status: 'FAILED', endedReason: 'failed: no room' };
    assert.deepEqual(told(NEW, failed), ['sandbox.creating', ['sandbox.ended', { ...how, beforeReady: true }]]);
    assert.deepEqual(told(READY, failed), [
      ['sandbox.adopted', { clients: 0, viewers: 0 }],
      ['sandbox.ended', how],
    ]);
    assert.deepEqual(told(failed), [['sandbox.ended', how]]);
  });

  it('says how long a start took only when it saw the whole of it', () => {
    for (const [first, known] of [
      [NEW, true],
      [info('CREATING'), false],
    ] as const) {
      const events = new Events();
      const watcher = events.watcher();
      watcher.saw(first);
      watcher.saw(READY);
      assert.equal(typeof from(events, 1)[0]?.startMs === 'number', known);
    }
  });

  it('takes whatever a sandbox says of itself, and keeps it small', () => {
    const stages = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`${'n'.repeat(5000)}${i}`, i]));
    const nonsense = { clients: -1.5, viewers: 'x', recorder: null, browserRestarts: {}, stages } as never;
    const huge = { recorder: { state: 'failed', sessionId: {}, error: 'e'.repeat(1e6) } } as never;
    assert.ok(JSON.stringify(told(NEW, info('READY', nonsense), info('READY', huge))).length < 30_000);
    assert.deepEqual(told(NEW, { ...NEW, status: {} as never }), ['sandbox.creating']);
  });

  it('remembers the last ones and no more, and knows what it has forgotten', () => {
    const events = new Events(5, () => 1000);
    const watcher = events.watcher();
    watcher.saw(NEW);
    assert.equal(from(events, 0).length, 1);
    watcher.saw(READY);
    for (let clients = 1; clients <= 10; clients++) watcher.saw(info('READY', { clients }));
    assert.deepEqual(
      from(events, 0).map(({ id, clients }) => [id, clients]),
      [6, 7, 8, 9, 10].map((clients) => [`1000-${clients + 2}`, clients]),
    );
    assert.deepEqual([events.forgotten(6), events.forgotten(7)], [true, false]);
  });

  it('goes on after an id: of this start, of another one, forgotten, of the future, none', () => {
    const events = new Events(5, () => 1000);
    const watcher = events.watcher();
    for (let clients = 0; clients < 10; clients++) watcher.saw(info('READY', { clients }));
    assert.deepEqual(
      ['1000-8', '999-8', '0-0', '1000-2', '1000-99', undefined].map((after) => events.position(after)),
      [8, 5, 5, 5, 10, 10],
    );
    assert.equal(events.idAt(events.position(undefined)), '1000-10');
  });

  it('passes over what is not wanted', () => {
    const events = new Events();
    const watcher = events.watcher();
    for (let clients = 0; clients < 10; clients++) watcher.saw(info('READY', { clients }));
    const found = events.next(0, (event) => event.clients === 7);
    assert.deepEqual([found.event?.clients, found.position], [7, 8]);
    assert.deepEqual(
      events.next(0, () => false),
      { position: 10 },
    );
  });

  it('wakes its listeners until they go, and says when there will be no more', () => {
    const events = new Events();
    const heard: (string | undefined)[] = [];
    const stop = events.listen((event) => heard.push(event?.type));
    events.listen((event) => heard.push(event?.type));
    const watcher = events.watcher();
    watcher.saw(NEW);
    stop();
    assert.equal(events.listening, 1);
    watcher.saw(READY);
    events.close();
    assert.deepEqual(heard, ['sandbox.creating', 'sandbox.creating', 'sandbox.ready', undefined]);
    assert.equal(events.listening, 0);
    events.listen((event) => heard.push(event?.type));
    assert.equal(heard.length, 5, 'told at once');
  });
});
