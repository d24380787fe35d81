/** Runs a file of tests/e2e once more, as it stands, on the front that serves where uWebSockets.js does not load. */
export async function again(load: () => Promise<unknown>): Promise<void> {
  // Read by tests/e2e/drivers.ts, which the file brings along.
  process.env.BERTH_TEST_FRONT = 'ws';
  await load();
}
