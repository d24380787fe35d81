import { again } from './again.ts';

await again('viewers', () => import('../viewers.test.ts'));
