import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { folderOf } from '../../src/drivers/folders.ts';
import { envWithBrowser } from './drivers.ts';
import { assertNothingLeft, LIMIT, type Service, startService, waitFor } from './service.ts';

interface Create {
  readonly body?: object;
  readonly query?: string;
  readonly idempotencyKey?: string;
  readonly apiKey?: string;
  readonly signal?: AbortSignal;
}

interface Answer {
  readonly status: number;
  readonly retryAfter: string | null;
  // biome-ignore lint/suspicious/noExplicitAny: whatever JSON the service answered
  readonly json: any;
}

async function create(service: Service, asked: Create = {}): Promise<Answer> {
  const { body = {}, query = '', idempotencyKey, apiKey, signal } = asked;
  const answer = await fetch(`${service.url}/sandboxes?${query}`, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: {
      ...(idempotencyKey === undefined ? {} : { 'idempotency-key': idempotencyKey }),
      ...(apiKey === undefined ? {} : { 'x-api-key': apiKey }),
    },
    signal: signal ?? AbortSignal.timeout(LIMIT.timeout),
  });
  return { status: answer.status, retryAfter: answer.headers.get('retry-after'), json: await answer.json() };
}

/** 429 with all that a caller needs. */
function assertNoCapacity(answer: Answer, message: RegExp): void {
  assert.equal(answer.status, 429, JSON.stringify(answer.json));
  assert.deepEqual([answer.json.code, answer.json.error], [2006, 'no capacity']);
  assert.match(answer.json.message, message);
  assert.match(answer.retryAfter ?? '', /^[1-9]\d*$/);
}

/** How many sandboxes have something on this machine; each driver makes a folder for each. */
function begun(service: Service): number {
  return readdirSync(service.runDir).filter((name) => /^[0-9a-f]{12}$/.test(name)).length;
}

describe('a rush of creates', () => {
  let service: Service;
  before(async () => {
    service = await startService({
      env: {
        BERTH_MAX_SANDBOXES: '5',
        BERTH_MAX_STARTS: '2',
        BERTH_MAX_QUEUE: '2',
        BERTH_QUEUE_SECONDS: '60',
        BERTH_MIN_FREE_MEMORY_MB: '0',
      },
    });
  });
  after(async () => {
    await service.end();
  });

  it(
    'starts as many at once as it may, keeps as many waiting, and refuses all others with the reason',
    LIMIT,
    async () => {
      let over = false;
      const all = Promise.all(Array.from({ length: 30 }, () => create(service))).finally(() => {
        over = true;
      });
      await waitFor(async () => {
        const started = begun(service);
        const ready = await service.client.list('READY');
        assert.ok(started - ready.length <= 2, `${started} have begun and ${ready.length} are READY`);
        return over;
      }, 'all to be answered');
      const answers = await all;
      const made = answers.filter(({ status }) => status === 201);
      assert.equal(made.length, 4);
      for (const { json } of made) assert.equal(json.data.status, 'READY');
      for (const answer of answers.filter((one) => !made.includes(one))) {
        assertNoCapacity(answer, /^As many .* \(BERTH_MAX_STARTS\), and 2 creates wait .*\(BERTH_MAX_QUEUE\)/);
      }
      assert.equal((await service.client.list()).length, 4, 'those that were refused have left nothing');
    },
  );

  it('refuses at once what is one sandbox too many, until one is gone', LIMIT, async () => {
    assert.equal((await create(service)).status, 201);
    for (const query of ['', 'wait=false']) {
      assertNoCapacity(await create(service, { query }), /^All 5 sandboxes .*\(BERTH_MAX_SANDBOXES\)/);
    }
    await service.client.delete((await service.client.list())[0]?.sandboxId as string);
    assert.equal((await create(service)).status, 201);
  });
});

describe('the queue', () => {
  let service: Service;
  before(async () => {
    // What has its turn keeps it, so that who waits can be told from who starts.
    service = await startService({
      env: {
        ...(await envWithBrowser('exec sleep 600')),
        BERTH_START_TIMEOUT_SECONDS: '600',
        BERTH_MAX_STARTS: '1',
        BERTH_QUEUE_SECONDS: '10',
        BERTH_MAX_QUEUE: '3',
        BERTH_MIN_FREE_MEMORY_MB: '0',
      },
    });
    const first = await create(service, { body: { sandboxId: 'first' }, query: 'wait=false' });
    assert.equal(first.status, 202);
    await waitFor(() => begun(service) === 1, 'the first one to begin');
  });
  after(async () => {
    await service.clean();
  });

  const isThere = async (id: string): Promise<boolean> =>
    (await fetch(`${service.url}/sandboxes/${id}`)).status === 200;

  it('lets go of a caller who hangs up, and nothing was started', LIMIT, async () => {
    for (let i = 0; i < 5; i++) {
      const caller = new AbortController();
      const pending = create(service, { body: { sandboxId: `gone-${i}` }, signal: caller.signal });
      pending.catch(() => {});
      await waitFor(() => isThere(`gone-${i}`), 'it to wait');
      assert.equal((await service.client.get(`gone-${i}`)).status, 'CREATING');
      caller.abort();
      await assert.rejects(pending, { name: 'AbortError' });
      await waitFor(async () => (await service.client.get(`gone-${i}`)).endedAt !== undefined, 'it to end');
      const { status, endedReason } = await service.client.get(`gone-${i}`);
      assert.deepEqual([status, endedReason], ['FAILED', 'failed: the caller went away before it was ready']);
      assert.equal(begun(service), 1);
    }
  });

  it(
    'answers 202 to who does not wait, and lets it be deleted, stopped, or refused when it is full',
    LIMIT,
    async () => {
      const ids = ['a', 'b', 'c'];
      for (const sandboxId of ids) {
        const answer = await create(service, { body: { sandboxId }, query: 'wait=false' });
        assert.deepEqual([answer.status, answer.json.data.status], [202, 'CREATING']);
      }
      const full = await create(service, { body: { sandboxId: 'd' }, query: 'wait=false' });
      assertNoCapacity(full, /BERTH_MAX_QUEUE/);
      assert.equal(await isThere('d'), false);
      for (const id of ids) {
        const { status, endedReason } = await service.client.delete(id);
        assert.deepEqual([status, endedReason], ['TERMINATED', 'deleted']);
      }
      assert.equal(begun(service), 1);
    },
  );

  it('ends for who waited too long with 429 and the reason, and a key is free for the next try', LIMIT, async () => {
    const asked = { body: { sandboxId: 'late' }, idempotencyKey: 'late' };
    const [late, again, unseen] = await Promise.all([
      create(service, asked),
      create(service, asked),
      create(service, { body: { sandboxId: 'unseen' }, query: 'wait=false' }),
    ]);
    for (const answer of [late, again]) {
      assertNoCapacity(answer, /^As many .* \(BERTH_MAX_STARTS\), and no turn came within 10 s/);
    }
    assert.equal(unseen?.status, 202);
    await waitFor(async () => (await service.client.get('unseen')).endedAt !== undefined, 'the other to end');
    for (const id of ['late', 'unseen']) {
      const { status, endedReason } = await service.client.get(id);
      assert.equal(status, 'FAILED');
      assert.match(endedReason ?? '', /^failed: .*\(BERTH_QUEUE_SECONDS\)/);
    }
    assert.equal(begun(service), 1);
    assert.equal((await create(service, { ...asked, query: 'wait=false' })).status, 202);
    await service.client.delete('late');
  });

  it('gives a freed place to the first in line', LIMIT, async () => {
    for (const sandboxId of ['next', 'last']) await create(service, { body: { sandboxId }, query: 'wait=false' });
    await service.client.delete('first');
    await waitFor(() => begun(service) === 1, 'the next one to begin');
    assert.ok(existsSync(folderOf(service.runDir, 'next')), 'it was the next one that had begun');
    await service.client.delete('last');
    assert.equal(begun(service), 1);
  });

  it('is emptied when the service ends', LIMIT, async () => {
    const waiting = create(service, { body: { sandboxId: 'waiting' } });
    await waitFor(() => isThere('waiting'), 'it to wait');
    const [answer] = await Promise.all([waiting, service.stop()]);
    assert.deepEqual([answer.status, answer.json.code], [503, 5002]);
  });
});

describe('a machine without memory to spare', () => {
  let service: Service;
  before(async () => {
    service = await startService({ env: { BERTH_MIN_FREE_MEMORY_MB: '1048576', BERTH_QUEUE_SECONDS: '1' } });
  });
  after(async () => {
    await service.end();
  });

  it('starts nothing and says how much is free and must be', LIMIT, async () => {
    const reason =
      /1048576 MB of memory must stay free \(BERTH_MIN_FREE_MEMORY_MB\), \d+ MB are, .*\(BERTH_QUEUE_SECONDS\)/;
    assertNoCapacity(await create(service), reason);
    const { status } = await create(service, { query: 'wait=false', body: { sandboxId: 'unseen' } });
    assert.equal(status, 202);
    await waitFor(async () => (await service.client.get('unseen')).status === 'FAILED', 'it to be given up');
    assert.match((await service.client.get('unseen')).endedReason ?? '', reason);
    await assertNothingLeft(service);
  });
});

describe('a service that ends', () => {
  it('tells who waits, though there is nothing else that it has to end first', LIMIT, async () => {
    const service = await startService({ env: { BERTH_MIN_FREE_MEMORY_MB: '1048576' } });
    try {
      const all = Array.from({ length: 5 }, () => create(service));
      await waitFor(async () => (await service.client.list('CREATING')).length === 5, 'all to wait');
      const [answers] = await Promise.all([Promise.all(all), service.stop()]);
      for (const { status, json } of answers) assert.deepEqual([status, json.code], [503, 5002]);
    } finally {
      await service.clean();
    }
  });
});

const ACME = 'acme-key-of-sixteen';
const OTHER = 'other-key-of-sixteen';

describe('a create with an Idempotency-Key', () => {
  let service: Service;
  const options = {
    apiKey: ACME,
    env: { BERTH_API_KEYS: `acme:${ACME},other:${OTHER}`, BERTH_MIN_FREE_MEMORY_MB: '0' },
  };
  before(async () => {
    service = await startService(options);
  });
  after(async () => {
    await service.end();
  });

  const body = { metadata: { a: '1', b: '2' }, recording: 'off' };
  const acme = (more: Create): Promise<Answer> => create(service, { body, apiKey: ACME, ...more });
  const alive = async (): Promise<string[]> =>
    (await service.client.list()).filter((sandbox) => !sandbox.endedAt).map((sandbox) => sandbox.sandboxId);
  let id: string;

  it('makes one sandbox for calls at the same time, and answers each when it is READY', LIMIT, async () => {
    const answers = await Promise.all([
      acme({ idempotencyKey: 'k' }),
      acme({ idempotencyKey: 'k' }),
      acme({ idempotencyKey: 'k', query: 'wait=false' }),
    ]);
    assert.deepEqual(
      answers.map(({ status, json }) => [status, json.data.status]),
      [
        [201, 'READY'],
        [201, 'READY'],
        [202, 'CREATING'],
      ],
    );
    id = answers[0]?.json.data.sandboxId;
    assert.deepEqual(await alive(), [id]);
  });

  it('finds it afterwards, and after its end, whatever the order of the fields', LIMIT, async () => {
    const again = await acme({ idempotencyKey: 'k', body: { recording: 'off', metadata: { b: '2', a: '1' } } });
    assert.deepEqual([again.status, again.json.data.sandboxId, again.json.data.status], [201, id, 'READY']);
    assert.ok(again.json.data.cdpUrl.startsWith('ws://'));
    const { sandboxId } = (await acme({ idempotencyKey: 'short' })).json.data;
    await service.client.delete(sandboxId);
    const { data } = (await acme({ idempotencyKey: 'short' })).json;
    assert.deepEqual([data.sandboxId, data.status, data.endedReason], [sandboxId, 'TERMINATED', 'deleted']);
  });

  it('is refused with another body, and with a key that is none', LIMIT, async () => {
    for (const other of [{}, { ...body, recording: 'manual' }]) {
      const { status, json } = await acme({ idempotencyKey: 'k', body: other });
      assert.deepEqual([status, json.code, json.error], [422, 1008, 'idempotency key reused']);
      assert.match(json.message, /^Idempotency-Key: /);
    }
    for (const idempotencyKey of ['', 'a b', 'é', 'x'.repeat(256)]) {
      const { status, json } = await acme({ idempotencyKey });
      assert.deepEqual([status, json.code], [400, 1001], idempotencyKey);
      assert.match(json.message, /^idempotency-key: must/);
    }
    assert.deepEqual(await alive(), [id]);
  });

  it('of another tenant is another one', LIMIT, async () => {
    const theirs = await acme({ idempotencyKey: 'k', apiKey: OTHER, body: { recording: 'off' } });
    assert.equal(theirs.status, 201);
    assert.notEqual(theirs.json.data.sandboxId, id);
    assert.deepEqual(await alive(), [id]);
    const address = `${service.url}/sandboxes/${theirs.json.data.sandboxId}`;
    assert.equal((await fetch(address, { method: 'DELETE', headers: { 'x-api-key': OTHER } })).status, 200);
  });

  it('goes on when its caller hangs up, and the retry finds it', LIMIT, async () => {
    const caller = new AbortController();
    const pending = acme({ idempotencyKey: 'lost', signal: caller.signal });
    pending.catch(() => {});
    await waitFor(async () => (await alive()).length === 2, 'the start to begin');
    const [lost] = await alive(); // newest first
    caller.abort();
    await assert.rejects(pending, { name: 'AbortError' });
    const { data } = (await acme({ idempotencyKey: 'lost' })).json;
    assert.deepEqual([data.sandboxId, data.status], [lost, 'READY']);
    await service.client.delete(data.sandboxId);
  });

  it(
    'is known after a kill -9 of the service, running or ended, and one that was starting is made once',
    LIMIT,
    async () => {
      const starting = acme({ idempotencyKey: 'starting' });
      starting.catch(() => {});
      await waitFor(async () => (await alive()).length === 2, 'the start to begin');
      await service.kill();
      await assert.rejects(starting);
      service = await startService({ ...options, on: service });
      const { data } = (await acme({ idempotencyKey: 'k' })).json;
      assert.deepEqual([data.sandboxId, data.status], [id, 'READY']);
      assert.equal((await acme({ idempotencyKey: 'k', body: {} })).status, 422);
      assert.equal((await acme({ idempotencyKey: 'short' })).json.data.status, 'TERMINATED');
      const retried = await acme({ idempotencyKey: 'starting' });
      assert.deepEqual([retried.status, retried.json.data.status], [201, 'READY']);
      assert.deepEqual((await alive()).sort(), [id, retried.json.data.sandboxId].sort());
    },
  );
});
