import { DEFAULTS, type SandboxSpec, type SandboxStatus } from '../../src/core/sandbox.ts';

/** What a runtime says of a sandbox with which nothing has happened yet. */
export const STATUS: SandboxStatus = {
  state: 'READY',
  changes: {},
  idleDeadline: null,
  expiresAt: 1,
  clients: 0,
  viewers: 0,
  recorder: { state: 'off' },
  browserRestarts: 0,
  stages: {},
};

/** A sandbox that asks for nothing special. */
export function spec(over: Partial<SandboxSpec> = {}): SandboxSpec {
  return { id: 'mine', owner: 'me', templateName: 'default', createdAt: 1, ...DEFAULTS, metadata: {}, ...over };
}
