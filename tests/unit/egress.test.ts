import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  assertEgress,
  EgressList,
  EgressRules,
  hostOf,
  type OperatorRules,
  plain,
  sealedEgress,
} from '../../src/core/egress.ts';

const OWN = new Set(['198.18.7.7', '93.184.216.99', '2a00:1450::99']);

function operator(allow: string[] = [], deny: string[] = []): OperatorRules {
  const doors = [
    { port: 3000, hosts: [] },
    { port: 443, hosts: ['berth.example.com'] },
  ];
  return { allow: new EgressList(allow), deny: new EgressList(deny), doors, own: () => OWN };
}

/** As the proxy asks: the host in its usual form, and the address that it led to; of a literal itself. */
function asked(rules: EgressRules, host: string, address: string, port = 80): string {
  return rules.refuses(hostOf(host) ?? assert.fail(host), port, address) ?? 'open';
}

describe('by default', () => {
  const rules = new EgressRules(operator(), {});
  const PRIVATE = [
    ...['0.0.0.0', '0.1.2.3', '10.0.0.1', '10.255.255.255', '100.64.0.1', '100.127.255.255', '100.100.100.200'],
    ...['127.0.0.1', '127.255.255.254', '169.254.169.254', '169.254.170.2', '172.16.0.1', '172.31.255.255'],
    ...['192.0.0.192', '192.0.2.1', '192.88.99.1', '192.168.0.1', '198.18.0.1', '198.51.100.1', '203.0.113.9'],
    ...['224.0.0.1', '239.255.255.255', '240.0.0.1', '255.255.255.255', '168.63.129.16'],
    ...['::', '::1', '::2', 'fe80::1', 'fe80::1%eth0', 'febf::1', 'fec0::1', 'fc00::1', 'fd00:ec2::254', 'ff02::1'],
    ...['100::1', '2001::1', '2001:db8::1', '2002:7f00:1::', '3fff::1', '5f00::1', '4000::1', '8000::1'],
    // The IPv4 address inside counts.
    ...['::ffff:127.0.0.1', '::ffff:7f00:1', '::ffff:169.254.169.254', '::FFFF:10.0.0.1', '0:0:0:0:0:ffff:7f00:1'],
    ...['64:ff9b::127.0.0.1', '64:ff9b::a9fe:a9fe', '64:ff9b::', '64:ff9b:1::1', '::7f00:1', '::127.0.0.1'],
    // Ours, though public.
    ...['93.184.216.99', '::ffff:93.184.216.99', '2a00:1450::99', '2a00:1450:0:0::99'],
  ];
  for (const address of PRIVATE) {
    it(`closes ${address}`, () => {
      assert.equal(asked(rules, 'evil.example', address), 'private');
      if (!address.includes('%')) assert.equal(asked(rules, address, address), 'private');
    });
  }

  for (const address of ['1.1.1.1', '93.184.216.34', '172.15.0.1', '172.32.0.1', '100.63.255.255', '100.128.0.1']) {
    it(`leaves ${address} open`, () => assert.equal(asked(rules, address, address), 'open'));
  }
  for (const address of ['2606:4700::1111', '2a00:1450::98', '::ffff:1.1.1.1', '64:ff9b::1.1.1.1', '2001:4860::8888']) {
    it(`leaves ${address} open`, () => assert.equal(asked(rules, address, address), 'open'));
  }

  it("closes Berth's own port before anything else is said, and its name", () => {
    assert.equal(asked(rules, 'localhost', '127.0.0.1', 3000), 'berth');
    assert.equal(asked(rules, '[::1]', '::1', 3000), 'berth');
    assert.equal(asked(rules, '0.0.0.0', '0.0.0.0', 3000), 'berth');
    assert.equal(asked(rules, 'me.example', '93.184.216.99', 3000), 'berth');
    assert.equal(asked(rules, 'BERTH.example.com.', '1.1.1.1', 443), 'berth');
    assert.equal(asked(rules, 'other.example', '1.1.1.1', 3000), 'open');
  });
});

describe('what the operator says', () => {
  it('opens private space by address and by name, and never Berth itself', () => {
    const rules = new EgressRules(
      operator(['127.0.0.0/8', '::1', '10.1.0.0/16', '*.corp.example', 'wiki.example']),
      {},
    );
    assert.equal(asked(rules, 'x.example', '10.1.2.3'), 'open');
    assert.equal(asked(rules, 'x.example', '::ffff:10.1.2.3'), 'open');
    assert.equal(asked(rules, 'x.example', '10.2.2.3'), 'private');
    assert.equal(asked(rules, 'a.corp.example', '10.2.2.3'), 'open');
    assert.equal(asked(rules, 'corp.example', '10.2.2.3'), 'private', 'a star stands for what is below');
    assert.equal(asked(rules, 'xcorp.example', '10.2.2.3'), 'private');
    assert.equal(asked(rules, 'WIKI.example.', '192.168.1.1'), 'open');
    assert.equal(asked(rules, '127.0.0.1', '127.0.0.1', 8080), 'open');
    for (const own of ['127.0.0.1', '127.8.8.8', '::1', '::ffff:127.0.0.1']) {
      assert.equal(asked(rules, own, own, 3000), 'berth');
    }
  });

  it('closes whatever else is said', () => {
    const rules = new EgressRules(operator(['10.0.0.0/8'], ['10.6.6.6', '2606:4700::/32', '*.bad.example']), {
      allow: ['10.6.6.6', 'a.bad.example', '2606:4700::1'],
    });
    assert.equal(asked(rules, '10.6.6.6', '10.6.6.6'), 'operator');
    assert.equal(asked(rules, 'x.example', '2606:4700::1'), 'operator');
    assert.equal(asked(rules, 'a.bad.example', '1.1.1.1'), 'operator');
  });
});

describe("a sandbox's own lists", () => {
  it('narrow what is open, and never widen it', () => {
    const rules = new EgressRules(operator(), { allow: ['example.com', '*.example.com', '1.1.1.0/24', '10.0.0.1'] });
    assert.equal(asked(rules, 'example.com', '93.184.216.34'), 'open');
    assert.equal(asked(rules, 'a.b.example.com', '93.184.216.34'), 'open');
    assert.equal(asked(rules, 'one.one', '1.1.1.1'), 'open');
    assert.equal(asked(rules, 'example.org', '93.184.216.34'), 'allow');
    assert.equal(asked(rules, 'example.com.evil.org', '93.184.216.34'), 'allow');
    assert.equal(asked(rules, '10.0.0.1', '10.0.0.1'), 'private');
    assert.equal(asked(rules, 'example.com', '127.0.0.1'), 'private', 'a name that is allowed, but leads to us');
  });

  it('let deny win, by name and by address', () => {
    const rules = new EgressRules(operator(), {
      allow: ['*.example.com', '1.0.0.0/8'],
      deny: ['ads.example.com', '1.2.3.4'],
    });
    assert.equal(asked(rules, 'ads.example.com', '93.184.216.34'), 'deny');
    assert.equal(asked(rules, 'www.example.com', '1.2.3.4'), 'deny');
    assert.equal(asked(rules, 'www.example.com', '1.2.3.5'), 'open');
  });

  it('allow nothing when there is nothing on the list', () => {
    assert.equal(asked(new EgressRules(operator(), { allow: [] }), 'example.com', '1.1.1.1'), 'allow');
  });

  it('look at names alone where somebody else resolves them', () => {
    const rules = new EgressRules(operator([], ['bad.example']), { allow: ['*.example'], deny: ['no.example'] });
    const named = (host: string): string => rules.refuses(host, 443, undefined) ?? 'open';
    assert.deepEqual(['yes.example', 'no.example', 'bad.example', 'x.org'].map(named), [
      'open',
      'deny',
      'operator',
      'allow',
    ]);
  });
});

describe('hosts', () => {
  const FORMS: Readonly<Record<string, string | undefined>> = {
    'Example.COM.': 'example.com',
    '127.1': '127.0.0.1',
    '2130706433': '127.0.0.1',
    '0x7f000001': '127.0.0.1',
    '0x7f.1': '127.0.0.1',
    '017700000001': '127.0.0.1',
    '127.0.0.1.': '127.0.0.1',
    '①②⑦.0.0.1': '127.0.0.1',
    '127。0。0。1': '127.0.0.1',
    '%31%32%37.0.0.1': '127.0.0.1',
    LOCALHOST: 'localhost',
    '[::FFFF:127.0.0.1]': '::ffff:7f00:1',
    '::1': '::1',
    'bücher.example': 'xn--bcher-kva.example',
    '': undefined,
    'a b': undefined,
    'user@host': undefined,
    'host:80': undefined,
    'host/path': undefined,
    'host?x': undefined,
    '[::1': undefined,
    '256.1.1.1': undefined,
    '.': undefined,
  };
  for (const [text, host] of Object.entries(FORMS)) {
    it(`${JSON.stringify(text)} is ${host ?? 'none'}`, () => assert.equal(hostOf(text), host));
  }

  it('of addresses only what is inside counts', () => {
    assert.equal(plain('::ffff:0.0.0.0'), '0.0.0.0');
    assert.equal(plain('64:ff9b::1'), '0.0.0.1');
    assert.equal(plain('fe80::1%eth0'), 'fe80::1');
    assert.equal(plain('2606:4700:0:0::1111'), '2606:4700::1111');
  });
});

describe('lists', () => {
  for (const entry of [
    '',
    '*',
    '*.',
    '*.*.example.com',
    'a b',
    '-a.example',
    'http://example.com',
    'example.com:80',
    '10.0.0.0/33',
    '::/129',
    '10.0.0/8',
    '0x7f.1/8',
    'user@example.com',
    'a..b',
    `${'x'.repeat(64)}.example`,
  ]) {
    it(`refuse ${JSON.stringify(entry)}`, () => assert.throws(() => new EgressList([entry]), /is no host/));
  }

  it('want the IPv4 address itself, not the IPv6 one around it', () => {
    for (const entry of ['::ffff:10.0.0.1', '::ffff:0:0/96', '64:ff9b::a00:1']) {
      assert.throws(() => new EgressList([entry]), /written as IPv4/);
    }
    new EgressList(['::/0', '::1']);
  });

  it('take an address in an odd form only as what it is', () => {
    assert.throws(() => new EgressList(['0x7f.1']), /is no host/);
    assert.throws(() => new EgressList(['2130706433']), /is no host/);
  });
});

describe('what a create says', () => {
  const refused = (egress: object): string => {
    try {
      assertEgress(egress);
    } catch (err) {
      return (err as Error).message;
    }
    return assert.fail('it was taken');
  };

  it('is refused with the field that is wrong', () => {
    assert.match(refused({ allow: ['example.com', 'a b'] }), /^egress\.allow\.1: "a b" is no host/);
    assert.match(refused({ deny: ['10.0.0.0/64'] }), /^egress\.deny\.0: /);
  });

  it('is refused without a word of its password', () => {
    for (const url of [
      'http://u:hunter2@p.example:1',
      'ftp://hunter2',
      'hunter2',
      'http://p.example/hunter2',
      'socks4://hunter2',
      'http://p.example?hunter2',
    ]) {
      const said = refused({ proxy: { url } });
      assert.match(said, /^egress\.proxy\.url: must/);
      assert.ok(!said.includes('hunter2'), said);
    }
    assert.match(
      refused({ proxy: { url: 'http://p.example', password: 'hunter2' } }),
      /^egress\.proxy\.username: is missing$/,
    );
    assert.match(refused({ proxy: { url: 'http://p.example', username: 'a:b' } }), /no colon/);
  });

  it('is kept with the credentials sealed for this sandbox', () => {
    const seal = (text: string, context: string): string => `sealed:${context}:${Buffer.from(text).toString('hex')}`;
    const proxy = { url: 'http://p.example:3128', username: 'u', password: 'hunter2' };
    const kept = sealedEgress({ allow: ['a.example'], proxy }, 'box', seal);
    assert.deepEqual(kept.allow, ['a.example']);
    assert.equal(kept.proxy?.url, proxy.url);
    assert.match(kept.proxy?.credentials ?? '', /^sealed:egress:box:/);
    assert.ok(!JSON.stringify(kept).includes('hunter2'));
  });
});
