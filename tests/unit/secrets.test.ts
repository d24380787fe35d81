import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { Vault } from '../../src/core/secrets.ts';

describe('a vault', () => {
  const master = randomBytes(32);
  const vault = new Vault(master);

  it('gives back what was sealed, and the same text looks different each time', () => {
    for (const text of ['', 'pa55', 'Grüße 你好 😀', 'x'.repeat(100_000)]) {
      const [one, other] = [vault.seal(text, 'a'), vault.seal(text, 'a')];
      assert.match(one, /^sealed:[A-Za-z0-9_-]+$/);
      assert.notEqual(one, other);
      assert.equal(new Vault(master).open(one, 'a'), text);
    }
    assert.ok(!vault.seal('pa55word', 'a').includes(Buffer.from('pa55word').toString('base64url').slice(0, 8)));
  });

  it('opens nothing under another key, for another purpose, or that was changed', () => {
    const sealed = vault.seal('pa55', 'egress:s1');
    assert.throws(() => new Vault(randomBytes(32)).open(sealed, 'egress:s1'));
    assert.throws(() => vault.open(sealed, 'egress:s2'));
    const bytes = Buffer.from(sealed.slice('sealed:'.length), 'base64url');
    for (let i = 0; i < bytes.length; i++) {
      const changed = Buffer.from(bytes);
      changed[i] = (changed[i] ?? 0) ^ 1;
      assert.throws(() => vault.open(`sealed:${changed.toString('base64url')}`, 'egress:s1'), `byte ${i}`);
    }
    for (const bad of ['', 'sealed:', 'pa55', 'sealed:AAAA', sealed.slice('sealed:'.length)]) {
      assert.throws(() => vault.open(bad, 'egress:s1'), bad);
    }
  });
});
