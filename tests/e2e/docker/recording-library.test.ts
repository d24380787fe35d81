import { again } from './again.ts';

await again('recording library', () => import('../recording-library.test.ts'));
