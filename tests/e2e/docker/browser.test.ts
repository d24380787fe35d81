import { again } from './again.ts';

await again('browser', () => import('../browser.test.ts'));
