import type { TicketMemory, TicketRecord } from '../core/contracts.ts';
import type { Ticket } from '../core/ticket.ts';
import { LineFile } from './lines.ts';

/** No ticket counts for longer than a sandbox may live, in milliseconds. */
const LONGEST_MS = 7 * 24 * 3600 * 1000;
/** Lines in the file above those that are needed, before it is written anew. */
const SPARE_LINES = 1000;

/** What a line says. */
type Line =
  | { readonly made: Omit<Ticket, 'text'> }
  | { readonly used: string; readonly expiresAt: number }
  | { readonly revoked: string; readonly expiresAt: number }
  | { readonly all: string; readonly at: number };

/** In memory and in one file. */
export class EmbeddedTickets implements TicketMemory {
  readonly #lines: LineFile;
  readonly #now: () => number;
  readonly #made = new Map<string, Omit<Ticket, 'text'>>();
  /** When each expires, by id. */
  readonly #used = new Map<string, number>();
  readonly #revoked = new Map<string, number>();
  /** Until when all were revoked, by sandbox. */
  readonly #all = new Map<string, number>();

  private constructor(lines: LineFile, now: () => number) {
    this.#lines = lines;
    this.#now = now;
  }

  static async open(file: string, now: () => number = Date.now): Promise<EmbeddedTickets> {
    const { lines, values } = await LineFile.open(file);
    const tickets = new EmbeddedTickets(lines, now);
    for (const value of values) tickets.#take(value as Line);
    return tickets;
  }

  list(sandboxId: string): readonly TicketRecord[] {
    this.#prune();
    const until = this.#all.get(sandboxId) ?? -1;
    return [...this.#made.values()]
      .filter((made) => made.sandboxId === sandboxId && made.createdAt > until && !this.#revoked.has(made.id))
      .map((made) => ({ ...made, used: this.#used.has(made.id) }));
  }

  add({ id, sandboxId, role, createdAt, expiresAt, oneTime }: Omit<Ticket, 'text'>): Promise<void> {
    return this.#write({ made: { id, sandboxId, role, createdAt, expiresAt, oneTime } });
  }

  async use(id: string, expiresAt: number): Promise<boolean> {
    if (this.#used.has(id)) return false;
    await this.#write({ used: id, expiresAt });
    return true;
  }

  isUsed(id: string): boolean {
    return this.#used.has(id);
  }

  async revoke(id: string, sandboxId: string): Promise<boolean> {
    const made = this.list(sandboxId).find((record) => record.id === id);
    if (!made) return false;
    await this.#write({ revoked: id, expiresAt: made.expiresAt });
    return true;
  }

  isRevoked(id: string): boolean {
    return this.#revoked.has(id);
  }

  revokeAll(sandboxId: string): Promise<void> {
    return this.#write({ all: sandboxId, at: this.#now() });
  }

  revokedUntil(sandboxId: string): number | undefined {
    return this.#all.get(sandboxId);
  }

  close(): Promise<void> {
    return this.#lines.close();
  }

  /** In memory at once, so that it counts from now on; a write that fails is the caller's to know. */
  async #write(line: Line): Promise<void> {
    this.#take(line);
    this.#prune();
    await this.#lines.append(line);
    if (this.#lines.count > this.#needed().length + SPARE_LINES) await this.#lines.rewrite(() => this.#needed());
  }

  #take(line: Line): void {
    if ('made' in line) this.#made.set(line.made.id, line.made);
    else if ('used' in line) this.#used.set(line.used, line.expiresAt);
    else if ('revoked' in line) this.#revoked.set(line.revoked, line.expiresAt);
    else if ('all' in line) this.#all.set(line.all, line.at);
  }

  #needed(): Line[] {
    return [
      ...[...this.#made.values()].map((made) => ({ made })),
      ...[...this.#used].map(([used, expiresAt]) => ({ used, expiresAt })),
      ...[...this.#revoked].map(([revoked, expiresAt]) => ({ revoked, expiresAt })),
      ...[...this.#all].map(([all, at]) => ({ all, at })),
    ];
  }

  #prune(): void {
    const now = this.#now();
    for (const [id, { expiresAt }] of this.#made) if (expiresAt < now) this.#made.delete(id);
    for (const marks of [this.#used, this.#revoked]) {
      for (const [id, expiresAt] of marks) if (expiresAt < now) marks.delete(id);
    }
    for (const [id, at] of this.#all) if (at + LONGEST_MS < now) this.#all.delete(id);
  }
}
