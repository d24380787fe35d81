import { again } from '../../e2e/docker/again.ts';

await again('recordings', () => import('../recordings.test.ts'));
