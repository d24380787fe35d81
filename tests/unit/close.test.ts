import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { browserCloseIn } from '../../src/gateway/close.ts';

function found(text: string | Buffer): unknown {
  const bytes = Buffer.from(text);
  return browserCloseIn(bytes);
}

describe('browserCloseIn', () => {
  it('knows the call, however it is written', () => {
    assert.deepEqual(found('{"id":7,"method":"Browser.close"}'), { id: 7 });
    assert.deepEqual(found('{ "method" : "Browser.close", "params": {}, "id": 0, "sessionId": "A1" }'), {
      id: 0,
      sessionId: 'A1',
    });
  });

  it('takes nothing else for it', () => {
    for (const text of [
      '{"id":1,"method":"Browser.getVersion"}',
      '{"id":1,"method":"Runtime.evaluate","params":{"expression":"\\"Browser.close\\""}}',
      '{"id":1,"method":"Runtime.evaluate","params":{"method":"Browser.close"}}',
      '{"id":"1","method":"Browser.close"}',
      '{"method":"Browser.close"}',
      '"Browser.close"',
      '["Browser.close"]',
      'null "Browser.close"',
      '{"id":1,"method":"Browser.close"',
      `{"id":1,"method":"Browser.close","params":{"x":"${'x'.repeat(600)}"}}`,
      '',
      Buffer.from([0xff, 0xfe, ...Buffer.from('"Browser.close"')]),
    ]) {
      assert.equal(found(text), undefined, String(text));
    }
  });
});
