import { again } from './again.ts';

await again('console', () => import('../console.test.ts'));
