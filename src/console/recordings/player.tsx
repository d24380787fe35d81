import { useEffect, useRef, useState } from 'preact/hooks';
import { addressOf, asFailure } from '../api.ts';
import { position } from '../format.ts';
import { Icon } from '../ui/icons.tsx';
import { Deleted, Feed, type Piece, Unplayable } from './feed.ts';
import type { Mark } from './session.ts';

interface PlayerProps {
  readonly pieces: readonly Piece[];
  readonly marks: readonly Mark[];
  readonly grows: boolean;
  /** Where to jump to; a new object is a new jump. */
  readonly target: { readonly seconds: number } | undefined;
}

const SPEEDS = [0.5, 1, 2, 4, 8, 16];
/** Behind the newest frame by less than this counts as live, in seconds; and where "Live" jumps to. */
const LIVE_WITHIN = 6;
const LIVE_BEHIND = 2;

/** Plays a recording's files as one, with a line of time of its own: the browser's would not know the marks. */
export function Player({ pieces, marks, grows, target }: PlayerProps) {
  const video = useRef<HTMLVideoElement>(null);
  const now = useRef({ pieces, grows });
  now.current = { pieces, grows };
  const [playing, setPlaying] = useState(false);
  const [time, setTime] = useState(0);
  const [end, setEnd] = useState(0);
  const [speed, setSpeed] = useState(1);
  const [waiting, setWaiting] = useState(true);
  const [problem, setProblem] = useState<string>();
  const last = pieces.at(-1);
  const known = last ? (last.start + (last.duration ?? 0)) / 1000 : 0;
  const length = Math.max(known, end);

  useEffect(() => {
    const element = video.current as HTMLVideoElement;
    let feed: Feed | undefined;
    try {
      feed = new Feed(element, {
        pieces: () => now.current.pieces,
        grows: () => now.current.grows,
        fetch: (filename, from, signal) =>
          fetch(addressOf(`/recordings/${filename}`), {
            signal,
            ...(from > 0 ? { headers: { Range: `bytes=${from}-` } } : {}),
          }),
        onFailure: (err) => setProblem(sentenceOf(err)),
      });
    } catch (err) {
      setProblem(sentenceOf(err));
    }
    return () => feed?.close();
  }, []);

  const seek = (seconds: number): void => {
    const element = video.current as HTMLVideoElement;
    element.currentTime = Math.max(0, Math.min(seconds, length - 0.05));
    setTime(element.currentTime);
  };
  useEffect(() => {
    if (target) seek(target.seconds);
  }, [target]);
  const toggle = (): void => {
    const element = video.current as HTMLVideoElement;
    if (element.paused)
      void element.play().catch(() => {}); // ended by a pause before it began
    else element.pause();
  };
  const accelerate = (rate: number): void => {
    setSpeed(rate);
    (video.current as HTMLVideoElement).playbackRate = rate;
  };
  const onTime = (): void => {
    // The feed lets go of it when the page is left, and it says so.
    if (!video.current) return;
    const { currentTime, buffered } = video.current;
    setTime(currentTime);
    if (buffered.length > 0) setEnd((before) => Math.max(before, buffered.end(buffered.length - 1)));
  };
  const behind = length - time;
  return (
    <div class="live player">
      <div class="screen-frame">
        <video
          ref={video}
          playsInline
          muted
          onClick={toggle}
          onPlay={() => setPlaying(true)}
          onPause={() => setPlaying(false)}
          onTimeUpdate={onTime}
          onProgress={onTime}
          onWaiting={() => setWaiting(true)}
          onPlaying={() => setWaiting(false)}
          onCanPlay={() => setWaiting(false)}
          onSeeked={onTime}
          onLoadedData={() => setWaiting(false)}
        />
        {problem ? (
          <div class="veil" role="alert">
            <Icon name="warn" size={36} />
            <p>{problem}</p>
          </div>
        ) : (
          waiting && <span class="spinner over-video" />
        )}
      </div>
      <div class="line">
        <div class="line-marks">
          {length > 0 &&
            marks.map(({ id, at, type, words }) => (
              <span
                key={id}
                class={`line-mark ${type.split('.')[0]}`}
                style={{ left: `${(at / length) * 100}%` }}
                title={words}
              />
            ))}
        </div>
        <input
          type="range"
          min={0}
          max={Math.max(length, 0.1)}
          step={0.1}
          value={time}
          aria-label="Position"
          aria-valuetext={`${position(time)} of ${position(length)}`}
          style={{ '--done': `${length > 0 ? (time / length) * 100 : 0}%` }}
          onInput={(event) => seek(Number(event.currentTarget.value))}
        />
      </div>
      <div class="screen-bar">
        <button type="button" class="button primary icon-only" aria-label={playing ? 'Pause' : 'Play'} onClick={toggle}>
          <Icon name={playing ? 'pause' : 'play'} />
        </button>
        <span class="player-time">
          {position(time)} / {position(length)}
        </span>
        {grows && (
          <button
            type="button"
            class={behind < LIVE_WITHIN ? 'button small live-now' : 'button small'}
            onClick={() => {
              seek(length - LIVE_BEHIND);
              if (!playing) toggle();
            }}
          >
            <span class="dot refused" aria-hidden="true" /> {behind < LIVE_WITHIN ? 'Live' : 'Go live'}
          </button>
        )}
        <span class="spacer" />
        <label class="speed">
          <span class="off-screen">Speed</span>
          <select value={speed} onChange={(event) => accelerate(Number(event.currentTarget.value))}>
            {SPEEDS.map((rate) => (
              <option key={rate} value={rate}>
                {rate}×
              </option>
            ))}
          </select>
        </label>
        <button
          type="button"
          class="button ghost icon-only"
          title="Full screen"
          aria-label="Full screen"
          onClick={(event) =>
            void event.currentTarget
              .closest('.player')
              ?.requestFullscreen()
              .catch(() => {})
          }
        >
          <Icon name="full" />
        </button>
      </div>
    </div>
  );
}

function sentenceOf(err: unknown): string {
  if (err instanceof Deleted) return 'This part has been deleted while it was played.';
  if (err instanceof Unplayable) return `${err.message} Download it, or export it as MP4 and play it elsewhere.`;
  const { message, advice } = asFailure(err);
  return `It cannot be played: ${message} ${advice}`;
}
