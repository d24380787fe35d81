import { again } from './again.ts';

await again('egress-upstream', () => import('../egress-upstream.test.ts'));
