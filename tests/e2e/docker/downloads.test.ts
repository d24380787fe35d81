import { again } from './again.ts';

await again('downloads', () => import('../downloads.test.ts'));
