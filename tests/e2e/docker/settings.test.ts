import { again } from './again.ts';

await again('settings', () => import('../settings.test.ts'));
