import { request } from 'node:http';

interface EngineAnswer {
  readonly status: number;
  /** Undefined where the answer is no JSON. */
  readonly body: unknown;
}

/** One call of the engine's API, which Docker and Podman share. Rejects when nobody answers within five seconds. */
export function askEngine(socketPath: string, method: string, path: string): Promise<EngineAnswer> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, method, path, timeout: 5_000 }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk) => (text += chunk));
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: parsed(text) }));
    });
    asked.once('timeout', () => asked.destroy(new Error('no answer within 5 s')));
    asked.once('error', reject);
    asked.end();
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
