import { again } from './again.ts';

await again('A page that does its worst', () => import('../hostile.test.ts'));
