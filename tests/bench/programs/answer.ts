/** The other end of a helper program: it says that it is ready, answers what it is asked, and ends with whoever started it. */

/** What it was started with. */
export const args = JSON.parse(process.argv[2] ?? '[]');

/** Serves until the one who asks has gone. */
export function serve<Request>(ready: object, answer: (request: Request) => Promise<object> = async () => ({})): void {
  process.once('disconnect', () => process.exit());
  process.on('message', (request: Request) => {
    answer(request).then(
      (result) => process.send?.(result),
      (err: unknown) => process.send?.({ failed: err instanceof Error ? String(err.stack) : String(err) }),
    );
  });
  process.send?.(ready);
}
