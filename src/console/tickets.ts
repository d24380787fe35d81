import type { components } from '../client/schema.ts';
import { ask, http } from './api.ts';

/** A ticket as it is handed out: once, for the ticket itself is kept nowhere. */
export type NewTicket = components['schemas']['NewTicket'];
export type IssuedTicket = components['schemas']['Ticket'];
export type TicketRole = IssuedTicket['role'];

export async function issue(
  sandboxId: string,
  role: TicketRole,
  ttlSeconds: number,
  oneTime: boolean,
): Promise<NewTicket> {
  const params = { path: { id: sandboxId } };
  return (await ask(http.POST('/sandboxes/{id}/tickets', { params, body: { role, ttlSeconds, oneTime } }))).data;
}

export async function issued(sandboxId: string): Promise<readonly IssuedTicket[]> {
  return (await ask(http.GET('/sandboxes/{id}/tickets', { params: { path: { id: sandboxId } } }))).data.tickets;
}

/** Without a ticket: all of the sandbox. */
export async function revoke(sandboxId: string, ticketId?: string): Promise<void> {
  const path = { id: sandboxId };
  if (ticketId === undefined) await ask(http.DELETE('/sandboxes/{id}/tickets', { params: { path } }));
  else await ask(http.DELETE('/sandboxes/{id}/tickets/{ticketId}', { params: { path: { ...path, ticketId } } }));
}
