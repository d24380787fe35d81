/**
 * The test runner: `node dist/tests/run.js [part of a path…]` runs every compiled `*.test.js`, or those whose path
 * contains one of the parts. The last line it prints is always `N passed, N failed[, N skipped]`.
 */
import { globSync } from 'node:fs';
