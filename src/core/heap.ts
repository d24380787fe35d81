import { setFlagsFromString } from 'node:v8';

/**
 * Imported first by programs of ours that run for long: V8 lets the space for new objects grow to 32 MB (node --max-semi-space-size)
 * when many are made at once, as 2,000 upgrades do, and seldom gives it back. Kept at its first 2 MB it is collected more often, and
 * no slower, since little in it outlives a message. This factor is read at each growth, the maximum itself only when the VM starts.
 */
setFlagsFromString('--semi-space-growth-factor=1');
