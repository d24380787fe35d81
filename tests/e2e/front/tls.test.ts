import { again } from './again.ts';

await again(() => import('../tls.test.ts'));
