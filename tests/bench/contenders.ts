/** Clients of one Chromium, one client by each way there is to it. */
import type { DriverName } from '../e2e/drivers.ts';
import { pinToOneCpu } from './measure.ts';
import type { Bench, Program } from './part.ts';
import { gatewayOnWs, peers, SANDBOX_PATH } from './proxies.ts';
import { browserPort, canEnterNetworks, drivers, pidsOf, runtimeOf } from './sandbox.ts';

export interface Contender {
  /** `direct`, `nginx`, …, `berth`, `berth, ws front`. */
  readonly name: string;
  readonly driver: DriverName;
  readonly client: Program;
  /** What stands between client and browser. */
  readonly relays: readonly number[];
}

/** As it is called in a table. */
export function wayOf({ name, driver }: Contender): string {
  return `${driver === 'docker' ? 'docker ' : ''}${name}`;
}

/** The direct way to the same browser. */
export function directOf({ driver }: Contender, all: readonly Contender[]): Contender {
  return all.find((one) => one.name === 'direct' && one.driver === driver) as Contender;
}

export interface ContenderOptions {
  /** Of each client. Default: 1. */
  readonly sessions?: number;
  /** Puts clients, proxies and browsers on one CPU. Default: false. */
  readonly pin?: boolean;
  /** One more for `BERTH_FRONT=ws`. Default: false. */
  readonly wsFront?: boolean;
  /** Of tests/bench/programs; told where to connect and `sessions`. Default: `client`. */
  readonly program?: 'client' | 'loader';
}

/**
 * One sandbox for each driver, whose Chromium is met directly, through Berth and, where this machine sees its port, through the
 * other proxies.
 */
export async function contenders(bench: Bench, options: ContenderOptions): Promise<Contender[]> {
  const { sessions = 1, pin = false, wsFront = false, program = 'client' } = options;
  const all: Contender[] = [];
  for (const driver of await drivers(bench)) {
    if (driver === 'docker' && !canEnterNetworks(bench)) continue;
    const service = await bench.service(driver);
    const { sandboxId, cdpUrl } = await service.client.create({ sandboxIdleTimeoutSeconds: 3600 });
    const browser = await browserPort(service, sandboxId);
    const at = (port: number): string => `ws://127.0.0.1:${port}${browser.path}`;
    const add = async (name: string, url: string, relays: readonly number[], inNetworkOf?: number): Promise<void> => {
      all.push({ name, driver, client: await bench.program(program, [url, sessions], inNetworkOf), relays });
    };
    await add('direct', at(browser.port), [], driver === 'docker' ? browser.pid : undefined);
    if (driver === 'local') {
      for (const start of peers(bench)) {
        const { name, port, pids } = await start(bench, browser.port);
        await add(name, at(port), pids);
      }
    }
    const inside = await pidsOf(service, sandboxId);
    const ours = [service.process.pid as number];
    if (driver === 'docker') ours.push(await runtimeOf(inside));
    await add('berth', cdpUrl as string, ours);
    if (driver === 'local' && wsFront) {
      // The gateway without the rest of the service, so that it can be before the same browser.
      const { name, port, pids } = await gatewayOnWs(bench, browser.port, browser.path);
      await add(name, `ws://127.0.0.1:${port}${SANDBOX_PATH}`, pids);
    }
    if (pin) pinToOneCpu([...inside, ...(await pidsOf(service, sandboxId))]);
  }
  if (pin) pinToOneCpu(all.flatMap(({ client, relays }) => [client.pid, ...relays]));
  return all;
}
