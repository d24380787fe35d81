import { again } from './again.ts';

await again(() => import('../bad-input.test.ts'));
