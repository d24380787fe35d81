import { again } from './again.ts';

await again(() => import('../pressure.test.ts'));
