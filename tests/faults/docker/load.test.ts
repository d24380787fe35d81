import { again } from '../../e2e/docker/again.ts';

await again('load', () => import('../load.test.ts'));
