/** A stretch of time in at most two units: `3 d 4 h`, `12 min 5 s`, `8 s`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const units: [number, string][] = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [seconds % 60, 's'],
  ];
  const first = units.findIndex(([count]) => count > 0);
  if (first < 0) return '0 s';
  return units
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ');
}

/** A place in a recording: `1:02:03` or `2:03`. */
export function position(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number): string => String(n).padStart(2, '0');
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** `47 kB`, `1.2 GB` */
export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** Day and time of here, for a time as the API writes it. */
export function moment(iso: string): string {
  return new Date(iso).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
}

/** Time of day alone. */
export function timeOfDay(iso: string): string {
  return new Date(iso).toLocaleTimeString();
}

/** `1 viewer`, `2 viewers` */
export function counted(count: number, one: string): string {
  return `${count} ${one}${count === 1 ? '' : 's'}`;
}

const REASONS: Readonly<Record<string, string>> = {
  idle_timeout: 'Nothing happened for as long as it may be idle.',
  connect_timeout: 'Nobody connected in time.',
  max_lifetime: 'It reached the end of its lifetime.',
  deleted: 'Somebody stopped it.',
  browser_closed: 'A client closed its browser.',
  service_stopped: 'The service was stopped.',
};

/** Why a sandbox ended, in a sentence. */
export function endedBecause(reason: string | undefined): string {
  if (reason === undefined) return 'It has ended.';
  if (reason.startsWith('failed: ')) return `It failed: ${reason.slice('failed: '.length)}`;
  return REASONS[reason] ?? reason;
}
