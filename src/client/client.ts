import createFetchClient, { type Client } from 'openapi-fetch';
import type { components, paths } from './schema.ts';

/** A sandbox as the API answers it. */
export type Sandbox = components['schemas']['Sandbox'];
/** What may be asked for at creation. */
export type CreateSandbox = components['schemas']['CreateSandbox'];
/** One recording segment. */
export type Recording = components['schemas']['RecordingInfo'];

/** One start of a recorder, file by file. */
export type RecordedSession = components['schemas']['TimelineSession'];

/** One file that a sandbox's browser has downloaded or is downloading. */
export type Download = components['schemas']['DownloadInfo'];

/** Something that happened to a sandbox. */
export type SandboxEvent = components['schemas']['Event'];

/** A failure that the service answered with; `code` is stable, see the table in the README. */
export class BerthError extends Error {
  readonly status: number;
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

/** The typed client: methods for the everyday calls, `http` for every operation of openapi.yaml. */
export class BerthClient {
  /** Each call's result has `data` or `error`, typed by the operation. */
  readonly http: Client<paths>;

  /** `url` such as `http://127.0.0.1:3000`; `apiKey` only where the service has keys. */
  constructor(url: string, apiKey?: string) {
    const headers = apiKey === undefined ? {} : { Authorization: `Bearer ${apiKey}` };
    this.http = createFetchClient<paths>({ baseUrl: url, headers });
  }

  /** Resolves when the sandbox is READY. */
  async create(input: CreateSandbox = {}, signal?: AbortSignal): Promise<Sandbox> {
    return unwrap(await this.http.POST('/sandboxes', { body: input, ...(signal ? { signal } : {}) })).data;
  }

  async get(id: string): Promise<Sandbox> {
    return unwrap(await this.http.GET('/sandboxes/{id}', { params: { path: { id } } })).data;
  }

  /** The first hundred, newest first. */
  async list(status?: Sandbox['status']): Promise<Sandbox[]> {
    const query = { page_size: 100, ...(status ? { status } : {}) };
    return unwrap(await this.http.GET('/sandboxes', { params: { query } })).data.sandboxes;
  }

  /** Resolves when the sandbox has ended and its recording is whole. */
  async delete(id: string): Promise<Sandbox> {
    return unwrap(await this.http.DELETE('/sandboxes/{id}', { params: { path: { id } } })).data;
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
    const params = { path: { sessionId }, query: { format } };
    const answer = await this.http.GET('/recordings/{sessionId}/export', { params, parseAs: 'stream' });
    return unwrap(answer as StreamAnswer);
  }

  /** A segment's bytes, to be streamed to wherever they are wanted. */
  async download(filename: string): Promise<ReadableStream<Uint8Array>> {
    const answer = await this.http.GET('/recordings/{filename}', { params: { path: { filename } }, parseAs: 'stream' });
    return unwrap(answer as StreamAnswer);
  }
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
  if (answer.error !== undefined) throw new BerthError(answer.response.status, answer.error);
  return answer.data as T;
}
