import { useRef } from 'preact/hooks';
import type { Sandbox } from '../../client/client.ts';
import { useNow } from '../clock.ts';
import { counted, duration, endedBecause, moment } from '../format.ts';
import { to } from '../route.ts';
import { deadline, isLive } from '../sandboxes.ts';
import { Icon } from '../ui/icons.tsx';
import { useVisible } from '../ui/visible.ts';
import { Status } from './status.tsx';
import { Thumbnail } from './thumbnail.tsx';

/** One sandbox of the list. What nobody can see of it is not there: a list of hundreds stays as quick as one of ten. */
export function Card({ box }: { box: Sandbox }) {
  const item = useRef<HTMLLIElement>(null);
  const visible = useVisible(item);
  return (
    <li ref={item} class="card">
      <a class="card-link" href={to('sandboxes', box.sandboxId)}>
        <div class="thumb">{visible && <Thumbnail box={box} />}</div>
        <div class="card-text">
          <div class="card-title">
            <span class="card-id">{box.sandboxId}</span>
            <Status box={box} />
          </div>
          {visible && <Facts box={box} />}
        </div>
      </a>
    </li>
  );
}

function Facts({ box }: { box: Sandbox }) {
  const live = isLive(box);
  const now = useNow(live);
  const ends = deadline(box);
  const labels = Object.entries(box.metadata);
  return (
    <>
      <p class="facts">
        {live ? (
          <span title={`Created ${moment(box.createdAt)}`}>{duration(now - Date.parse(box.createdAt))} old</span>
        ) : (
          <span title={endedBecause(box.endedReason)}>ended {moment(box.endedAt ?? box.lastUpdatedAt)}</span>
        )}
        {ends && (
          <span class={ends.at - now < 60_000 ? 'soon' : ''} title={`By the ${ends.why}`}>
            ends in {duration(ends.at - now)}
          </span>
        )}
      </p>
      <p class="facts">
        {live && (
          <>
            <span title={counted(box.clients, 'CDP client')}>
              <Icon name="plug" size={14} /> {box.clients}
              <span class="off-screen"> clients</span>
            </span>
            <span title={counted(box.viewers, 'viewer')}>
              <Icon name="eye" size={14} /> {box.viewers}
              <span class="off-screen"> viewers</span>
            </span>
          </>
        )}
        {!live && <span class="clip">{endedBecause(box.endedReason)}</span>}
        {labels.slice(0, 2).map(([key, value]) => (
          <span key={key} class="label" title={`${key}: ${value}`}>
            {key}: {value}
          </span>
        ))}
        {labels.length > 2 && <span class="label">+{labels.length - 2}</span>}
      </p>
    </>
  );
}
