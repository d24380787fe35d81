import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { parse } from 'yaml';
import { AppError } from '../core/errors.ts';

interface Parameter {
  readonly $ref?: string;
  readonly name: string;
  readonly in: string;
  readonly schema: object;
}

interface Operation {
  readonly operationId?: string;
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly content: { readonly 'application/json': { readonly schema: object } } };
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly parameters: Readonly<Record<string, Parameter>>; readonly schemas: object };
}

/** Checks requests against openapi.yaml, so that document and behaviour cannot drift apart. */
export class Validator {
  readonly #bodies = new Map<string, ValidateFunction>();
  readonly #queries = new Map<string, ValidateFunction>();
  readonly #headers = new Map<string, ValidateFunction>();

  constructor(openapiYaml: string) {
    const document = parse(openapiYaml) as Document;
    // Schemas refer to `#/components/…`, so they are compiled as parts of the one document.
    const strictAjv = ajvFor(document, false);
    // Query values come as text, so `page=2` has to become a number first.
    const coercing = ajvFor(document, true);
    for (const [path, item] of Object.entries(document.paths)) {
      for (const [method, operation] of Object.entries(item)) {
        const id = operation.operationId;
        if (id === undefined) continue;
        if (operation.requestBody) {
          this.#bodies.set(
            id,
            compiled(strictAjv, [path, method, 'requestBody', 'content', 'application/json', 'schema']),
          );
        }
        const parameters = (operation.parameters ?? []).map((p) => resolve(document, p));
        const query = parameters.filter((p) => p.in === 'query').map((p) => [p.name, p.schema]);
        this.#queries.set(id, coercing.compile(objectOf(query)));
        // Node gives header names in lower case.
        const headers = parameters.filter((p) => p.in === 'header').map((p) => [p.name.toLowerCase(), p.schema]);
        this.#headers.set(id, strictAjv.compile(objectOf(headers)));
      }
    }
  }

  /** The body as its schema says, or INVALID_REQUEST naming each field and what is wrong with it. */
  body<T>(operationId: string, value: unknown): T {
    return checked<T>(this.#bodies.get(operationId), value);
  }

  /** The query with types and defaults of its schema; parameters that are not described are let be. */
  query<T>(operationId: string, query: URLSearchParams): T {
    return checked<T>(this.#queries.get(operationId), Object.fromEntries(query));
  }

  /** The headers, by their names in lower case; those that are not described are let be. */
  headers<T>(operationId: string, headers: object): T {
    return checked<T>(this.#headers.get(operationId), headers);
  }
}

function ajvFor(document: Document, coerceTypes: boolean): Ajv2020 {
  const ajv = new Ajv2020({ allErrors: true, coerceTypes, useDefaults: coerceTypes, strict: false });
  // The CJS module's default export, as Node's ESM sees it.
  (addFormats as unknown as (a: Ajv2020) => void)(ajv);
  ajv.addSchema(document, 'openapi');
  return ajv;
}

function compiled(ajv: Ajv2020, path: string[]): ValidateFunction {
  const pointer = path.map((part) => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/');
  return ajv.compile({ $ref: `openapi#/paths/${pointer}` });
}

function resolve(document: Document, parameter: Parameter): Parameter {
  const name = parameter.$ref?.replace('#/components/parameters/', '');
  return name === undefined ? parameter : (document.components.parameters[name] as Parameter);
}

function objectOf(properties: unknown[][]): object {
  return { type: 'object', properties: absolute(Object.fromEntries(properties)) };
}

/** References of a schema that is compiled outside the document point back into it. */
function absolute(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value).replaceAll('"#/components/', '"openapi#/components/'));
}

function checked<T>(validate: ValidateFunction | undefined, value: unknown): T {
  if (!validate) throw new Error('no such operation in openapi.yaml');
  if (validate(value)) return value as T;
  throw new AppError('INVALID_REQUEST', [...new Set((validate.errors ?? []).map(sentence))].join('; '));
}

function sentence(error: ErrorObject): string {
  const field = error.instancePath.slice(1).replaceAll('/', '.');
  const at = field === '' ? '' : `${field}: `;
  switch (error.keyword) {
    case 'additionalProperties':
      return `${field === '' ? '' : `${field}.`}${error.params.additionalProperty}: unknown field`;
    case 'required':
      return `${field === '' ? '' : `${field}.`}${error.params.missingProperty}: is missing`;
    case 'enum':
      return `${at}must be one of ${(error.params.allowedValues as string[]).join(', ')}`;
    default:
      return `${at || 'body: '}${error.message}`;
  }
}
