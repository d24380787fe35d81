import { again } from './again.ts';

await again('bad-input', () => import('../bad-input.test.ts'));
