import { asFailure, type Failure } from '../api.ts';
import { createStore, useStore } from '../store.ts';
import { Icon } from './icons.tsx';

interface Toast {
  readonly id: number;
  readonly text: string;
  readonly bad: boolean;
}

const toasts = createStore<readonly Toast[]>([]);
let nextId = 1;

/** Says something for a few seconds, also to a screen reader. */
export function say(text: string, bad = false): void {
  const toast = { id: nextId++, text, bad };
  toasts.set([...toasts.value.slice(-3), toast]);
  setTimeout(() => drop(toast.id), bad ? 10_000 : 4000);
}

/** What went wrong, and what to do about it. */
export function complain(err: unknown): void {
  const { message, advice } = asFailure(err);
  say(advice ? `${message} ${advice}` : message, true);
}

function drop(id: number): void {
  toasts.set(toasts.value.filter((toast) => toast.id !== id));
}

export function Toasts() {
  const shown = useStore(toasts);
  return (
    <div class="toasts" role="status" aria-live="polite">
      {shown.map(({ id, text, bad }) => (
        <div key={id} class={bad ? 'toast bad' : 'toast'}>
          <Icon name={bad ? 'warn' : 'check'} />
          <span>{text}</span>
          <button type="button" class="button ghost icon-only" aria-label="Dismiss" onClick={() => drop(id)}>
            <Icon name="close" size={16} />
          </button>
        </div>
      ))}
    </div>
  );
}

/** A failure where its subject would be. */
export function Problem({ failure, onRetry }: { failure: Failure; onRetry?: () => void }) {
  return (
    <div class="problem" role="alert">
      <Icon name="warn" size={22} />
      <div>
        <strong>{failure.message}</strong>
        {failure.advice && <p>{failure.advice}</p>}
        {onRetry && (
          <button type="button" class="button small" onClick={onRetry}>
            Try again
          </button>
        )}
      </div>
    </div>
  );
}

/** Where there is nothing to list. */
export function Nothing({ title, children }: { title: string; children?: preact.ComponentChildren }) {
  return (
    <div class="nothing">
      <h2>{title}</h2>
      {children}
    </div>
  );
}
