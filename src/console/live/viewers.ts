import type { components } from '../../client/schema.ts';
import { ask, http } from '../api.ts';
import type { ScreenConnection } from './connection.ts';

/** Who sees a screen, and how control of it is shared. */
export type Viewers = components['schemas']['ViewersAnswer']['data'];

/** Throws Failure. */
export async function viewersOf({ sandboxId, ticket }: ScreenConnection): Promise<Viewers> {
  const query = ticket === undefined ? {} : { ticket };
  return (await ask(http.GET('/sandboxes/{id}/viewers', { params: { path: { id: sandboxId }, query } }))).data;
}

/** Takes control for this page, or gives back what it has. Throws Failure, as when somebody else has it. */
export async function changeControl(connection: ScreenConnection, take: boolean): Promise<Viewers> {
  const { sandboxId: id, viewerId, ticket } = connection;
  const params = { path: { id, viewerId }, query: ticket === undefined ? {} : { ticket } };
  const path = '/sandboxes/{id}/viewers/{viewerId}/control';
  return (await ask(take ? http.POST(path, { params }) : http.DELETE(path, { params }))).data;
}
