import { again } from './again.ts';

await again(() => import('../events.test.ts'));
