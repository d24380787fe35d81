import { again } from './again.ts';

await again('recording archive', () => import('../recording-archive.test.ts'));
