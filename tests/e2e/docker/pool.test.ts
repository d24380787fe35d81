import { again } from './again.ts';

await again('pool', () => import('../pool.test.ts'));
