import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { TicketMemory } from './contracts.ts';
import { AppError, NEVER_OURS } from './errors.ts';
import type { Ticket, TicketRole } from './ticket.ts';

/** Longer ones are not looked at, in characters. */
const MAX_TICKET = 1024;

/** Makes and checks tickets: signed, so that nothing needs to be kept of one but that it was revoked or used up. */
export class Tickets {
  readonly #key: Buffer;
  readonly #memory: TicketMemory;
  readonly #now: () => number;

  constructor(key: Buffer, memory: TicketMemory, now: () => number = Date.now) {
    this.#key = key;
    this.#memory = memory;
    this.#now = now;
  }

  /** Valid until `expiresAt`, in Unix milliseconds. */
  make(sandboxId: string, role: TicketRole, expiresAt: number, oneTime = false): Ticket {
    // Behind the moment at which all earlier ones were revoked, however soon after it.
    const createdAt = Math.max(this.#now(), (this.#memory.revokedUntil(sandboxId) ?? -1) + 1);
    const said = { id: randomBytes(9).toString('base64url'), sandboxId, role, createdAt, oneTime };
    const ticket = { ...said, expiresAt: Math.round(expiresAt) };
    const fields = [ticket.id, sandboxId, role, createdAt, ticket.expiresAt, oneTime ? 1 : 0];
    const payload = Buffer.from(JSON.stringify(fields)).toString('base64url');
    return { ...ticket, text: `${payload}.${this.#sign(payload)}` };
  }

  /**
   * What the ticket says, when it is one for this sandbox and one of these roles. Throws UNAUTHORIZED for one that is not valid
   * (any more), FORBIDDEN for one that is for something else.
   */
  check(text: string, sandboxId: string, roles: readonly TicketRole[]): Ticket {
    const ticket = this.#read(text);
    if (ticket.expiresAt < this.#now()) throw new AppError('UNAUTHORIZED', 'The ticket has expired.');
    if (ticket.sandboxId !== sandboxId) throw new AppError('FORBIDDEN', 'The ticket is for another sandbox.');
    if (!roles.includes(ticket.role)) {
      throw new AppError('FORBIDDEN', `The ticket is for ${ticket.role}, and this needs ${roles.join(' or ')}.`);
    }
    this.assertStands(ticket);
    if (ticket.oneTime && this.#memory.isUsed(ticket.id)) throw usedUp();
    return ticket;
  }

  /** Throws UNAUTHORIZED for a ticket that was revoked. */
  assertStands({ id, sandboxId, createdAt }: Ticket): void {
    const until = this.#memory.revokedUntil(sandboxId);
    if (this.#memory.isRevoked(id) || (until !== undefined && createdAt <= until)) {
      throw new AppError('UNAUTHORIZED', 'The ticket has been revoked.');
    }
  }

  /** Uses up a one-time ticket; any other stays as it is. Resolves when that is written down. Throws UNAUTHORIZED when somebody was faster. */
  async redeem(ticket: Ticket): Promise<void> {
    if (!ticket.oneTime) return;
    if (!(await this.#memory.use(ticket.id, ticket.expiresAt))) throw usedUp();
  }

  #read(text: string): Ticket {
    const [payload = '', signature = '', ...more] = text.length > MAX_TICKET ? [] : text.split('.');
    const right = this.#sign(payload);
    // Of a wrong length it is compared with itself: what is compared never says how near it was.
    const given = Buffer.from(signature.length === right.length ? signature : right);
    const same = timingSafeEqual(given, Buffer.from(right)) && signature.length === right.length;
    if (!same || more.length > 0) throw new AppError('UNAUTHORIZED', 'The ticket is not valid.', {}, NEVER_OURS);
    const [id, sandboxId, role, createdAt, expiresAt, oneTime] = JSON.parse(
      Buffer.from(payload, 'base64url').toString(),
    ) as [string, string, TicketRole, number, number, number];
    return { id, sandboxId, role, createdAt, expiresAt, oneTime: oneTime === 1, text };
  }

  #sign(payload: string): string {
    return createHmac('sha256', this.#key).update(payload).digest('base64url');
  }
}

/** Throws UNAUTHORIZED for a ticket to an earlier sandbox of the same id. `createdAt` is the sandbox's, in Unix milliseconds. */
export function assertSameSandbox(ticket: Ticket, createdAt: number): void {
  if (ticket.createdAt < createdAt) {
    throw new AppError('UNAUTHORIZED', 'The ticket is for an earlier sandbox of this id.');
  }
}

function usedUp(): AppError {
  return new AppError('UNAUTHORIZED', 'The ticket was for one use, and that is over.');
}
