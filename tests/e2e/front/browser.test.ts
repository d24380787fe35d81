import { again } from './again.ts';

await again(() => import('../browser.test.ts'));
