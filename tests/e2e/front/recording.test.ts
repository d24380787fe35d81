import { again } from './again.ts';

await again(() => import('../recording.test.ts'));
