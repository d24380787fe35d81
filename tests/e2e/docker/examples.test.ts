import { again } from './again.ts';

await again('examples', () => import('../examples.test.ts'));
