import type { Egress } from '../../src/core/contracts.ts';
import type { SandboxSpec } from '../../src/core/sandbox.ts';

/** Writes down which ways out are open, and opens none. */
export class EgressBook implements Egress {
  readonly open_ = new Map<string, SandboxSpec>();

  async open(socket: string, spec: SandboxSpec): Promise<void> {
    this.open_.set(socket, spec);
  }

  async close(socket: string): Promise<void> {
    this.open_.delete(socket);
  }

  /** Whose they are. */
  get ids(): string[] {
    return [...this.open_.values()].map(({ id }) => id);
  }
}
