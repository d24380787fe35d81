import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Attachment } from '../../src/core/presence.ts';
import { Bridge, type ClientSocket } from '../../src/gateway/bridge.ts';

const CLOSE = Buffer.from(JSON.stringify({ id: 7, method: 'Browser.close' }));

const KEPT = 'Browser.close: this sandbox keeps its browser (onBrowserClose)';

/** A client's socket that writes down what it is given, in words. */
function recorder(said: string[]): ClientSocket {
  const note = (what: string) => (data?: unknown) => said.push(`${what} ${data}`) && 1;
  return {
    send: note('whole'),
    sendFirstFragment: note('first'),
    sendFragment: note('more'),
    sendLastFragment: note('last'),
    getBufferedAmount: () => 0,
    cork: (deliver) => deliver(),
    end: (code, reason) => said.push(`end ${code} ${Buffer.from(reason ?? []).toString()}`),
    close: () => {},
  };
}

function bridgeTo(said: string[]): Bridge {
  const attachment = { active() {}, detach() {}, closeBrowser: () => 'keep' } as unknown as Attachment;
  const source = { start() {}, send: () => assert.fail('the browser heard of it'), queued: 0, close() {} };
  const bridge = new Bridge(source as never, attachment, { in: 0, out: 0 });
  bridge.open(recorder(said));
  return bridge;
}

describe('The end of a connection', () => {
  it('tells the client a reason that is too long as far as whole characters go', () => {
    const said: string[] = [];
    const bridge = bridgeTo(said);
    bridge.end(1011, 'é'.repeat(200));
    assert.deepEqual(said, [`end 1011 ${'é'.repeat(61)}`]);
  });
});

describe('Browser.close with onBrowserClose "keep"', () => {
  it('is answered at once between two messages', () => {
    const said: string[] = [];
    const bridge = bridgeTo(said);
    bridge.chunk(Buffer.from('a'), false, true, true);
    bridge.onMessage(new Uint8Array(CLOSE).buffer, false);
    assert.deepEqual(said, ['whole a', 'whole {"id":7,"result":{}}', `end 1000 ${KEPT}`]);
  });

  it('is answered after a message that is on its way, whose fragments nothing may divide', () => {
    const said: string[] = [];
    const bridge = bridgeTo(said);
    bridge.chunk(Buffer.from('a'), false, true, false);
    bridge.onMessage(new Uint8Array(CLOSE).buffer, false);
    bridge.chunk(Buffer.from('b'), false, false, false);
    bridge.chunk(Buffer.from('c'), false, false, true);
    assert.deepEqual(said, ['first a', 'more b', 'last c', 'whole {"id":7,"result":{}}', `end 1000 ${KEPT}`]);
  });
});
