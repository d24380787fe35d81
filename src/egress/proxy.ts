import { Agent as HttpAgent, type IncomingMessage, STATUS_CODES } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { connect, isIP, isIPv4, type LookupFunction, type Socket } from 'node:net';
import { type PrepareRequestFunctionResult, RequestError, Server } from 'proxy-chain';
import {
  type EgressInput,
  type EgressRefusal,
  EgressRules,
  hostOf,
  type OperatorRules,
  operatorRefuses,
  proxyAddress,
} from '../core/egress.ts';
import type { Names } from './names.ts';

/** A server that does not take the connection in this time is not there, in milliseconds. */
const CONNECT_MS = 30_000;
/** Connections for plain http are used again within this time: less than any server keeps them, so that none closes under a request. */
const IDLE_MS = 1000;
/** Names that one sandbox may have looked up at once: each takes a thread of the few there are. */
const LOOKUPS = 16;

/** What a closed door says, to people. Never which address a name has led to. */
const SENTENCES: Readonly<Record<EgressRefusal, string>> = {
  berth: "it is Berth's own address, which no sandbox reaches",
  private: 'it is a private address, or a name that leads to one (BERTH_EGRESS_ALLOW opens such)',
  operator: 'the operator has closed it (BERTH_EGRESS_DENY)',
  deny: "it is in the sandbox's egress.deny",
  allow: "it is not in the sandbox's egress.allow",
};

/** One sandbox as the proxy knows it. */
export class Guest {
  readonly rules: EgressRules;
  readonly egress: EgressInput;
  /** Its own, since what is open for it may be closed for others. */
  readonly agent = new HttpAgent({ keepAlive: true, timeout: IDLE_MS });
  /** For what must not be sent twice, should the server close its connection just then: none is used again. */
  readonly onceAgent = new HttpAgent();
  readonly tlsAgent = new HttpsAgent();
  #free = LOOKUPS;
  readonly #waiting: (() => void)[] = [];

  constructor(operator: OperatorRules, egress: EgressInput) {
    this.rules = new EgressRules(operator, egress);
    this.egress = egress;
  }

  async find(names: Names, host: string): Promise<readonly string[]> {
    if (isIP(host) !== 0) return [host];
    if (this.#free === 0) await new Promise<void>((free) => this.#waiting.push(free));
    else this.#free--;
    try {
      return await names.find(host);
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }

  close(): void {
    for (const agent of [this.agent, this.onceAgent, this.tlsAgent]) agent.destroy();
  }
}

/** Where a request may go: straight to one of these addresses, or through an upstream proxy. */
type Way =
  | {
      readonly host: string;
      readonly port: number;
      readonly addresses: readonly string[];
      readonly upstream?: undefined;
    }
  | { readonly upstream: string; readonly addresses: readonly string[] };

/**
 * The HTTP proxy that all sandboxes go through. It resolves names itself, applies the rules to what they lead to, and connects
 * to the very addresses that it has looked at, so that a name which changes its mind in between gains nothing. Connections
 * come in by {@link take}, which says whose they are.
 */
export class EgressProxy extends Server {
  operator: OperatorRules;
  names: Names;
  readonly #onDenied: (refusal: EgressRefusal) => void;
  readonly #guests = new WeakMap<Socket, Guest>();
  readonly #ways = new WeakMap<IncomingMessage, Promise<Way>>();

  constructor(operator: OperatorRules, names: Names, onDenied: (refusal: EgressRefusal) => void) {
    super({ authRealm: 'Berth', prepareRequestFunction: ({ request, isHttp }) => this.#prepare(request, isHttp) });
    this.operator = operator;
    this.names = names;
    this.#onDenied = onDenied;
    // An upload may take longer than five minutes; and Chromium's idle connections are no burden.
    this.server.requestTimeout = 0;
    this.server.keepAliveTimeout = 60_000;
  }

  take(socket: Socket, guest: Guest): void {
    // The library takes a socket without one for a dead one; those of unix sockets have none.
    Object.defineProperty(socket, 'remoteAddress', { value: 'sandbox' });
    this.#guests.set(socket, guest);
    this.server.emit('connection', socket);
  }

  /**
   * The library's own tunnel leaves Nagle's algorithm on, which holds a small message back while another one is under way,
   * and hangs up without a word when nobody answers. Through an upstream proxy it is the library's.
   */
  override async onConnect(request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    try {
      const way = await this.#wayOf(request);
      if (way.upstream === undefined) return tunnel(way, socket, head);
    } catch (err) {
      return this.failRequest(request, err as Error);
    }
    return super.onConnect(request, socket, head);
  }

  async #prepare(request: IncomingMessage, isHttp: boolean): Promise<PrepareRequestFunctionResult> {
    const guest = this.#guestOf(request);
    // Says nothing but that there is a proxy.
    request.rawHeaders = withoutHeader(request.rawHeaders, 'proxy-connection');
    try {
      const { upstream, addresses } = await this.#wayOf(request);
      const httpAgent = ['GET', 'HEAD'].includes(request.method ?? '') ? guest.agent : guest.onceAgent;
      const httpsAgent = guest.tlsAgent;
      return { dnsLookup: pinned(addresses) as never, httpAgent, httpsAgent, upstreamProxyUrl: upstream ?? null };
    } catch (err) {
      if (!isHttp || !(err instanceof RequestError)) throw err;
      const { statusCode, message } = err;
      // Unlike an error it leaves the connection open, and is a page.
      return { customResponseFunction: () => ({ statusCode, headers: PAGE_HEADERS, body: page(statusCode, message) }) };
    }
  }

  #guestOf(request: IncomingMessage): Guest {
    const guest = this.#guests.get(request.socket);
    if (!guest) throw new RequestError('Nobody knows whose connection this is.', 403);
    return guest;
  }

  /** Once for each request, however often it is asked. */
  #wayOf(request: IncomingMessage): Promise<Way> {
    let way = this.#ways.get(request);
    if (!way) {
      way = this.#decide(this.#guestOf(request), request);
      this.#ways.set(request, way);
    }
    return way;
  }

  async #decide(guest: Guest, request: IncomingMessage): Promise<Way> {
    const { host, port } = targetOf(request);
    const { proxy } = guest.egress;
    // What is closed by its name is not even looked up; what is open may be so by its address.
    const byName = guest.rules.refuses(host, port, undefined);
    if (byName !== undefined && byName !== 'allow') throw this.#denied(host, byName);
    const found = await guest.find(this.names, host).catch((err: NodeJS.ErrnoException) => {
      // Names that only the upstream proxy can resolve are looked at as names.
      if (proxy) return [undefined];
      throw new RequestError(`${host} was not found: ${err.code ?? err.message}.`, 502);
    });
    const refusals = found.map((address) => guest.rules.refuses(host, port, address));
    const open = found.filter((_, i) => refusals[i] === undefined);
    if (open.length === 0) throw this.#denied(host, refusals[0] ?? 'private');
    if (proxy) return this.#upstream(guest, proxy);
    return { host, port, addresses: open as string[] };
  }

  async #upstream(guest: Guest, { url, username, password }: NonNullable<EgressInput['proxy']>): Promise<Way> {
    const { protocol, host, port } = proxyAddress(url);
    const found = await guest.find(this.names, host).catch((err: NodeJS.ErrnoException) => {
      throw new RequestError(`The upstream proxy was not found: ${err.code ?? err.message}.`, 502);
    });
    const refusals = found.map((address) => operatorRefuses(this.operator, host, port, address));
    const addresses = found.filter((_, i) => refusals[i] === undefined);
    if (addresses.length === 0) throw this.#denied('The upstream proxy', refusals[0] ?? 'private');
    const full = new URL(url);
    full.port = String(port);
    if (protocol === 'socks5:') {
      // The library resolves the names of these itself, so it gets the address. The h: the proxy resolves the target.
      full.protocol = 'socks5h:';
      const address = addresses.find(isIPv4) ?? (addresses[0] as string);
      full.hostname = isIPv4(address) ? address : `[${address}]`;
    }
    full.username = encodeURIComponent(username ?? '');
    full.password = encodeURIComponent(password ?? '');
    return { upstream: full.href, addresses };
  }

  #denied(what: string, refusal: EgressRefusal): RequestError {
    this.#onDenied(refusal);
    return new RequestError(`${what} is closed to this sandbox: ${SENTENCES[refusal]}.`, 403);
  }
}

/** Host and port of a request in absolute form, or of a CONNECT. */
function targetOf({ method, url = '' }: IncomingMessage): { readonly host: string; readonly port: number } {
  const connecting = /^([^:]+|\[[^\]]+\]):(\d{1,5})$/.exec(url);
  const parsed = method !== 'CONNECT' && URL.canParse(url) ? new URL(url) : undefined;
  const [name, port] = method === 'CONNECT' ? [connecting?.[1], connecting?.[2]] : [parsed?.hostname, parsed?.port];
  const host = name === undefined ? undefined : hostOf(name);
  const wanted = Number(port || 80);
  if (host === undefined || wanted < 1 || wanted > 65_535) {
    throw new RequestError('Nobody can tell where this request is to go.', 400);
  }
  return { host, port: wanted };
}

/** Stands in for a look-up, with addresses that have been looked at. */
function pinned(addresses: readonly string[]): LookupFunction {
  const all = addresses.map((address) => ({ address, family: isIPv4(address) ? 4 : 6 }));
  return (_host, options, callback) => {
    const fits = all.filter(({ family }) => !options.family || options.family === family);
    const [first] = fits;
    if (!first) callback(Object.assign(new Error('no address of this family'), { code: 'ENOTFOUND' }), '', 0);
    else if (options.all) callback(null, fits);
    else callback(null, first.address, first.family);
  };
}

/** Joins a CONNECT to its target, under back-pressure both ways. */
function tunnel({ host, port, addresses }: Way & { upstream?: undefined }, client: Socket, head: Buffer): void {
  const target = connect({ host, port, lookup: pinned(addresses), noDelay: true, keepAlive: true });
  const fail = (status: number, why: string): void => {
    target.destroy();
    client.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nconnection: close\r\n\r\n${why}\n`);
  };
  const late = setTimeout(() => fail(504, `${host} did not answer within ${CONNECT_MS / 1000} s.`), CONNECT_MS);
  let up = false;
  target.once('connect', () => {
    up = true;
    clearTimeout(late);
    client.write('HTTP/1.1 200 Connection Established\r\n\r\n');
    if (head.length > 0) target.write(head);
    client.pipe(target);
    target.pipe(client);
  });
  target.on('error', (err: NodeJS.ErrnoException) => {
    if (up) client.destroy();
    else fail(502, `${host} could not be reached: ${err.code ?? 'error'}.`);
  });
  client.on('error', () => target.destroy());
  client.on('close', () => {
    clearTimeout(late);
    target.destroy();
  });
}

function withoutHeader(raw: readonly string[], name: string): string[] {
  return raw.filter((_, i) => raw[i - (i % 2)]?.toLowerCase() !== name);
}

const PAGE_HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': "default-src 'none'",
  'cache-control': 'no-store',
};

function page(status: number, sentence: string): string {
  const text = sentence.replace(/[<>&]/g, (letter) => `&#${letter.charCodeAt(0)};`);
  return `<!doctype html><meta charset="utf-8"><title>${status} ${STATUS_CODES[status]}</title><h1>${STATUS_CODES[status]}</h1><p>${text}</p>\n`;
}
