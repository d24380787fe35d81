/**
 * What a ticket lets its bearer do with one sandbox. automation: drive it over CDP. control: see its screen and use its mouse
 * and keyboard. view: see its screen.
 */
export type TicketRole = (typeof TICKET_ROLES)[number];
export const TICKET_ROLES = ['automation', 'control', 'view'] as const;

/** What a ticket says. Times are Unix milliseconds. */
export interface Ticket {
  /** Names it in lists, revocations and the audit log; opens nothing. */
  readonly id: string;
  readonly sandboxId: string;
  readonly role: TicketRole;
  readonly createdAt: number;
  readonly expiresAt: number;
  /** Opens one WebSocket and no more. */
  readonly oneTime: boolean;
  /** As the bearer presents it. */
  readonly text: string;
}
