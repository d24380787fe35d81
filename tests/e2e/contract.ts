/** Calls operations of openapi.yaml and holds every answer against it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { parse } from 'yaml';
import { LIMIT, type Service } from './service.ts';

// biome-ignore lint/suspicious/noExplicitAny: whatever JSON the service answered
type Json = any;

/** openapi.yaml as the judge of answers. */
class Contract {
  readonly text = readFileSync(new URL('../../../openapi.yaml', import.meta.url), 'utf8');
  readonly operations = new Map<string, { method: string; path: string; pointer: string; responses: Json }>();
  readonly #ajv = new Ajv2020({ strict: false, allErrors: true });
  readonly #document: Json;

  constructor() {
    this.#document = parse(this.text);
    for (const [path, item] of Object.entries<Json>(this.#document.paths)) {
      for (const [method, operation] of Object.entries<Json>(item)) {
        if (!operation.operationId) continue;
        const pointer = `/paths/${path.replaceAll('~', '~0').replaceAll('/', '~1')}/${method}/responses`;
        this.operations.set(operation.operationId, { method, path, pointer, responses: operation.responses });
      }
    }
    // A field that the document does not name is as wrong as one that it names and that is missing.
    closeObjects(this.#document);
    (addFormats as unknown as (ajv: Ajv2020) => void)(this.#ajv);
    this.#ajv.addSchema(this.#document, 'openapi');
  }

  /** That the answer is one that the document promises: status, content type and every field. */
  assertKept(id: string, status: number, type: string, body: Json): void {
    const { responses, pointer } = this.operations.get(id) ?? assert.fail(`no operation ${id}`);
    const key = String(status) in responses ? String(status) : 'default';
    assert.ok(key in responses, `${id} does not promise status ${status}`);
    assert.ok(key !== 'default' || status >= 400, `${id} answered ${status} where only failures are promised`);
    const ref: string | undefined = responses[key].$ref;
    const at = ref?.slice(1) ?? `${pointer}/${key}`;
    const { content } = ref ? this.#document.components.responses[ref.split('/').pop() as string] : responses[key];
    if (!content) return assert.equal(type, '', `${id} promises no body`);
    assert.ok(type in content, `${id} promises ${Object.keys(content)}, not ${type}`);
    if (type !== 'application/json') return;
    const validate = this.#ajv.compile({ $ref: `openapi#${encodeURI(`${at}/content/application~1json/schema`)}` });
    assert.ok(validate(body), `${id} ${status}: ${this.#ajv.errorsText(validate.errors)} in ${JSON.stringify(body)}`);
  }
}

function closeObjects(value: Json): void {
  if (typeof value !== 'object' || value === null) return;
  if (value.type === 'object' && value.properties) value.additionalProperties ??= false;
  for (const inner of Object.values(value)) closeObjects(inner);
}

export interface Call {
  readonly id?: string;
  readonly filename?: string;
  readonly page?: string;
  readonly ticketId?: string;
  readonly viewerId?: string;
  readonly query?: string;
  readonly body?: object;
  readonly key?: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly json: Json;
  readonly text: string;
}

export const contract = new Contract();
/** Operations that were called. */
export const asked = new Set<string>();

/** Calls an operation by its id and holds the answer, whatever it is, against the document. */
export async function call(service: Service, operation: string, given: Call = {}): Promise<Answer> {
  const { id = '', filename = '', page = '', ticketId = '', viewerId = '', query = '', body, key } = given;
  const { method, path } = contract.operations.get(operation) ?? assert.fail(`no operation ${operation}`);
  const url = `${service.url}${path
    .replace('{id}', id)
    .replace(/{((file)?name|sessionId)}/, filename)
    .replace('{page}', page)
    .replace('{ticketId}', ticketId)
    .replace('{viewerId}', viewerId)}?${query}`;
  const answer = await fetch(url, {
    method: method.toUpperCase(),
    headers: key === undefined ? {} : { authorization: `Bearer ${key}` },
    signal: AbortSignal.timeout(LIMIT.timeout),
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const text = Buffer.from(await answer.arrayBuffer()).toString('latin1');
  const type = (answer.headers.get('content-type') ?? '').split(';')[0] as string;
  const json = type === 'application/json' ? JSON.parse(text) : undefined;
  contract.assertKept(operation, answer.status, type, json);
  if (json?.requestId !== undefined) assert.equal(json.requestId, answer.headers.get('x-request-id'));
  asked.add(operation);
  return { status: answer.status, headers: answer.headers, json, text };
}

/** The same, and it has to have this status. */
export async function expect(service: Service, status: number, operation: string, given: Call = {}): Promise<Answer> {
  const answer = await call(service, operation, given);
  assert.equal(answer.status, status, `${operation}: ${answer.text.slice(0, 500)}`);
  return answer;
}
