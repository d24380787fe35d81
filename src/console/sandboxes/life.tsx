import { useState } from 'preact/hooks';
import type { Sandbox } from '../../client/client.ts';
import { ask, http } from '../api.ts';
import { duration, moment } from '../format.ts';
import { Confirm, Dialog, FormFoot } from '../ui/dialog.tsx';
import { complain, say } from '../ui/notices.tsx';

interface LifeProps {
  readonly box: Sandbox;
  readonly look: () => Promise<void>;
  readonly onClose: () => void;
}

const HOUR = 3600;
const STEPS = [
  [15 * 60, '15 minutes'],
  [HOUR, '1 hour'],
  [4 * HOUR, '4 hours'],
  [24 * HOUR, '1 day'],
] as const;
/** As openapi.yaml has it. */
const LONGEST = 604_800;

/** Gives a sandbox more time. */
export function Extend({ box, look, onClose }: LifeProps) {
  const [more, setMore] = useState<number>(HOUR);
  const [idle, setIdle] = useState(String(box.sandboxIdleTimeoutSeconds));
  const [busy, setBusy] = useState(false);
  const lifetime = Math.min(LONGEST, box.maxLifetimeSeconds + more);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    try {
      const body = { maxLifetimeSeconds: lifetime, sandboxIdleTimeoutSeconds: Number(idle) };
      await ask(http.PATCH('/sandboxes/{id}', { params: { path: { id: box.sandboxId } }, body }));
      say('It has more time now.');
      await look();
      onClose();
    } catch (err) {
      complain(err);
      setBusy(false);
    }
  };
  return (
    <Dialog title="Extend" onClose={onClose}>
      <form onSubmit={submit} class="stack">
        <fieldset class="choices">
          <legend>More lifetime</legend>
          {STEPS.map(([seconds, words]) => (
            <label key={seconds} class="choice">
              <input type="radio" name="more" checked={more === seconds} onChange={() => setMore(seconds)} />
              <span>{words}</span>
            </label>
          ))}
        </fieldset>
        <p class="muted">
          It will end at {moment(new Date(Date.parse(box.createdAt) + lifetime * 1000).toISOString())} at the latest,{' '}
          {duration(lifetime * 1000)} after its creation.
        </p>
        <label class="field">
          <span>Idle timeout (seconds)</span>
          <input
            type="number"
            min={1}
            max={LONGEST}
            required
            value={idle}
            onInput={(event) => setIdle(event.currentTarget.value)}
          />
        </label>
        <FormFoot action="Extend" busy={busy} onClose={onClose} />
      </form>
    </Dialog>
  );
}

/** Ends a sandbox, once somebody has said yes. */
export function Stop({ box, look, onClose }: LifeProps) {
  const [busy, setBusy] = useState(false);
  const stop = async (): Promise<void> => {
    setBusy(true);
    try {
      await ask(http.DELETE('/sandboxes/{id}', { params: { path: { id: box.sandboxId } } }));
      say(`${box.sandboxId} has ended.`);
      await look();
      onClose();
    } catch (err) {
      complain(err);
      setBusy(false);
    }
  };
  const others = box.clients + box.viewers;
  return (
    <Confirm
      title="Stop this sandbox?"
      action="Stop sandbox"
      busy={busy}
      onConfirm={() => void stop()}
      onClose={onClose}
    >
      <p>
        Its browser ends with all its tabs and logins{others > 0 ? `, for everybody who is connected (${others})` : ''}.
        Recordings and downloads stay.
      </p>
    </Confirm>
  );
}
