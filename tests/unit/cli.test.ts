import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { describe, it } from 'node:test';
import { Failure, failureOf } from '../../src/cli/failure.ts';
import { duration, fields, json, plain, size, table } from '../../src/cli/output.ts';
import { Progress } from '../../src/cli/progress.ts';
import { BerthError, UnreachableError } from '../../src/client/client.ts';

/** A terminal that remembers what it was told. */
function terminal(
  isTTY: boolean,
  columns = 60,
): { shown(): string; stream: Writable & { isTTY: boolean; columns: number } } {
  let text = '';
  const stream = new Writable({
    write(chunk, _, done) {
      text += chunk;
      done();
    },
  });
  return { shown: () => text, stream: Object.assign(stream, { isTTY, columns }) };
}

describe('what berth prints', () => {
  it('puts columns below each other, without spaces at the end of a line', () => {
    assert.equal(
      table(
        ['A', 'LONG'],
        [
          ['bb', ''],
          ['c', 'd'],
        ],
      ),
      'A   LONG\nbb\nc   d\n',
    );
    assert.equal(
      table(['A'], [['x']], (cell) => `<${cell}>`),
      'A\n<x>\n',
    );
    assert.equal(
      fields([
        ['One', '1'],
        ['Second', 'b'],
        ['None', undefined],
        ['Empty', ''],
      ]),
      'One:    1\nSecond: b\n',
    );
  });

  it('takes away what commands a terminal', () => {
    assert.equal(plain('a\u001b[31m\r\n\u009b\u202eb\u0000é'), 'a\ufffd[31m\ufffd\ufffd\ufffd\ufffdb\ufffdé');
    const text = json({ a: 'x\u001b\u009b\u007f\u202e' });
    assert.equal(text, '{"a":"x\\u001b\\u009b\\u007f\\u202e"}');
    assert.deepEqual(JSON.parse(text), { a: 'x\u001b\u009b\u007f\u202e' });
  });

  it('says times and sizes as people do', () => {
    const times = [0, 999, 59_400, 60_000, 3_600_000, 3_661_000, 90_000_000, -5].map(duration);
    assert.deepEqual(times, ['0s', '1s', '59s', '1m', '1h', '1h 1m', '1d 1h', '0s']);
    assert.deepEqual([0, 999, 1000, 123_456, 1e6, 5.5e9, 1e16].map(size), [
      '0 B',
      '999 B',
      '1.0 KB',
      '123 KB',
      '1.0 MB',
      '5.5 GB',
      '10000 TB',
    ]);
  });

  it('shows a bar on a terminal, which goes in the end, and nothing anywhere else', async () => {
    const { shown, stream } = terminal(true);
    const progress = new Progress(stream, 'asking');
    let done = 0;
    progress.transfer('film.mkv', () => done, 1000);
    done = 500;
    await new Promise((resolve) => setTimeout(resolve, 250));
    progress.end();
    assert.match(shown(), /^\rasking 0s/);
    assert.ok(shown().includes('\rfilm.mkv [############------------] 50% 500 B'), shown());
    assert.ok(shown().endsWith('\r\u001b[K'));
    // An estimate that is exceeded, and a length that nobody knows.
    const other = terminal(true);
    const second = new Progress(other.stream, 'x');
    second.transfer('y', () => 2000, 1000);
    await new Promise((resolve) => setTimeout(resolve, 250));
    second.transfer('z', () => 2000, undefined);
    await new Promise((resolve) => setTimeout(resolve, 250));
    second.end();
    assert.match(other.shown(), /\ry \[#{24}\] 100% 2\.0 KB/);
    assert.match(other.shown(), /\rz 2\.0 KB/);
    const pipe = terminal(false);
    const third = new Progress(pipe.stream, 'x');
    third.transfer('y', () => 1, 2);
    third.end();
    assert.equal(pipe.shown(), '');
  });
});

describe('what berth ends with', () => {
  const refused = (status: number, code?: number) =>
    failureOf(new BerthError(status, { error: 'e', message: 'm.', ...(code ? { code, requestId: 'r' } : {}) }));

  it('is the same for the same failure', () => {
    const codes = [400, 422, 401, 403, 404, 410, 429, 409, 500, 503].map((status) => refused(status, 1).exitCode);
    assert.deepEqual(codes, [2, 2, 4, 4, 3, 3, 5, 1, 1, 1]);
    // A proxy whose service is away.
    assert.equal(refused(502).exitCode, 6);
    assert.equal(refused(409, 2002).message, 'm (code 2002, request r).');
  });

  it('tells what is unreachable, and why', () => {
    const from = (code: string, url = 'https://berth.example.com') => {
      const cause = Object.assign(new TypeError('fetch failed'), { cause: Object.assign(new Error('x'), { code }) });
      return failureOf(new UnreachableError(url, cause));
    };
    assert.match(
      from('ECONNREFUSED').message,
      /^Nothing answers at https:\/\/berth\.example\.com \(ECONNREFUSED\); is the address right/,
    );
    assert.match(from('ECONNREFUSED', 'http://localhost:3000').message, /berth serve starts it\.$/);
    assert.match(from('SELF_SIGNED_CERT_IN_CHAIN').message, /certificate .* NODE_EXTRA_CA_CERTS/);
    assert.match(from('ECONNRESET').message, /broke off/);
    assert.equal(from('ENOTFOUND').exitCode, 6);
    assert.deepEqual([failureOf(new Error('a')).exitCode, failureOf(new Error('a')).message], [1, 'a.']);
    const own = new Failure(9, 'own');
    assert.equal(failureOf(own), own);
  });
});
