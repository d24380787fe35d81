import { again } from './again.ts';

await again('egress', () => import('../egress.test.ts'));
