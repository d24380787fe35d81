import { again } from './again.ts';

await again(() => import('../viewers.test.ts'));
