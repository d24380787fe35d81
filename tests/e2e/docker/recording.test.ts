import { again } from './again.ts';

await again('recording', () => import('../recording.test.ts'));
