import { again } from './again.ts';

await again(() => import('../headers.test.ts'));
