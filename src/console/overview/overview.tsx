import { useEffect, useState } from 'preact/hooks';
import type { components } from '../../client/schema.ts';
import { asFailure, ask, type Failure, http } from '../api.ts';
import { useNow } from '../clock.ts';
import { bytes, duration } from '../format.ts';
import { Problem } from '../ui/notices.tsx';
import { Chart } from './chart.tsx';

type Stats = components['schemas']['StatsAnswer']['data'];
type Readiness = { readonly ok: boolean; readonly words: string };

const LOOK_EVERY_MS = 15_000;

/** How the service stands, and the last hour. */
export function Overview() {
  const [stats, setStats] = useState<Stats>();
  const [ready, setReady] = useState<Readiness>();
  const [failure, setFailure] = useState<Failure>();
  const now = useNow();
  const look = async (): Promise<void> => {
    try {
      setStats((await ask(http.GET('/stats'))).data);
      setFailure(undefined);
    } catch (err) {
      setFailure(asFailure(err));
    }
    setReady(
      await ask(http.GET('/readyz')).then(
        ({ archive }) => ({ ok: true, words: archive === 'unreachable' ? 'The archive is away' : 'Ready' }),
        (err) => ({ ok: false, words: asFailure(err).message }),
      ),
    );
  };
  useEffect(() => {
    void look();
    const timer = setInterval(() => !document.hidden && void look(), LOOK_EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  if (!stats)
    return failure ? <Problem failure={failure} onRetry={() => void look()} /> : <p class="muted">Loading…</p>;
  const { samples, maxSandboxes, pool, everySeconds } = stats;
  const last = samples.at(-1);
  const times = samples.map(({ at }) => at);
  const of = <K extends keyof Stats['samples'][number]>(key: K): Stats['samples'][number][K][] =>
    samples.map((sample) => sample[key]);
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  const living = (last?.ready ?? 0) + (last?.creating ?? 0);
  const lastStart = of('startMs').findLast((ms) => ms !== null);
  const count = (n: number): string => String(Math.round(n));
  return (
    <>
      <header class="page-head">
        <div>
          <h1>Overview</h1>
          <p class="muted">Up for {duration(now - Date.parse(stats.startedAt))}</p>
        </div>
      </header>
      {failure && <Problem failure={failure} />}
      {ready && !ready.ok && (
        <div class="problem" role="alert">
          <div>
            <strong>No sandbox can be started now.</strong>
            <p>{ready.words}</p>
          </div>
        </div>
      )}
      <dl class="tiles">
        <div class="panel">
          <dt>Sandboxes</dt>
          <dd>
            {living} <small>of {maxSandboxes}</small>
            <meter min={0} max={maxSandboxes} high={maxSandboxes * 0.9} value={living} aria-label="Capacity used" />
          </dd>
        </div>
        <div class="panel">
          <dt>State</dt>
          <dd class={ready?.ok === false ? 'bad' : 'good'}>
            {ready?.ok === false ? 'Not ready' : (ready?.words ?? '…')}
          </dd>
        </div>
        <div class="panel">
          <dt>Memory left for starts</dt>
          <dd>{stats.freeMemoryMb === undefined ? 'unknown' : bytes(stats.freeMemoryMb * 1024 * 1024)}</dd>
        </div>
        <div class="panel">
          <dt>Pool</dt>
          <dd>
            {Object.keys(pool).length === 0 ? (
              <small>none (BERTH_POOL_SIZE)</small>
            ) : (
              Object.entries(pool).map(([name, { ready: waiting, wanted }]) => (
                <span key={name} class="pool">
                  {waiting}{' '}
                  <small>
                    of {wanted}, {name}
                  </small>
                </span>
              ))
            )}
          </dd>
        </div>
      </dl>
      <div class="charts">
        <Chart
          title="Running sandboxes"
          now={count(last?.ready ?? 0)}
          times={times}
          show={count}
          series={[
            { name: 'running', tone: 'main', values: of('ready') },
            { name: 'starting', tone: 'second', values: of('creating') },
          ]}
        />
        <Chart
          title="Creates a minute"
          now={`${sum(of('created'))} in the hour`}
          times={times}
          show={(n) => n.toFixed(1)}
          bars
          series={[
            { name: 'ready', tone: 'main', values: of('created').map((n) => (n * 60) / everySeconds) },
            { name: 'failed', tone: 'bad', values: of('failed').map((n) => (n * 60) / everySeconds) },
          ]}
        />
        <Chart
          title="Time to ready"
          now={lastStart === undefined || lastStart === null ? 'no start yet' : `${lastStart} ms`}
          times={times}
          show={(n) => `${Math.round(n)} ms`}
          bars
          series={[{ name: 'median', tone: 'main', values: of('startMs') }]}
        />
        <Chart
          title="Refusals"
          now={`${sum(of('refusals'))} in the hour`}
          times={times}
          show={count}
          bars
          series={[{ name: 'answers of 400 and above', tone: 'bad', values: of('refusals') }]}
        />
        <Chart
          title="Clients and viewers"
          now={`${last?.clients ?? 0} and ${last?.viewers ?? 0}`}
          times={times}
          show={count}
          series={[
            { name: 'clients', tone: 'main', values: of('clients') },
            { name: 'viewers', tone: 'second', values: of('viewers') },
          ]}
        />
        <Chart
          title="Through the gateway"
          now={`${bytes((last?.bytes ?? 0) / everySeconds)}/s`}
          times={times}
          show={(n) => `${bytes(n)}/s`}
          series={[{ name: 'bytes', tone: 'main', values: of('bytes').map((n) => n / everySeconds) }]}
        />
        <Chart
          title="Memory of the service"
          now={bytes(last?.memory ?? 0)}
          times={times}
          show={bytes}
          series={[{ name: 'resident', tone: 'main', values: of('memory') }]}
        />
      </div>
    </>
  );
}
