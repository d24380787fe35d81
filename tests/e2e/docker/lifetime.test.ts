import { again } from './again.ts';

await again('lifetime', () => import('../lifetime.test.ts'));
