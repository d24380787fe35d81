import { again } from './again.ts';

await again(() => import('../door-fuzz.test.ts'));
