import { addressOf, failureOf } from '../api.ts';

/** Where Chromium's own inspector shows this page. Throws Failure. */
export async function devToolsAddress(sandboxId: string, page: string): Promise<string> {
  const response = await fetch(addressOf(`/sandboxes/${sandboxId}/json/list`));
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw failureOf(response, body);
  const target = (body as { id: string; devtoolsFrontendUrl?: string }[]).find(({ id }) => id === page);
  if (!target?.devtoolsFrontendUrl) throw new Error('The page has gone meanwhile.');
  return new URL(target.devtoolsFrontendUrl, location.href).href;
}
