/** Who may look and who may do: view-only and exclusive control, on the real TigerVNC and Chromium. */
import assert from 'node:assert/strict';
import { lstatSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import type { Sandbox } from '../../src/client/client.ts';
import { VncLogin } from '../../src/gateway/vnc-login.ts';
import { type Site, serveSite } from './drivers.ts';
import { FENCES, fence, Hands, hasClipboard, messages, Rfb } from './rfb.ts';
import { LIMIT, type Service, startService, waitFor } from './service.ts';

const [OWNER, EYE] = ['owner-key-0123456789', 'eye-key-0123456789ab'];
const [SHIFT, CONTROL] = [0xffe1, 0xffe3];
const [A, X, B, Z] = ['A', 'X', 'b', 'z'].map((letter) => letter.charCodeAt(0)) as [number, number, number, number];
/** In the page, far from its edges. */
const MIDDLE = [640, 400] as const;

/** Writes down all that a person could do to it. */
const PAGE = `<!doctype html><title>hands</title><style>body { margin: 0 } textarea { width: 100vw; height: 95vh }</style>
<textarea autofocus></textarea>
<script>
  seen = [];
  for (const type of ['keydown', 'keyup', 'mousedown', 'mouseup', 'mousemove', 'wheel', 'copy', 'paste', 'resize'])
    addEventListener(type, (e) => seen.push(type + (e.key ? ' ' + e.key : '')), true);
</script>`;

let service: Service;
let site: Site;
let box: Sandbox;
let driver: Browser;
let page: Page;

before(async () => {
  site = await serveSite((_req, res) => void res.setHeader('content-type', 'text/html').end(PAGE));
  service = await startService({
    apiKey: OWNER,
    env: { BERTH_API_KEYS: `team:${OWNER}:user,team:${EYE}:viewer,others:others-key-0123456789:user` },
  });
  box = await service.client.create({ onBrowserClose: 'terminate' });
  driver = await puppeteer.connect({ browserWSEndpoint: box.cdpUrl as string, defaultViewport: null });
  page = (await driver.pages())[0] ?? (await driver.newPage());
  await page.goto(site.url);
}, LIMIT);

after(async () => {
  await driver?.disconnect();
  site?.close();
  await service.end();
}, LIMIT);

/** The livestream with a key. */
function stream(key = OWNER, query = ''): string {
  return `${service.url.replace(/^http/, 'ws')}/sandboxes/${box.sandboxId}/ws/livestream?token=${key}${query}`;
}

/** Whoever has come in this case. */
const here: Hands[] = [];

async function open(url: string, before?: Buffer): Promise<Hands> {
  const hands = await Hands.open(url, before);
  here.push(hands);
  return hands;
}

// A case that fails must not cost the others.
afterEach(() => leave(...here.splice(0)), LIMIT);

async function leave(...all: Hands[]): Promise<void> {
  for (const { rfb } of all) rfb.close();
  for (const { rfb } of all) await rfb.closed;
}

/** The livestream with a ticket of this role. */
async function ticketFor(role: 'view' | 'control'): Promise<string> {
  const res = await fetch(`${service.url}/sandboxes/${box.sandboxId}/tickets`, {
    method: 'POST',
    headers: { 'x-api-key': OWNER, 'content-type': 'application/json' },
    body: JSON.stringify({ role }),
  });
  return ((await res.json()) as { data: { url: string } }).data.url;
}

/** What has happened in the page since it was last asked. */
async function seen(): Promise<string[]> {
  return (await page.evaluate('seen.splice(0)')) as string[];
}

/** Has a viewer that controls type a letter, and answers what the page saw up to its being released. */
async function seenUntilTyped(by: Hands, letter: number): Promise<string[]> {
  const name = String.fromCharCode(letter);
  const all: string[] = [];
  by.type(letter);
  await waitFor(
    async () => {
      all.push(...(await seen()));
      return all.includes(`keyup ${name}`);
    },
    () => `the page to see ${name}; it saw ${all.join(', ')}`,
  );
  return all;
}

/** Clicks into the page until it takes it; Chromium drops what comes before it has painted a page. */
async function takeFocus(by: Hands): Promise<void> {
  await waitFor(async () => {
    by.click(...MIDDLE);
    await by.settled();
    return (await seen()).includes('mouseup');
  }, 'the page to see a click');
  await seenUntilTyped(by, Z);
}

const TYPED = (letter: string): string[] => [`keydown ${letter}`, `keyup ${letter}`];

async function call(method: string, path: string, auth: { key?: string; ticket?: string } = { key: OWNER }) {
  const url = `${service.url}/sandboxes/${box.sandboxId}/viewers${path}${auth.ticket ? `?ticket=${auth.ticket}` : ''}`;
  const res = await fetch(url, { method, headers: auth.key ? { 'x-api-key': auth.key } : {} });
  const body = (await res.json()) as { code: unknown; data?: { control: string; viewers: Listed[] } };
  return { status: res.status, ...body };
}

interface Listed {
  readonly viewerId: string;
  readonly role: string;
  readonly controls: boolean;
}

/** `a* b`: who is there, and who of them controls. */
async function who(): Promise<string> {
  const { data } = await call('GET', '');
  return (data?.viewers ?? []).map(({ viewerId, controls }) => `${viewerId}${controls ? '*' : ''}`).join(' ');
}

/** All there is to do to a desktop, as bytes. */
const DEEDS = [
  messages.key(B, true),
  messages.key(B, false),
  messages.qemuKey(B, 0x30, true),
  messages.qemuKey(B, 0x30, false),
  ...[0, 1, 0, 8, 0].map((mask) => messages.pointer(mask, 300, 300)),
  messages.cutText('stolen'),
  messages.key(CONTROL, true), // Ctrl+V
  messages.key(0x76, true),
  messages.key(0x76, false),
  messages.key(CONTROL, false),
  messages.desktopSize(640, 480),
];

/** Where TigerVNC listens, among the sockets of the sandbox. */
async function vncSocket(): Promise<string> {
  for (const name of readdirSync(service.runDir, { recursive: true }) as string[]) {
    const path = join(service.runDir, name);
    if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) continue;
    const probe = connect(path);
    const greeting = await new Promise<string>((resolve) => {
      probe.once('data', (data) => resolve(data.toString('latin1')));
      probe.once('error', () => resolve(''));
      probe.setTimeout(1000, () => resolve(''));
    });
    probe.destroy();
    if (greeting.startsWith('RFB ')) return path;
  }
  assert.fail('no VNC server');
}

describe('Who only looks', () => {
  let controller: Hands;

  before(async () => {
    controller = await Hands.open(stream());
    await takeFocus(controller);
  }, LIMIT);

  after(() => controller?.rfb.close());

  for (const [name, url] of [
    ['a key of the role viewer', async () => stream(EYE)],
    ['?view_only=true', async () => stream(OWNER, '&view_only=true')],
    ['a view ticket', () => ticketFor('view')],
  ] as const) {
    describe(name, () => {
      it('sees the screen', LIMIT, async () => {
        const viewer = await open(await url());
        await viewer.settled();
      });

      it('types, points, pastes and resizes, and nothing arrives; a controller’s hand does', LIMIT, async () => {
        const viewer = await open(await url());
        for (const deed of DEEDS) viewer.rfb.write(deed);
        for (const deed of DEEDS) for (const byte of deed) viewer.rfb.write(Buffer.of(byte));
        viewer.rfb.write(Buffer.concat(DEEDS));
        await viewer.settled();
        assert.deepEqual(await seenUntilTyped(controller, Z), TYPED('z'));
      });

      it('nor does what comes before the handshake has ended', LIMIT, async () => {
        const viewer = await open(await url(), Buffer.concat(DEEDS));
        await viewer.settled();
        assert.deepEqual(await seenUntilTyped(controller, Z), TYPED('z'));
      });

      it('what is no message of RFB ends the connection with a reason', LIMIT, async () => {
        const viewer = await open(await url());
        viewer.rfb.write(Buffer.concat([Buffer.of(250, 0, 1, 2), ...DEEDS]));
        assert.deepEqual(await viewer.rfb.closed, {
          code: 1008,
          reason: 'RFB: messages of type 250 are not taken here',
        });
        assert.deepEqual(await seenUntilTyped(controller, Z), TYPED('z'));
      });

      it('nor is what CDP would call the end of the browser', LIMIT, async () => {
        const viewer = await open(await url());
        viewer.rfb.write('{"id":1,"method":"Browser.close"}');
        assert.equal((await viewer.rfb.closed).code, 1008);
        assert.equal((await service.client.get(box.sandboxId)).status, 'READY');
        assert.deepEqual(await seenUntilTyped(controller, Z), TYPED('z'));
      });
    });
  }

  it('TigerVNC takes nothing from it either, were the gateway to let it through', LIMIT, async () => {
    for (const viewOnly of [true, false]) {
      const socket = connect(await vncSocket());
      const login = new VncLogin(viewOnly);
      const read = socket[Symbol.asyncIterator]();
      const heard = async (): Promise<Buffer> => (await read.next()).value as Buffer;
      while (!login.done) socket.write(login.answer(await heard()));
      // Without the last one, whose answer it would have to be able to read.
      socket.write(Buffer.concat([Buffer.of(1), FENCES, ...DEEDS.slice(0, -1), fence(7)]));
      // The answer to our own fence is the last thing it says.
      for (let said = Buffer.alloc(0); !said.subarray(-2).equals(Buffer.of(1, 7)); ) {
        said = Buffer.concat([said, await heard()]);
      }
      const all = await seenUntilTyped(controller, Z);
      if (viewOnly) assert.deepEqual(all, TYPED('z'));
      else assert.ok(all.includes('keydown b'), 'this would show what arrives');
      socket.destroy();
    }
  });

  it('the same deeds of who may control do arrive', LIMIT, async () => {
    const hands = await open(stream());
    for (const deed of DEEDS) hands.rfb.write(deed);
    await hands.settled();
    const all = await seenUntilTyped(controller, Z);
    for (const wanted of ['keydown b', 'mousedown', 'mouseup', 'wheel', 'keydown v']) {
      assert.ok(all.includes(wanted), `${wanted} is missing in ${all.join(', ')}`);
    }
  });

  it(
    'hears nothing of the clipboard; who may control hears what is copied, not what is only marked',
    LIMIT,
    async () => {
      const [hands, viewer] = [await open(stream()), await open(stream(EYE))];
      const withControl = (letter: string): void => {
        hands.key(CONTROL, true);
        hands.type(letter.charCodeAt(0));
        hands.key(CONTROL, false);
      };
      const text = 'document.querySelector("textarea")';
      await page.evaluate(`${text}.value = "marked"`);
      withControl('a');
      await waitFor(
        async () => (await page.evaluate('getSelection().toString()')) === 'marked',
        'the text to be marked',
      );
      await page.evaluate(`${text}.value = "a secret"; ${text}.select()`);
      // A copy needs a key that a person has pressed.
      withControl('c');
      await waitFor(async () => (await seen()).includes('copy'), 'the page to see a copy');
      if (hasClipboard(service.driver)) await waitFor(() => hands.clipboard.length > 0, 'the clipboard');
      await hands.settled();
      assert.deepEqual(hands.clipboard, hasClipboard(service.driver) ? ['a secret'] : []);
      await viewer.settled();
      assert.deepEqual(viewer.clipboard, []);
      await page.evaluate(`${text}.value = ""`);
      await seen();
    },
  );

  it('a name for a viewer that cannot be one is refused', LIMIT, async () => {
    await assert.rejects(Rfb.open(stream(OWNER, `&viewer=${'x'.repeat(65)}`)), /400/);
  });
});

describe('Exclusive control', () => {
  let a: Hands;
  let b: Hands;

  before(async () => {
    await waitFor(async () => (await who()) === '', 'the viewers of before to be gone');
    await patch('exclusive');
  }, LIMIT);

  beforeEach(async () => {
    await waitFor(async () => (await who()) === '', 'the viewers of the case before to be gone');
    a = await open(stream(OWNER, '&viewer=a'));
    b = await open(stream(OWNER, '&viewer=b'));
    await takeFocus(a);
  }, LIMIT);

  async function patch(control: 'exclusive' | 'collaborative'): Promise<void> {
    const answer = await service.client.http.PATCH('/sandboxes/{id}', {
      params: { path: { id: box.sandboxId } },
      body: { control },
    });
    assert.equal(answer.data?.data.control, control);
  }

  it('is the first one’s, and goes to another with keys and buttons released', LIMIT, async () => {
    assert.equal(await who(), 'a* b');
    for (const deed of DEEDS) b.rfb.write(deed);
    await b.settled();
    a.key(SHIFT, true);
    a.key(X, true);
    a.rfb.write(messages.qemuKey(A, 0x1e, true));
    a.pointer(1, ...MIDDLE);
    const down: string[] = [];
    await waitFor(
      async () => {
        down.push(...(await seen()).filter((what) => /down/.test(what)));
        return down.includes('mousedown');
      },
      () => `the keys and the button to be down; the page saw ${down.join(', ')}`,
    );
    assert.ok(!down.includes('keydown b'), 'nothing of who has not got control');

    assert.deepEqual((await call('POST', '/b/control')).status, 200);
    assert.equal(await who(), 'a b*');
    // Each viewer has a connection of its own to the VNC server, which reads them in no order: what is released on the one's has
    // been read once its fence comes back.
    await a.settled();
    const after = await seenUntilTyped(b, Z);
    const ups = after.filter((what) => /up/.test(what));
    for (const wanted of ['keyup Shift', 'mouseup']) assert.ok(ups.includes(wanted), `${wanted} in ${ups.join(', ')}`);
    assert.ok(
      ups.some((what) => /keyup x/i.test(what)),
      ups.join(', '),
    );
    assert.ok(
      ups.some((what) => /keyup a/i.test(what)),
      ups.join(', '),
    );
    assert.ok(after.includes('keydown z'), 'no Shift is held any more');
    for (const deed of DEEDS) a.rfb.write(deed);
    await a.settled();
    assert.deepEqual(await seenUntilTyped(b, Z), TYPED('z'));
  });

  it('is free when its controller leaves, until somebody asks or comes', LIMIT, async () => {
    await leave(a);
    await waitFor(async () => (await who()) === 'b', 'control to be free');
    assert.equal((await call('POST', '/b/control')).status, 200);
    assert.equal(await who(), 'b*');
    assert.equal((await call('DELETE', '/b/control')).status, 200);
    assert.equal(await who(), 'b');
    await open(stream(OWNER, '&viewer=c'));
    assert.equal(await who(), 'b c*');
  });

  it('turns collaborative and back while all are there', LIMIT, async () => {
    await patch('collaborative');
    assert.equal(await who(), 'a* b*');
    assert.deepEqual(await seenUntilTyped(b, Z), TYPED('z'));
    assert.deepEqual(await seenUntilTyped(a, Z), TYPED('z'));
    await patch('exclusive');
    assert.equal(await who(), 'a* b');
    b.type(B);
    await b.settled();
    assert.deepEqual(await seenUntilTyped(a, Z), TYPED('z'));
  });

  it('who is kicked is told so, and what it held down is released', LIMIT, async () => {
    a.key(SHIFT, true);
    await waitFor(async () => (await seen()).includes('keydown Shift'), 'the key to be down');
    assert.equal((await call('DELETE', '/a')).status, 200);
    assert.deepEqual(await a.rfb.closed, { code: 1008, reason: 'the owner of the sandbox has ended this view' });
    assert.equal((await call('DELETE', '/a')).status, 404);
    await waitFor(async () => (await seen()).includes('keyup Shift'), 'the key to be up');
    assert.equal((await call('POST', '/b/control')).status, 200);
    assert.deepEqual(await seenUntilTyped(b, Z), TYPED('z'));
  });

  it('with a ticket one may have what is free and give back one’s own, and nothing else', LIMIT, async () => {
    const url = await ticketFor('control');
    const ticket = new URL(url).searchParams.get('ticket') ?? '';
    await open(`${url}&viewer=guest`);
    assert.equal((await call('GET', '', { ticket })).status, 200);
    assert.equal((await call('POST', '/guest/control', { ticket })).status, 409);
    assert.equal((await call('POST', '/b/control', { ticket })).status, 403);
    assert.equal((await call('DELETE', '/a/control', { ticket })).status, 403);
    assert.equal((await call('DELETE', '/a', { ticket })).status, 401);
    assert.equal((await call('DELETE', '/guest', { ticket })).status, 401);
    await assert.rejects(Rfb.open(`${url}&viewer=a`), /403/, 'the name is another’s');
    assert.equal(await who(), 'a* b guest');
    await call('DELETE', '/a/control');
    assert.equal((await call('POST', '/guest/control', { ticket })).status, 200);
    assert.equal(await who(), 'a b guest*');
    assert.equal((await call('DELETE', '/guest/control', { ticket })).status, 200);
    assert.equal(await who(), 'a b guest');
    const watching = new URL(await ticketFor('view')).searchParams.get('ticket') ?? '';
    assert.equal((await call('POST', '/guest/control', { ticket: watching })).status, 403);
  });

  it('who only looks may see who does, and change nothing; strangers see nothing', LIMIT, async () => {
    await open(stream(EYE, '&viewer=eye'));
    const listed = await call('GET', '', { key: EYE });
    assert.deepEqual([listed.status, listed.data?.viewers.at(-1)?.role], [200, 'view']);
    for (const [method, path] of [
      ['POST', '/eye/control'],
      ['DELETE', '/a/control'],
      ['DELETE', '/a'],
    ] as const) {
      assert.equal((await call(method, path, { key: EYE })).status, 403);
      assert.equal((await call(method, path, { key: 'others-key-0123456789' })).status, 404);
    }
    assert.equal((await call('POST', '/eye/control')).status, 400);
    assert.equal((await call('GET', '', {})).status, 401);
    assert.equal((await call('GET', '', { key: 'others-key-0123456789' })).status, 404);
    assert.equal(await who(), 'a* b eye');
  });

  it('every change of hands is an event', LIMIT, async () => {
    const events = async (): Promise<(string | undefined)[]> => {
      const url = `${service.url}/sandboxes/${box.sandboxId}/events?after=0-0&limit=1000`;
      const body = await (await fetch(url, { headers: { 'x-api-key': OWNER } })).json();
      const { events: all } = (body as { data: { events: { type: string; viewerId?: string }[] } }).data;
      return all.filter(({ type }) => type === 'viewer.control').map(({ viewerId }) => viewerId);
    };
    await call('POST', '/b/control');
    await call('DELETE', '/b/control');
    assert.deepEqual((await events()).slice(-3), ['a', 'b', undefined]);
  });
});
