import { again } from './again.ts';

await again('events', () => import('../events.test.ts'));
