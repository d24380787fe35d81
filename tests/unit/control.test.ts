import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Control, type Viewer, type ViewerRole } from '../../src/core/control.ts';
import { Presence } from '../../src/core/presence.ts';
import type { ControlMode } from '../../src/core/sandbox.ts';

/** A sandbox with viewers; notes who has been told what, in order. */
class World {
  readonly said: string[] = [];
  readonly presence = new Presence('s', () => {});
  readonly control: Control;

  constructor(mode: ControlMode) {
    this.control = new Control(mode, (controller) => this.said.push(`controller ${controller ?? 'nobody'}`));
  }

  join(viewerId: string, role: ViewerRole = 'control', bearer = viewerId): Viewer {
    const attachment = this.presence.join('viewer', { endpoint: { path: '' }, prefix: '' }, '', () => 'restart');
    const viewer = this.control.join({ viewerId, role, bearer }, attachment);
    viewer.onEnd = ({ code, reason }) => {
      this.said.push(`${viewerId} ends ${code} ${reason}`);
      viewer.detach();
    };
    viewer.onControl = (controls) => this.said.push(`${viewerId} ${controls ? 'controls' : 'looks'}`);
    return viewer;
  }

  taken(): string[] {
    return this.said.splice(0);
  }

  get who(): string {
    return this.control
      .list()
      .map(({ viewerId, controls }) => `${viewerId}${controls ? '*' : ''}`)
      .join(' ');
  }
}

describe('Collaborative control', () => {
  it('is everybody’s who may control, and nobody’s who may only look', () => {
    const world = new World('collaborative');
    for (const [id, role] of [['a'], ['b', 'view'], ['c']] as [string, ViewerRole?][]) world.join(id, role);
    assert.equal(world.who, 'a* b c*');
    assert.deepEqual(world.taken(), ['a controls', 'b looks', 'c controls']);
    world.control.give('a');
    assert.equal(world.who, 'a* b c*');
    assert.throws(() => world.control.give('b'), { errorName: 'INVALID_REQUEST' });
    assert.throws(() => world.control.giveBack('a'), { errorName: 'INVALID_REQUEST' });
    assert.throws(() => world.control.give('x'), { errorName: 'NOT_FOUND' });
  });

  it('becomes exclusive with whoever may control and has been there longest, and all have it back afterwards', () => {
    const world = new World('collaborative');
    for (const [id, role] of [['v', 'view'], ['a'], ['b']] as [string, ViewerRole?][]) world.join(id, role);
    world.taken();
    world.control.mode = 'exclusive';
    assert.equal(world.who, 'v a* b');
    assert.deepEqual(world.taken(), ['b looks', 'controller a']);
    world.control.mode = 'exclusive';
    assert.deepEqual(world.taken(), []);
    world.control.mode = 'collaborative';
    assert.equal(world.who, 'v a* b*');
    assert.deepEqual(world.taken(), ['b controls', 'controller nobody']);
  });
});

describe('Exclusive control', () => {
  it('is the first one’s who may have it, and free when that one goes', () => {
    const world = new World('exclusive');
    for (const [id, role] of [['v', 'view'], ['a'], ['b']] as [string, ViewerRole?][]) world.join(id, role);
    assert.equal(world.who, 'v a* b');
    const [a] = world.control.list().filter(({ controls }) => controls);
    assert.equal(a?.viewerId, 'a');
    world.taken();
    world.control.kick('a');
    assert.deepEqual(world.taken(), ['a ends 1008 the owner of the sandbox has ended this view', 'controller nobody']);
    assert.equal(world.who, 'v b', 'who is there already has to ask');
    world.join('c');
    assert.equal(world.who, 'v b c*', 'who comes while it is free gets it');
  });

  it('goes from hand to hand: the one before has let go when the next one begins', () => {
    const world = new World('exclusive');
    for (const id of ['a', 'b']) world.join(id);
    world.taken();
    world.control.give('b');
    assert.deepEqual(world.taken(), ['a looks', 'b controls', 'controller b']);
    world.control.giveBack('a');
    assert.deepEqual(world.taken(), [], 'who has not got it gives nothing back');
    world.control.giveBack('b');
    assert.deepEqual(world.taken(), ['b looks', 'controller nobody']);
    assert.throws(() => world.control.kick('x'), { errorName: 'NOT_FOUND' });
  });

  it('may be taken with a ticket only when it is free, and only for the ticket’s own viewer', () => {
    const world = new World('exclusive');
    for (const id of ['a', 'b']) world.join(id, 'control', `ticket ${id}`);
    assert.throws(() => world.control.give('b', 'ticket b'), { errorName: 'CONTROL_TAKEN' });
    assert.throws(() => world.control.give('b', 'ticket a'), { errorName: 'FORBIDDEN' });
    assert.throws(() => world.control.giveBack('a', 'ticket b'), { errorName: 'FORBIDDEN' });
    assert.equal(world.who, 'a* b');
    world.control.giveBack('a', 'ticket a');
    world.control.give('b', 'ticket b');
    assert.equal(world.who, 'a b*');
  });

  it('a viewer that comes back ends its old connection and has its control again; nobody else may have its id', () => {
    const world = new World('exclusive');
    const old = world.join('a', 'control', 'ticket');
    world.join('b');
    assert.throws(() => world.join('a', 'control', 'another ticket'), { errorName: 'FORBIDDEN' });
    assert.equal(world.who, 'a* b');
    world.taken();
    world.join('a', 'control', 'ticket');
    assert.equal(world.who, 'b a*');
    assert.ok(world.taken().includes('a ends 1008 this viewer has connected again'));
    old.detach();
    assert.equal(world.who, 'b a*', 'the old one’s end says nothing of the new one');
    world.join('a', 'view', 'ticket');
    assert.equal(world.who, 'b a', 'one that comes back to look only has lost it');
  });
});
