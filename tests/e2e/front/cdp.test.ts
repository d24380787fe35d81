import { again } from './again.ts';

await again(() => import('../cdp.test.ts'));
