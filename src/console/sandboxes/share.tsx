import { useEffect, useState } from 'preact/hooks';
import type { Sandbox } from '../../client/client.ts';
import { asFailure, type Failure } from '../api.ts';
import { useNow } from '../clock.ts';
import { duration } from '../format.ts';
import { type IssuedTicket, issue, issued, type NewTicket, revoke, type TicketRole } from '../tickets.ts';
import { CopyButton } from '../ui/copy.tsx';
import { Dialog } from '../ui/dialog.tsx';
import { Icon } from '../ui/icons.tsx';
import { complain, Problem, say } from '../ui/notices.tsx';

const ROLES: readonly { readonly role: TicketRole; readonly label: string; readonly about: string }[] = [
  { role: 'view', label: 'Watch', about: 'Sees the screen. Keys and clicks go nowhere.' },
  { role: 'control', label: 'Control', about: 'Sees the screen, types and clicks.' },
  { role: 'automation', label: 'Automate', about: 'Drives the browser over CDP.' },
];
const TIMES = [
  [15 * 60, '15 minutes'],
  [3600, '1 hour'],
  [24 * 3600, '1 day'],
  [7 * 24 * 3600, '1 week'],
] as const;

/** Makes links that somebody without a key may open, and takes them back. */
export function Share({ box, onClose }: { box: Sandbox; onClose: () => void }) {
  const [role, setRole] = useState<TicketRole>('view');
  const [seconds, setSeconds] = useState<number>(3600);
  const [oneTime, setOneTime] = useState(false);
  const [busy, setBusy] = useState(false);
  const [made, setMade] = useState<NewTicket>();
  const [tickets, setTickets] = useState<readonly IssuedTicket[]>();
  const [failure, setFailure] = useState<Failure>();
  const id = box.sandboxId;
  const look = (): Promise<void> => issued(id).then(setTickets, (err) => setFailure(asFailure(err)));
  useEffect(() => void look(), [id]);
  const make = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setFailure(undefined);
    try {
      setMade(await issue(id, role, seconds, oneTime));
      await look();
    } catch (err) {
      setFailure(asFailure(err));
    } finally {
      setBusy(false);
    }
  };
  const takeBack = async (ticketId?: string): Promise<void> => {
    try {
      await revoke(id, ticketId);
      say(ticketId === undefined ? 'All links have ended.' : 'The link has ended.');
      if (ticketId === undefined || made?.ticketId === ticketId) setMade(undefined);
      await look();
    } catch (err) {
      complain(err);
    }
  };
  const link = made && (made.liveViewUrl ?? made.url);
  return (
    <Dialog title="Share" onClose={onClose}>
      <form onSubmit={make} class="stack">
        <fieldset class="choices tall">
          <legend>What the link allows</legend>
          {ROLES.map((one) => (
            <label key={one.role} class="choice">
              <input type="radio" name="role" checked={role === one.role} onChange={() => setRole(one.role)} />
              <span>
                <strong>{one.label}</strong>
                <span class="fine">{one.about}</span>
              </span>
            </label>
          ))}
        </fieldset>
        <div class="row">
          <label class="field">
            <span>Valid for</span>
            <select value={seconds} onChange={(event) => setSeconds(Number(event.currentTarget.value))}>
              {TIMES.map(([value, words]) => (
                <option key={value} value={value}>
                  {words}
                </option>
              ))}
            </select>
          </label>
          <label class="check">
            <input type="checkbox" checked={oneTime} onChange={(event) => setOneTime(event.currentTarget.checked)} />
            <span>Good for one connection</span>
          </label>
        </div>
        <button type="submit" class="button primary" disabled={busy}>
          {busy ? 'One moment…' : 'Make a link'}
        </button>
      </form>
      {failure && <Problem failure={failure} />}
      {link && (
        <div class="made" role="status">
          <p>
            <strong>Here it is.</strong> It is shown this once; whoever has it needs no key.
          </p>
          <div class="code-line">
            <code class="clip" data-testid="link">
              {link}
            </code>
            <CopyButton text={link} what="the link" />
          </div>
        </div>
      )}
      <Issued tickets={tickets} onRevoke={(ticketId) => void takeBack(ticketId)} />
    </Dialog>
  );
}

interface IssuedProps {
  readonly tickets: readonly IssuedTicket[] | undefined;
  readonly onRevoke: (ticketId?: string) => void;
}

function Issued({ tickets, onRevoke }: IssuedProps) {
  const now = useNow();
  const valid = tickets?.filter(({ expiresAt }) => Date.parse(expiresAt) > now) ?? [];
  if (valid.length === 0) return null;
  return (
    <section class="issued" aria-label="Links that are valid">
      <h3>Valid now</h3>
      <ul>
        {valid.map(({ ticketId, role, oneTime, expiresAt, used }) => (
          <li key={ticketId}>
            <span>
              <strong>{ROLES.find((one) => one.role === role)?.label ?? role}</strong>{' '}
              <span class="muted">
                {duration(Date.parse(expiresAt) - now)} left{oneTime ? ', for one connection' : ''}
                {used ? ', used' : ''}
              </span>
            </span>
            <button
              type="button"
              class="button ghost icon-only"
              aria-label={`End the link ${ticketId}`}
              title="End this link"
              onClick={() => onRevoke(ticketId)}
            >
              <Icon name="trash" size={16} />
            </button>
          </li>
        ))}
      </ul>
      <button type="button" class="button small danger-text" onClick={() => onRevoke()}>
        End all, the ones in addresses handed out before included
      </button>
    </section>
  );
}
