import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { VIEW_ONLY_PASSWORD } from '../../src/core/view-only.ts';
import { VncLogin } from '../../src/gateway/vnc-login.ts';

const BANNER = Buffer.from('RFB 003.008\n');
const OK = Buffer.alloc(4);
const CHALLENGE = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');
/** What noVNC answers to it with the password "viewonly" (its core/crypto/des.js). */
const RESPONSE = '4a53bc86c566cb1976711c7f11d50838';

/** What is said to a server that says this, in pieces of so many bytes. */
function said(login: VncLogin, server: Buffer, size: number): Buffer {
  const answers: Buffer[] = [];
  for (let at = 0; at < server.length; at += size) answers.push(login.answer(server.subarray(at, at + size)));
  return Buffer.concat(answers);
}

describe('The login at the VNC server', () => {
  for (const size of [1, 3, 100]) {
    it(`without a password for who may control, ${size} bytes at a time`, () => {
      const login = new VncLogin(false);
      assert.deepEqual(
        said(login, Buffer.concat([BANNER, Buffer.of(2, 1, 2), OK]), size),
        Buffer.concat([BANNER, Buffer.of(1)]),
      );
      assert.ok(login.done);
    });

    it(`with the password for who only looks, ${size} bytes at a time`, () => {
      const login = new VncLogin(true);
      const answers = said(login, Buffer.concat([BANNER, Buffer.of(2, 1, 2), CHALLENGE, OK]), size);
      assert.deepEqual(answers.subarray(0, 13), Buffer.concat([BANNER, Buffer.of(2)]));
      assert.equal(answers.subarray(13).toString('hex'), RESPONSE);
      assert.ok(login.done);
    });
  }

  it('without one where the server of an older sandbox has none', () => {
    const login = new VncLogin(true);
    said(login, Buffer.concat([BANNER, Buffer.of(1, 1), OK]), 100);
    assert.ok(login.done);
  });

  it('the password has the eight bytes that DES takes', () => assert.equal(VIEW_ONLY_PASSWORD.length, 8));

  for (const [what, server, why] of [
    ['speaks something else', Buffer.from('HTTP/1.1 400'), /RFB 3\.8/],
    ['speaks an older RFB', Buffer.from('RFB 003.003\n'), /RFB 3\.8/],
    ['has no security type', Buffer.concat([BANNER, Buffer.of(0)]), /refuses all/],
    ['refuses', Buffer.concat([BANNER, Buffer.of(1, 1, 0, 0, 0, 1)]), /refuses the login/],
  ] as const) {
    it(`fails when the server ${what}`, () => assert.throws(() => said(new VncLogin(false), server, 100), why));
  }
});
