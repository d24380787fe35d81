import type { Sandbox } from '../../client/client.ts';

const WORDS: Readonly<Record<Sandbox['status'], string>> = {
  CREATING: 'Starting',
  READY: 'Running',
  TERMINATED: 'Ended',
  FAILED: 'Failed',
};

/** In colour and in words; whether it is being recorded, too. */
export function Status({ box }: { box: Pick<Sandbox, 'status' | 'recording'> }) {
  return (
    <span class="statuses">
      {box.recording.state === 'recording' && (
        <span class="status rec" title="It is being recorded">
          REC
        </span>
      )}
      {(box.recording.state === 'paused' || box.recording.state === 'failed') && (
        <span class="status failed" title={box.recording.error ?? ''}>
          REC {box.recording.state}
        </span>
      )}
      <span class={`status ${box.status.toLowerCase()}`}>{WORDS[box.status]}</span>
    </span>
  );
}
