import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { AppError } from '../../src/core/errors.ts';
import { TICKET_ROLES } from '../../src/core/ticket.ts';
import { assertSameSandbox, Tickets } from '../../src/core/tickets.ts';
import { EmbeddedTickets } from '../../src/registry/tickets.ts';
import { noTickets } from './doors.ts';

const folder = mkdtempSync(join(tmpdir(), 'bt-tickets-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const newFile = (): string => join(folder, `t${files++}.jsonl`);

const key = randomBytes(32);
const HOUR = 3600 * 1000;

function refused(name: string, why: RegExp): (err: unknown) => boolean {
  return (err) => err instanceof AppError && err.errorName === name && why.test(err.message);
}

describe('a ticket', () => {
  const tickets = new Tickets(key, noTickets);

  it('opens its own sandbox, for its own role, and says what it is', () => {
    const expiresAt = Date.now() + HOUR;
    for (const role of TICKET_ROLES) {
      const ticket = tickets.make('s1', role, expiresAt);
      assert.deepEqual(tickets.check(ticket.text, 's1', [role]), ticket);
      assert.throws(() => tickets.check(ticket.text, 's2', [role]), refused('FORBIDDEN', /another sandbox/));
      const others = TICKET_ROLES.filter((other) => other !== role);
      assert.throws(() => tickets.check(ticket.text, 's1', others), refused('FORBIDDEN', new RegExp(`is for ${role}`)));
    }
  });

  it('ends with its time', () => {
    let now = 1000;
    const clocked = new Tickets(key, noTickets, () => now);
    const { text } = clocked.make('s1', 'view', 2000);
    now = 2000;
    clocked.check(text, 's1', ['view']);
    now = 2001;
    assert.throws(() => clocked.check(text, 's1', ['view']), refused('UNAUTHORIZED', /expired/));
  });

  it('is not valid when any character of it was changed, or another service signed it', () => {
    const { text } = tickets.make('s1', 'control', Date.now() + HOUR);
    const [payload = '', signature = ''] = text.split('.');
    const strange = new Tickets(randomBytes(32), noTickets).make('s1', 'control', Date.now() + HOUR).text;
    const bad = [
      '',
      '.',
      payload,
      `${payload}.`,
      `.${signature}`,
      `${text}.`,
      `${text}.x`,
      strange,
      'x'.repeat(100_000),
    ];
    for (let i = 0; i < text.length; i++) {
      bad.push(text.slice(0, i) + (text[i] === 'A' ? 'B' : 'A') + text.slice(i + 1));
      bad.push(text.slice(0, i) + text.slice(i + 1));
    }
    for (const wrong of bad) {
      const check = (): unknown => tickets.check(wrong, 's1', TICKET_ROLES);
      assert.throws(check, refused('UNAUTHORIZED', /not valid/), wrong.slice(0, 200));
    }
  });

  it('does not open a later sandbox of the same id', () => {
    const ticket = tickets.make('s1', 'view', Date.now() + HOUR);
    assertSameSandbox(ticket, ticket.createdAt);
    assert.throws(() => assertSameSandbox(ticket, ticket.createdAt + 1), refused('UNAUTHORIZED', /earlier sandbox/));
  });
});

describe('what is remembered of tickets', () => {
  it('lets a one-time ticket in once, of many at the same time too, and after a restart', async () => {
    const file = newFile();
    const memory = await EmbeddedTickets.open(file);
    const tickets = new Tickets(key, memory);
    const ticket = tickets.make('s1', 'automation', Date.now() + HOUR, true);
    const checked = Array.from({ length: 20 }, () => tickets.check(ticket.text, 's1', ['automation']));
    const outcomes = await Promise.allSettled(checked.map((one) => tickets.redeem(one)));
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
    const again = new Tickets(key, await EmbeddedTickets.open(file));
    for (const late of [tickets, again]) {
      const check = (): unknown => late.check(ticket.text, 's1', ['automation']);
      assert.throws(check, refused('UNAUTHORIZED', /one use/));
    }
  });

  it('turns a revoked one away, after a restart too, and no other', async () => {
    const file = newFile();
    const memory = await EmbeddedTickets.open(file);
    const tickets = new Tickets(key, memory);
    const [one, other] = [1, 2].map(() => tickets.make('s1', 'view', Date.now() + HOUR));
    assert.ok(one && other);
    await Promise.all([memory.add(one), memory.add(other)]);
    assert.equal(await memory.revoke(one.id, 's2'), false, 'of another sandbox');
    assert.equal(await memory.revoke(one.id, 's1'), true);
    assert.equal(await memory.revoke(one.id, 's1'), false, 'twice');
    const again = await EmbeddedTickets.open(file);
    for (const [now, at] of [[memory, tickets] as const, [again, new Tickets(key, again)] as const]) {
      assert.throws(() => at.check(one.text, 's1', ['view']), refused('UNAUTHORIZED', /revoked/));
      at.check(other.text, 's1', ['view']);
      assert.deepEqual(
        now.list('s1').map(({ id }) => id),
        [other.id],
      );
    }
  });

  it('revokes all of a sandbox, also those that nobody listed, and none that are made afterwards', async () => {
    const memory = await EmbeddedTickets.open(newFile(), () => 5000);
    const tickets = new Tickets(key, memory, () => 5000);
    const before = tickets.make('s1', 'control', 9000);
    const elsewhere = tickets.make('s2', 'control', 9000);
    await memory.revokeAll('s1');
    const after = tickets.make('s1', 'control', 9000);
    assert.throws(() => tickets.check(before.text, 's1', ['control']), refused('UNAUTHORIZED', /revoked/));
    tickets.check(after.text, 's1', ['control']);
    tickets.check(elsewhere.text, 's2', ['control']);
  });

  it('never writes a ticket down, only what names it', async () => {
    const file = newFile();
    const memory = await EmbeddedTickets.open(file);
    const ticket = new Tickets(key, memory).make('s1', 'view', Date.now() + HOUR);
    await memory.add(ticket);
    const text = readFileSync(file, 'utf8');
    assert.match(text, new RegExp(ticket.id));
    for (const part of ticket.text.split('.')) assert.ok(!text.includes(part));
    assert.equal(statSync(file).mode & 0o777, 0o600);
  });

  it('forgets what has expired, in memory and on the disk', async () => {
    let now = 0;
    const file = newFile();
    const memory = await EmbeddedTickets.open(file, () => now);
    for (let i = 0; i < 1500; i++) {
      now = i * 10;
      const tickets = new Tickets(key, memory, () => now);
      await memory.add(tickets.make('s1', 'view', now + 50));
      await memory.use(`used-${i}`, now + 50);
    }
    assert.ok(memory.list('s1').length <= 7);
    assert.ok(readFileSync(file, 'utf8').split('\n').length < 1100);
  });

  it('survives a torn line', async () => {
    const file = newFile();
    const memory = await EmbeddedTickets.open(file);
    const tickets = new Tickets(key, memory);
    const [one, other] = [1, 2].map(() => tickets.make('s1', 'view', Date.now() + HOUR));
    assert.ok(one && other);
    await memory.add(one);
    appendFileSync(file, '{"revoked":"x');
    const again = await EmbeddedTickets.open(file);
    await again.add(other);
    assert.equal((await EmbeddedTickets.open(file)).list('s1').length, 2);
  });
});
