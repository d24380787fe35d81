import { again } from './again.ts';

await again('cdp', () => import('../cdp.test.ts'));
