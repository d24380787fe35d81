import { again } from './again.ts';

await again('admission', () => import('../admission.test.ts'));
