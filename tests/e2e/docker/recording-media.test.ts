import { again } from './again.ts';

await again('recording media', () => import('../recording-media.test.ts'));
