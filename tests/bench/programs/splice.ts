/** The hop that a container's runtime adds, as it is in the runtime, in front of a port that stands for the browser. */
import { createServer } from 'node:http';
import { keepNewSpaceSmall } from '../../../src/core/heap.ts';
import { spliceUpgrade } from '../../../src/runtime/splice.ts';
import { args, serve } from './answer.ts';

const [port, path] = args as [number, string];
keepNewSpaceSmall();
const server = createServer();
server.on('upgrade', (req, socket, head) => spliceUpgrade(req, socket, head, port, req.url ?? '/'));
server.listen(path, () => serve({}));
