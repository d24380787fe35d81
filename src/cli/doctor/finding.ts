/** One thing that `berth doctor` looked at, and how it is. */
export interface Finding {
  readonly check: string;
  /** `warning`: sandboxes start, and something is less good than it could be. `failed`: none will. */
  readonly status: 'ok' | 'warning' | 'failed';
  readonly message: string;
  /** What to do about it; absent where nothing has to be done. */
  readonly fix?: string;
}

export function ok(check: string, message: string): Finding {
  return { check, status: 'ok', message };
}

export function warning(check: string, message: string, fix: string): Finding {
  return { check, status: 'warning', message, fix };
}

export function failed(check: string, message: string, fix: string): Finding {
  return { check, status: 'failed', message, fix };
}
