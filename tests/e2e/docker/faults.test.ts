import { again } from './again.ts';

await again('faults', () => import('../faults.test.ts'));
