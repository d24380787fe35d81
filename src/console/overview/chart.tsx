import { useId, useState } from 'preact/hooks';
import { timeOfDay } from '../format.ts';

export interface Series {
  readonly name: string;
  /** Class of its colour. */
  readonly tone: 'main' | 'second' | 'bad';
  readonly values: readonly (number | null)[];
}

interface ChartProps {
  readonly title: string;
  /** What it comes to now, in words. */
  readonly now: string;
  readonly times: readonly string[];
  readonly series: readonly Series[];
  readonly show: (value: number) => string;
  /** Bars for what happened, a line for how it stood. */
  readonly bars?: boolean;
}

const WIDTH = 300;
const HEIGHT = 80;

/** The last hour of something, to be taken in at a glance; the pointer, or the table that screen readers get, has the figures. */
export function Chart({ title, now, times, series, show, bars = false }: ChartProps) {
  const id = useId();
  const [at, setAt] = useState<number>();
  const all = series.flatMap(({ values }) => values.filter((value) => value !== null));
  const most = Math.max(1, ...all);
  const count = Math.max(2, times.length);
  const x = (i: number): number => (i / (count - 1)) * WIDTH;
  const y = (value: number): number => HEIGHT - 2 - (value / most) * (HEIGHT - 8);
  const onMove = (event: PointerEvent): void => {
    const { left, width } = (event.currentTarget as Element).getBoundingClientRect();
    setAt(Math.max(0, Math.min(times.length - 1, Math.round(((event.clientX - left) / width) * (count - 1)))));
  };
  const pointed = at === undefined ? undefined : times[at];
  return (
    <figure class="chart panel" aria-labelledby={id}>
      <figcaption id={id}>
        <span class="chart-title">{title}</span>
        <strong>{now}</strong>
      </figcaption>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        aria-hidden="true"
        onPointerMove={onMove}
        onPointerLeave={() => setAt(undefined)}
      >
        <line class="chart-ground" x1={0} x2={WIDTH} y1={HEIGHT - 1} y2={HEIGHT - 1} />
        {series.map(({ name, tone, values }) =>
          bars ? (
            <path
              key={name}
              class={`bars ${tone}`}
              d={values.map((v, i) => (v ? `M${x(i)} ${HEIGHT}V${y(v)}` : '')).join('')}
            />
          ) : (
            <g key={name} class={tone}>
              <path class="area" d={area(values, x, y)} />
              <path class="line-of" d={line(values, x, y)} />
            </g>
          ),
        )}
        {at !== undefined && <line class="chart-at" x1={x(at)} x2={x(at)} y1={0} y2={HEIGHT} />}
      </svg>
      <p class="fine chart-words" aria-hidden="true">
        {pointed === undefined || at === undefined
          ? `${times[0] ? timeOfDay(times[0]) : ''} to now, at most ${show(most)}`
          : `${timeOfDay(pointed)}: ${series
              .map(({ name, values }) => `${series.length > 1 ? `${name} ` : ''}${said(values[at], show)}`)
              .join(', ')}`}
      </p>
      <span class="off-screen">
        At most {show(Math.max(0, ...all))} since {times[0] ? timeOfDay(times[0]) : 'now'}.
      </span>
    </figure>
  );
}

function said(value: number | null | undefined, show: (value: number) => string): string {
  return value === null || value === undefined ? 'nothing' : show(value);
}

type Scale = (n: number) => number;

function line(values: readonly (number | null)[], x: Scale, y: Scale): string {
  let down = false;
  return values
    .map((value, i) => {
      if (value === null) return '';
      const step = `${down ? 'L' : 'M'}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
      down = true;
      return step;
    })
    .join('');
}

function area(values: readonly (number | null)[], x: Scale, y: Scale): string {
  const first = values.findIndex((value) => value !== null);
  const last = values.findLastIndex((value) => value !== null);
  if (first < 0) return '';
  return `${line(values, x, y)}L${x(last).toFixed(1)} ${HEIGHT}L${x(first).toFixed(1)} ${HEIGHT}Z`;
}
