/**
 * Every failure that a caller can see, in one table: stable integer code, HTTP status, short sentence.
 * The README and openapi.yaml list the same rows (tests/openapi.test.ts compares them). Codes are never reused.
 */
export const ERRORS = {
  INVALID_REQUEST: { code: 1001, status: 400, error: 'invalid request' },
  UNAUTHORIZED: { code: 1002, status: 401, error: 'unauthorized' },
  FORBIDDEN: { code: 1003, status: 403, error: 'forbidden' },
  NOT_FOUND: { code: 1004, status: 404, error: 'not found' },
  METHOD_NOT_ALLOWED: { code: 1005, status: 405, error: 'method not allowed' },
  PAYLOAD_TOO_LARGE: { code: 1006, status: 413, error: 'payload too large' },
  UPGRADE_REQUIRED: { code: 1007, status: 426, error: 'upgrade required' },
  IDEMPOTENCY_KEY_REUSED: { code: 1008, status: 422, error: 'idempotency key reused' },
  TOO_MANY_REQUESTS: { code: 1009, status: 429, error: 'too many requests' },
  HEADERS_TOO_LARGE: { code: 1010, status: 431, error: 'header fields too large' },
  SANDBOX_NOT_FOUND: { code: 2001, status: 404, error: 'sandbox not found' },
  SANDBOX_EXISTS: { code: 2002, status: 409, error: 'sandbox exists' },
  SANDBOX_ENDED: { code: 2003, status: 410, error: 'sandbox ended' },
  SANDBOX_NOT_READY: { code: 2004, status: 503, error: 'sandbox not ready' },
  TEMPLATE_NOT_FOUND: { code: 2005, status: 404, error: 'template not found' },
  NO_CAPACITY: { code: 2006, status: 429, error: 'no capacity' },
  START_FAILED: { code: 2007, status: 503, error: 'sandbox did not start' },
  BROWSER_UNREACHABLE: { code: 2008, status: 502, error: 'browser unreachable' },
  TOO_MANY_CLIENTS: { code: 2009, status: 429, error: 'too many clients' },
  CONTROL_TAKEN: { code: 2010, status: 409, error: 'control taken' },
  INVALID_FILENAME: { code: 3001, status: 400, error: 'Invalid filename' },
  RECORDING_NOT_FOUND: { code: 3002, status: 404, error: 'recording not found' },
  RANGE_NOT_SATISFIABLE: { code: 3003, status: 416, error: 'range not satisfiable' },
  DOWNLOAD_NOT_FOUND: { code: 3004, status: 404, error: 'download not found' },
  RECORDING_MIXED: { code: 3005, status: 409, error: 'recording mixed' },
  STORAGE_UNAVAILABLE: { code: 3006, status: 503, error: 'storage unavailable' },
  SHUTTING_DOWN: { code: 5002, status: 503, error: 'shutting down' },
  INTERNAL: { code: 5001, status: 500, error: 'internal error' },
} as const;

/** The name of a row of {@link ERRORS}. */
export type ErrorName = keyof typeof ERRORS;

/** A failure that the caller may read. Anything else that is thrown is logged whole and shown as INTERNAL. */
export class AppError extends Error {
  readonly errorName: ErrorName;
  /** Response headers that belong to this failure, such as `Allow` or `Retry-After`. */
  readonly headers: Readonly<Record<string, string>>;

  constructor(errorName: ErrorName, message: string, headers: Record<string, string> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'AppError';
    this.errorName = errorName;
    this.headers = headers;
  }

  get code(): number {
    return ERRORS[this.errorName].code;
  }

  get status(): number {
    return ERRORS[this.errorName].status;
  }
}

/** Marks a failure whose key or ticket was never one of ours: somebody may be guessing. */
export const NEVER_OURS = 'never one of ours';

/** Whether somebody may have been guessing. */
export function isGuess(err: unknown): boolean {
  return err instanceof AppError && err.cause === NEVER_OURS;
}

/** What goes over the wire for a failure. */
export interface ErrorBody {
  readonly code: number;
  readonly error: string;
  readonly message: string;
  readonly requestId: string;
}

/** The JSON body of a failure; unknown errors keep their details to the log. */
export function errorBody(err: unknown, requestId: string): ErrorBody {
  if (err instanceof AppError) {
    return { code: err.code, error: ERRORS[err.errorName].error, message: err.message, requestId };
  }
  const row = ERRORS.INTERNAL;
  return {
    code: row.code,
    error: row.error,
    message: 'Internal error; the log has it under this requestId.',
    requestId,
  };
}

/** HTTP status for any thrown value. */
export function errorStatus(err: unknown): number {
  return err instanceof AppError ? err.status : ERRORS.INTERNAL.status;
}
