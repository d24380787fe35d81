import { Readable } from 'node:stream';

/**
 * A byte stream of what the generator yields, made no faster than it is read. `stop` fires when the stream is done with, also in
 * the middle: the generator has to end what it waits for then, since it can hear of that in no other way.
 */
export function generated(chunks: AsyncGenerator<Buffer, void>, stop: AbortController): Readable {
  return new Readable({
    read() {
      chunks.next().then(
        ({ done, value }) => this.push(done ? null : value),
        (err) => this.destroy(err),
      );
    },
    destroy(err, done) {
      stop.abort();
      const finish = (): void => done(err);
      chunks.return().then(finish, finish);
    },
  });
}
