import { again } from './again.ts';

await again(() => import('../vnc.test.ts'));
