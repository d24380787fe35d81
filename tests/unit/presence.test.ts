import assert from 'node:assert/strict';
import { describe, it, mock } from 'node:test';
import { Presence } from '../../src/core/presence.ts';

const WAY = { endpoint: { path: '/nowhere' }, prefix: '' };
const CLOSE = () => 'restart' as const;

describe('Presence', () => {
  it('tells of joins and leaves at once, and of activity at most once a second', () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    const said: [number, number, boolean][] = [];
    const presence = new Presence('s', (...what) => said.push(what));
    const client = presence.join('client', WAY, '/b', CLOSE);
    const viewer = presence.join('viewer', WAY, '', CLOSE);
    assert.deepEqual(said.splice(0), [
      [1, 0, true],
      [1, 1, false],
    ]);
    for (let i = 0; i < 1000; i++) client.active();
    viewer.active();
    assert.deepEqual(said, [], 'within a second nothing is said again');
    mock.timers.tick(1000);
    assert.deepEqual(said.splice(0), [[1, 1, true]], 'then once for all of it');
    mock.timers.tick(5000);
    assert.deepEqual(said, [], 'and nothing for silence');
    client.active();
    assert.deepEqual(said.splice(0), [[1, 1, true]], 'the first message after silence is told at once');
    viewer.detach();
    viewer.detach();
    assert.deepEqual(said.splice(0), [[1, 0, false]]);
    presence.close();
    mock.timers.reset();
  });

  it('ends everybody with the reason, also one who listens only afterwards', () => {
    const presence = new Presence('s', () => {});
    const early = presence.join('client', WAY, '/b', CLOSE);
    const late = presence.join('client', WAY, '/b', CLOSE);
    const heard: string[] = [];
    early.onEnd = ({ code, reason }) => heard.push(`early ${code} ${reason}`);
    presence.endAll({ code: 1001, reason: 'bye' });
    presence.endAll({ code: 1011, reason: 'again' });
    late.onEnd = ({ code, reason }) => heard.push(`late ${code} ${reason}`);
    assert.deepEqual(heard, ['early 1001 bye', 'late 1001 bye']);
    presence.close();
  });
});
