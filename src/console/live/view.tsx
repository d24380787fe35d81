import { to } from '../route.ts';
import { session } from '../session.ts';
import { Screen } from './screen.tsx';

interface LiveViewProps {
  readonly sandboxId: string;
  readonly viewport: { readonly width: number; readonly height: number };
}

/** The screen within the console, where the session opens it. */
export function LiveView({ sandboxId, viewport }: LiveViewProps) {
  const looksOnly = session.value.kind === 'in' && session.value.session.role === 'viewer';
  const options = { sandboxId, viewOnly: looksOnly, scale: true, reconnect: true, reconnectDelay: 1000 };
  return (
    <Screen
      options={options}
      viewport={viewport}
      autoconnect
      offer={(state) =>
        state.kind === 'ended' && (
          <a class="button" href={`${to('recordings')}?sandbox=${encodeURIComponent(sandboxId)}`}>
            Its recordings
          </a>
        )
      }
    />
  );
}
