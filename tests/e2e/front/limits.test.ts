import { again } from './again.ts';

await again(() => import('../limits.test.ts'));
