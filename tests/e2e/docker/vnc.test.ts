import { again } from './again.ts';

await again('vnc', () => import('../vnc.test.ts'));
