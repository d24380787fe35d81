import { useEffect, useRef, useState } from 'preact/hooks';
import { asFailure, type Failure } from './api.ts';
import { signIn } from './session.ts';
import { Icon, Mark } from './ui/icons.tsx';

/** Asks for an API key, which goes to the service once and is kept nowhere. */
export function SignIn({ why }: { why: string | undefined }) {
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Failure>();
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = 'Sign in · Berth';
    field.current?.focus();
  }, []);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const key = field.current?.value.trim() ?? '';
    if (key === '') return field.current?.focus();
    setBusy(true);
    setFailure(undefined);
    try {
      // A header takes no other characters, and no key has them.
      if (!/^[\x21-\x7e]+$/.test(key)) throw new Error('An API key has neither spaces nor special characters.');
      await signIn(key);
    } catch (err) {
      setFailure(asFailure(err));
      setBusy(false);
      field.current?.select();
    }
  };
  return (
    <main class="sign-in">
      <form class="sign-in-card" onSubmit={submit}>
        <Mark size={44} />
        <h1>Sign in to Berth</h1>
        <p class="muted">
          {why ??
            'With one of the API keys of this service. It is exchanged for a session and not kept in this browser.'}
        </p>
        <label class="field">
          <span>API key</span>
          <input
            ref={field}
            type="password"
            name="key"
            autocomplete="current-password"
            spellcheck={false}
            autocapitalize="off"
            aria-invalid={failure !== undefined}
            aria-describedby={failure ? 'sign-in-problem' : undefined}
          />
        </label>
        {failure && (
          <p class="field-problem" id="sign-in-problem" role="alert">
            <Icon name="warn" size={16} />
            <span>
              {failure.message} {failure.status === 401 ? 'Check the key and try again.' : failure.advice}
            </span>
          </p>
        )}
        <button type="submit" class="button primary" disabled={busy}>
          {busy ? 'Signing in…' : 'Sign in'}
        </button>
        <p class="fine">
          Keys are made by whoever runs the service: <code>berth keys add</code>
        </p>
      </form>
    </main>
  );
}
