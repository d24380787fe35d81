import { WsGateway } from '../../src/gateway/ws-server.ts';
import { describeWebSocket } from './websocket.ts';

describeWebSocket('the ws package', (options) => new WsGateway(options));
