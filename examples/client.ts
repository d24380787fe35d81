// The typed client: node dist/examples/client.js
import { BerthClient } from '../src/client/client.ts';

const berth = new BerthClient(process.env.BERTH_URL ?? 'http://127.0.0.1:3000', process.env.BERTH_API_KEY);
const sandbox = await berth.create({ recording: 'always', metadata: { made: 'by the example' } });
try {
  console.log(`${sandbox.sandboxId} is ${sandbox.status}; watch it at ${sandbox.liveViewUrl}`);
} finally {
  const ended = await berth.delete(sandbox.sandboxId);
  console.log(`${ended.status}: ${ended.endedReason}`);
}
for (const recording of await berth.recordings(sandbox.sandboxId)) console.log(recording.filename, recording.status);
