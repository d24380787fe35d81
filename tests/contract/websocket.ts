import { after, before, describe } from 'node:test';
import { closing, masks, reservedBits, reservedOpcodes } from './websocket-control.ts';
import { conversations } from './websocket-fuzz.ts';
import { Harness, type OpenFront } from './websocket-gateway.ts';
import { handshakes } from './websocket-handshake.ts';
import type { Quirks, Suite } from './websocket-legs.ts';
import { fragmentation, framing, pings, utf8 } from './websocket-messages.ts';

/**
 * What a front owes to RFC 6455, after the sections of the Autobahn TestSuite. Where the libraries that read the client's
 * frames differ, a case asserts what is common to them; where one of them is wrong, its quirks say so.
 */
export function describeWebSocket(name: string, openFront: OpenFront, quirks: Quirks = {}): void {
  describe(`WebSockets through ${name}`, { timeout: 120_000 }, () => {
    let harness: Harness;
    before(async () => {
      harness = await Harness.open(openFront);
    });
    after(() => harness.close());
    const suite: Suite = { harness: () => harness, quirks };

    describe('1 framing', () => framing(suite));
    describe('2 pings and pongs', () => pings(suite));
    describe('3 reserved bits', () => reservedBits(suite));
    describe('4 reserved opcodes', () => reservedOpcodes(suite));
    describe('5 fragmentation', () => fragmentation(suite));
    describe('6 UTF-8', () => utf8(suite));
    describe('7 closing', () => closing(suite));
    describe('8 masks', () => masks(suite));
    describe('9 random conversations', () => conversations(suite));
    describe('10 the handshake with the browser', () => handshakes(suite));
  });
}
