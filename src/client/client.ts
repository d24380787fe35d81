import createFetchClient, { type Client } from 'openapi-fetch';
import type { components, paths } from './schema.ts';

/** A sandbox as the API answers it. */
export type Sandbox = components['schemas']['Sandbox'];
/** What may be asked for at creation. */
export type CreateSandbox = components['schemas']['CreateSandbox'];
/** What a ticket is asked for with, and what comes back. */
export type CreateTicket = components['schemas']['CreateTicket'];
export type Ticket = components['schemas']['NewTicket'];
/** One recording segment. */
export type Recording = components['schemas']['RecordingInfo'];

/** One start of a recorder, file by file. */
export type RecordedSession = components['schemas']['TimelineSession'];

/** One start of a recorder, as a library shows it. */
export type RecordingSession = components['schemas']['RecordingSession'];

/** One file that a sandbox's browser has downloaded or is downloading. */
export type Download = components['schemas']['DownloadInfo'];

/** Something that happened to a sandbox. */
export type SandboxEvent = components['schemas']['Event'];

/** Which recordings are wanted; times are ISO 8601. */
export interface RecordingFilter {
  readonly since?: string;
  readonly until?: string;
  readonly status?: Recording['status'];
  /** Of their sandboxes. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** A file on its way. */
export interface Transfer {
  readonly body: ReadableStream<Uint8Array>;
  /** Its length in bytes; undefined where the service cannot say. */
  readonly bytes: number | undefined;
  /** False when `bytes` is an estimate, as it is for exports that are made on the way. */
  readonly exact: boolean;
}

/** A failure that the service answered with; `code` is stable, see the table in the README. */
export class BerthError extends Error {
  readonly status: number;
  /** Undefined where it was something else than Berth that answered, such as a proxy. */
  readonly code: number | undefined;
  readonly requestId: string | undefined;

  constructor(status: number, body: components['schemas']['Error']) {
    super(body.message ?? body.error);
    this.name = 'BerthError';
    this.status = status;
    this.code = body.code;
    this.requestId = body.requestId;
  }
}

/** No answer at all: nobody listens there, or not with this certificate; `cause` is what fetch says. */
export class UnreachableError extends Error {
  readonly url: string;

  constructor(url: string, cause: unknown) {
    super(`Nothing answers at ${url}`, { cause });
    this.name = 'UnreachableError';
    this.url = url;
  }
}

/** The typed client: methods for the everyday calls, `http` for every operation of openapi.yaml. */
export class BerthClient {
  /** Each call's result has `data` or `error`, typed by the operation. */
  readonly http: Client<paths>;

  /** `url` such as `http://127.0.0.1:3000`; `apiKey` only where the service has keys. `signal` ends every call under way. */
  constructor(url: string, apiKey?: string, signal?: AbortSignal) {
    const headers = apiKey === undefined ? {} : { Authorization: `Bearer ${apiKey}` };
    const reach = async (request: Request): Promise<Response> => {
      const ends = signal ? AbortSignal.any([request.signal, signal]) : request.signal;
      try {
        return await fetch(request, { signal: ends });
      } catch (err) {
        throw ends.aborted ? err : new UnreachableError(url, err);
      }
    };
    this.http = createFetchClient<paths>({ baseUrl: url, headers, fetch: reach });
  }

  /** Resolves when the sandbox is READY, or with `wait: false` at once. */
  async create(input: CreateSandbox = {}, { signal, wait, idempotencyKey }: CreateOptions = {}): Promise<Sandbox> {
    const params = {
      ...(wait === undefined ? {} : { query: { wait } }),
      ...(idempotencyKey === undefined ? {} : { header: { 'Idempotency-Key': idempotencyKey } }),
    };
    return unwrap(await this.http.POST('/sandboxes', { params, body: input, ...(signal ? { signal } : {}) })).data;
  }

  async get(id: string): Promise<Sandbox> {
    return unwrap(await this.http.GET('/sandboxes/{id}', { params: { path: { id } } })).data;
  }

  /** The first hundred, newest first. */
  async list(status?: Sandbox['status']): Promise<Sandbox[]> {
    const query = { page_size: 100, ...(status ? { status } : {}) };
    return unwrap(await this.http.GET('/sandboxes', { params: { query } })).data.sandboxes;
  }

  /** All of them, newest first, page by page; `metadata` has what each must have. */
  async *sandboxes(
    filter: { readonly status?: Sandbox['status']; readonly metadata?: Readonly<Record<string, string>> } = {},
  ): AsyncGenerator<Sandbox, void> {
    const { status, metadata } = filter;
    let read = 0;
    for (let page = 1; ; page++) {
      const query = { page, page_size: 100, ...(status ? { status } : {}), ...metadataQuery(metadata) };
      const { sandboxes, total } = unwrap(await this.http.GET('/sandboxes', { params: { query } })).data;
      yield* sandboxes;
      read += sandboxes.length;
      if (sandboxes.length === 0 || read >= total) return;
    }
  }

  /** Resolves when the sandbox has ended and its recording is whole; with `recordings` these are gone, too. */
  async delete(id: string, { recordings }: { readonly recordings?: boolean } = {}): Promise<Sandbox> {
    const params = { path: { id }, ...(recordings ? { query: { recordings } } : {}) };
    return unwrap(await this.http.DELETE('/sandboxes/{id}', { params })).data;
  }

  /** A credential for one sandbox and one role, to hand on; its addresses have it in them. */
  async ticket(id: string, wanted: CreateTicket): Promise<Ticket> {
    const params = { path: { id } };
    return unwrap(await this.http.POST('/sandboxes/{id}/tickets', { params, body: wanted })).data;
  }

  /** Resolves when the last segment is whole. */
  async stopRecording(id: string): Promise<Sandbox> {
    return unwrap(await this.http.POST('/sandboxes/{id}/recordings/stop', { params: { path: { id } } })).data;
  }

  /** Recordings of one sandbox or of all, newest first, page by page. */
  async *allRecordings(id?: string, filter: RecordingFilter = {}): AsyncGenerator<Recording, void> {
    const { metadata, ...rest } = filter;
    let read = 0;
    for (let page = 1; ; page++) {
      const query = { page, page_size: 100, ...rest, ...metadataQuery(metadata) };
      const answer =
        id === undefined
          ? await this.http.GET('/recordings/', { params: { query } })
          : await this.http.GET('/sandboxes/{id}/recordings', { params: { path: { id }, query } });
      const { recordings, total } = unwrap(answer);
      yield* recordings;
      read += recordings.length;
      if (recordings.length === 0 || read >= total) return;
    }
  }

  async deleteRecording(filename: string): Promise<void> {
    unwrap(await this.http.DELETE('/recordings/{filename}', { params: { path: { filename } } }));
  }

  /** Whether the service could start a sandbox now. Throws {@link BerthError} with the reason when not. */
  async ready(): Promise<{ readonly status: string; readonly archive?: string }> {
    return unwrap(await this.http.GET('/readyz'));
  }

  /** Recordings of one sandbox, newest first. */
  async recordings(id: string): Promise<Recording[]> {
    const params = { path: { id }, query: { page_size: 100 } };
    return unwrap(await this.http.GET('/sandboxes/{id}/recordings', { params })).recordings;
  }

  /** All that was recorded of one sandbox, the first session first. */
  async timeline(id: string): Promise<RecordedSession[]> {
    const params = { path: { id } };
    return unwrap(await this.http.GET('/sandboxes/{id}/recordings/timeline', { params })).recordings;
  }

  /** What one sandbox's browser downloaded, newest first. `http` reads and deletes by name. */
  async downloads(id: string): Promise<Download[]> {
    return unwrap(await this.http.GET('/sandboxes/{id}/downloads', { params: { path: { id } } })).data.downloads;
  }

  /** A page of the events that are remembered, oldest first; `next` is the `after` of the next page. */
  async eventsPage(id: string | undefined, after: string): Promise<{ events: SandboxEvent[]; next: string }> {
    const query = { after, limit: 1000 };
    // fetch accepts anything unless it is told, and the service would take that for JSON too; this says what is meant.
    const headers = { Accept: 'application/json' };
    const answer =
      id === undefined
        ? await this.http.GET('/events', { headers, params: { query } })
        : await this.http.GET('/sandboxes/{id}/events', { headers, params: { path: { id }, query } });
    return unwrap(answer as { data?: components['schemas']['EventListAnswer']; response: Response }).data;
  }

  /**
   * What happens to sandboxes, or to one of them, until the loop is left or the stream ends; with `after`, an event's id,
   * first what has happened since. To go on after a broken connection, call it again after the last event.
   */
  async *events(id?: string, { after, signal }: EventsOptions = {}): AsyncGenerator<SandboxEvent, void> {
    const query = after === undefined ? {} : { after };
    const init = {
      headers: { Accept: 'text/event-stream' },
      parseAs: 'stream',
      ...(signal ? { signal } : {}),
    } as const;
    const answer =
      id === undefined
        ? await this.http.GET('/events', { ...init, params: { query } })
        : await this.http.GET('/sandboxes/{id}/events', { ...init, params: { path: { id }, query } });
    const reader = unwrap(answer as StreamAnswer)?.getReader();
    const decoder = new TextDecoder();
    let text = '';
    try {
      for (let read = await reader?.read(); read?.value; read = await reader?.read()) {
        const frames = (text + decoder.decode(read.value, { stream: true })).split('\n\n');
        text = frames.pop() ?? '';
        for (const frame of frames) {
          const data = /^data: (.*)$/m.exec(frame)?.[1];
          if (data !== undefined) yield JSON.parse(data) as SandboxEvent;
        }
      }
    } finally {
      await reader?.cancel().catch(() => {}); // broken already
    }
  }

  /** A session as one file, to be streamed to wherever it is wanted. */
  async export(sessionId: string, format: 'mkv' | 'mp4' = 'mkv'): Promise<ReadableStream<Uint8Array>> {
    return (await this.transferExport(sessionId, format)).body;
  }

  /** A segment's bytes, to be streamed to wherever they are wanted. */
  async download(filename: string): Promise<ReadableStream<Uint8Array>> {
    return (await this.transfer(filename)).body;
  }

  /** As {@link export}, for those who show how far it is. */
  async transferExport(sessionId: string, format: 'mkv' | 'mp4' = 'mkv'): Promise<Transfer> {
    const params = { path: { sessionId }, query: { format } };
    return transferOf(await this.http.GET('/recordings/{sessionId}/export', { params, parseAs: 'stream' }));
  }

  /** As {@link download}, for those who show how far it is. */
  async transfer(filename: string): Promise<Transfer> {
    return transferOf(
      await this.http.GET('/recordings/{filename}', { params: { path: { filename } }, parseAs: 'stream' }),
    );
  }
}

interface CreateOptions {
  readonly signal?: AbortSignal;
  /** False: answers while the sandbox still starts. */
  readonly wait?: boolean;
  /** See the header `Idempotency-Key` in openapi.yaml. */
  readonly idempotencyKey?: string;
}

/** openapi.yaml cannot describe parameters whose names the caller makes up. */
function metadataQuery(metadata: Readonly<Record<string, string>> = {}): Record<never, never> {
  return Object.fromEntries(Object.entries(metadata).map(([key, value]) => [`metadata.${key}`, value]));
}

function transferOf(answer: unknown): Transfer {
  const { response } = answer as StreamAnswer;
  const body = unwrap(answer as StreamAnswer);
  const length = response.headers.get('content-length');
  const estimated = response.headers.get('berth-estimated-length');
  const bytes = length ?? estimated;
  return { body, bytes: bytes === null ? undefined : Number(bytes), exact: length !== null };
}

interface EventsOptions {
  readonly after?: string;
  readonly signal?: AbortSignal;
}

interface StreamAnswer {
  data?: ReadableStream<Uint8Array>;
  error?: components['schemas']['Error'];
  response: Response;
}

function unwrap<T>(answer: { data?: T; error?: components['schemas']['Error']; response: Response }): T {
  const { data, error, response } = answer;
  if (response.ok) return data as T;
  // What stands between us and the service, a proxy, answers with HTML or with nothing at all.
  const ours = typeof error === 'object' && error !== null && typeof error.error === 'string';
  throw new BerthError(
    response.status,
    ours ? error : { error: `HTTP ${response.status} ${response.statusText}`.trim() },
  );
}
