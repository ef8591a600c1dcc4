import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, isIPv6 } from 'node:net';
import type { Registry } from 'prom-client';
import { errorFields, type Logger } from '../runtime/logger.ts';

export interface Health {
  ok: boolean;
  detail: object;
}

export interface HttpOptions {
  listen: { host: string; port: number };
  registry: Registry;
  /** Loops turn. Never asks the database. */
  livez(): Health;
  /** Could act now. From what the loops know; never asks the database either. */
  readyz(): Health;
}

/** The address can never be listened on. */
export class ListenFailed extends Error {
  override readonly name = 'ListenFailed';
}

/** Taken, or not this host's: maybe for a moment only, so it is no error of the configuration. */
export class AddressUnavailable extends Error {
  override readonly name = 'AddressUnavailable';
}

const PASSING = ['EADDRINUSE', 'EADDRNOTAVAIL', 'EAI_AGAIN'];

const LANDING_PAGE = `<!doctype html><html lang="en"><title>reclaimd</title><h1>reclaimd</h1>
<p>Recovery supervisor for pg-boss workers.</p>
<ul><li><a href="/metrics">/metrics</a><li><a href="/livez">/livez</a> (also /healthz)<li><a href="/readyz">/readyz</a></ul></html>
`;

interface Answer {
  status: number;
  type: string;
  body: string;
}

/** Serves metrics and health from memory: a scrape costs the database nothing. */
export async function startHttpServer(options: HttpOptions, { log }: { log: Logger }): Promise<{ url: string; close(): Promise<void> }> {
  const { host, port } = options.listen;
  const pages: Record<string, () => Answer | Promise<Answer>> = {
    '/': () => ({ status: 200, type: 'text/html; charset=utf-8', body: LANDING_PAGE }),
    '/metrics': async () => ({ status: 200, type: options.registry.contentType, body: await options.registry.metrics() }),
    '/livez': () => health(options.livez()),
    '/healthz': () => health(options.livez()),
    '/readyz': () => health(options.readyz()),
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD');
      return send(request, response, json(405, { error: `method ${request.method} is not allowed`, allowed: ['GET', 'HEAD'] }));
    }
    const path = (request.url ?? '/').split('?', 1)[0] ?? '/';
    const page = Object.hasOwn(pages, path) ? pages[path] : undefined;
    return send(request, response, page ? await page() : json(404, { error: `nothing at ${path}`, pages: Object.keys(pages) }));
  }

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      log.error(errorFields(error), 'an http request failed');
      if (response.headersSent) response.destroy();
      else send(request, response, json(500, { error: 'the page could not be made; see the log' }));
    });
  });
  server.requestTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const Class = PASSING.includes(cause.code ?? '') ? AddressUnavailable : ListenFailed;
      reject(
        new Class(
          `RECLAIMD_LISTEN: cannot listen on ${isIPv6(host) ? `[${host}]` : host}:${port} (${cause.code}); give another address, port 0 for a free one, or \`off\``,
          { cause },
        ),
      );
    });
    server.listen(port, host, resolve);
  });
  const { address, family, port: taken } = server.address() as AddressInfo;
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${taken}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function health({ ok, detail }: Health): Answer {
  return json(ok ? 200 : 503, { ok, ...detail });
}

function json(status: number, value: object): Answer {
  return { status, type: 'application/json', body: `${JSON.stringify(value)}\n` };
}

function send(request: IncomingMessage, response: ServerResponse, { status, type, body }: Answer): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(request.method === 'HEAD' ? undefined : body);
}
