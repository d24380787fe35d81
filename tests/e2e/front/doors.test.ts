import { again } from './again.ts';

await again(() => import('../doors.test.ts'));
