import { again } from '../../e2e/docker/again.ts';

await again('matrix', () => import('../matrix.test.ts'));
