import { again } from './again.ts';

await again(() => import('../admission.test.ts'));
