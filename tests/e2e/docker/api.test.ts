import { again } from './again.ts';

await again('api', () => import('../api.test.ts'));
