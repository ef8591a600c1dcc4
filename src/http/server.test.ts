import { connect } from 'node:net';
import { Counter, Registry } from 'prom-client';
import { expect, onTestFinished, test } from 'vitest';
import { createLogger } from '../runtime/logger.ts';
import { AddressUnavailable, type HttpOptions, ListenFailed, startHttpServer } from './server.ts';

const log = createLogger('silent', 'test');

async function start(options: Partial<HttpOptions> = {}) {
  const registry = new Registry();
  new Counter({ name: 'tries_total', help: 'Tries.', registers: [registry] });
  const server = await startHttpServer(
    {
      listen: { host: '127.0.0.1', port: 0 },
      registry,
      livez: () => ({ ok: true, detail: { stalled: [] } }),
      readyz: () => ({ ok: true, detail: { database: 'up' } }),
      ...options,
    },
    { log },
  );
  onTestFinished(() => server.close());
  return server;
}

test('/metrics is what the registry holds, in the format that it says', async () => {
  const { url } = await start();
  const response = await fetch(`${url}/metrics`);
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toContain('version=0.0.4');
  expect(await response.text()).toContain('tries_total 0');
});

test.each(['/livez', '/healthz'])('%s says whether the loops turn', async (path) => {
  const health = { ok: true, detail: { stalled: [] as string[] } };
  const { url } = await start({ livez: () => health });
  const live = await fetch(`${url}${path}`);
  expect([live.status, await live.json()]).toEqual([200, { ok: true, stalled: [] }]);
  Object.assign(health, { ok: false, detail: { stalled: ['sweep'] } });
  const stalled = await fetch(`${url}${path}`);
  expect([stalled.status, await stalled.json()]).toEqual([503, { ok: false, stalled: ['sweep'] }]);
});

test('/readyz is 503 with its detail until the daemon could act, and says nothing of /livez', async () => {
  const { url } = await start({ readyz: () => ({ ok: false, detail: { database: 'down' } }) });
  const ready = await fetch(`${url}/readyz`);
  expect([ready.status, await ready.json()]).toEqual([503, { ok: false, database: 'down' }]);
  expect((await fetch(`${url}/livez`)).status).toBe(200);
});

test('the landing page links to every page', async () => {
  const { url } = await start();
  const response = await fetch(url);
  expect(response.headers.get('content-type')).toContain('text/html');
  const page = await response.text();
  for (const path of ['/metrics', '/livez', '/readyz']) expect(page).toContain(`href="${path}"`);
});

test.each(['/', '/metrics', '/livez', '/readyz'])('HEAD %s has the headers of GET and no body', async (path) => {
  const { url } = await start();
  const [head, get] = await Promise.all([fetch(`${url}${path}`, { method: 'HEAD' }), fetch(`${url}${path}`)]);
  expect(head.status).toBe(get.status);
  expect(head.headers.get('content-length')).toBe(get.headers.get('content-length'));
  expect(await head.text()).toBe('');
});

test.each(['POST', 'PUT', 'DELETE', 'OPTIONS'])('%s is refused, and the answer says what is allowed', async (method) => {
  const { url } = await start();
  const response = await fetch(`${url}/metrics`, { method });
  expect(response.status).toBe(405);
  expect(response.headers.get('allow')).toBe('GET, HEAD');
});

test.each(['/nothing', '/metrics/', '/constructor', '/__proto__'])('%s is not there, and the answer says what is', async (path) => {
  const { url } = await start();
  const response = await fetch(`${url}${path}`);
  expect(response.status).toBe(404);
  expect((await response.json()) as object).toMatchObject({ pages: ['/', '/metrics', '/livez', '/healthz', '/readyz'] });
});

test('a query string does not hide a page', async () => {
  const { url } = await start();
  expect((await fetch(`${url}/livez?verbose`)).status).toBe(200);
});

test('a page that cannot be made is a 500, and the next one is served', async () => {
  let failing = true;
  const { url } = await start({
    readyz: () => {
      if (failing) throw new Error('a bug');
      return { ok: true, detail: {} };
    },
  });
  const failed = await fetch(`${url}/readyz`);
  expect(failed.status).toBe(500);
  expect(await failed.text()).not.toContain('a bug');
  failing = false;
  expect((await fetch(`${url}/readyz`)).status).toBe(200);
});

test('an address that is taken, or not there, may be so for a moment; one that is none never serves. The error names the variable', async () => {
  const { url } = await start();
  const port = Number(new URL(url).port);
  const second = start({ listen: { host: '127.0.0.1', port } });
  await expect(second).rejects.toThrow(AddressUnavailable);
  await expect(second).rejects.toThrow(`RECLAIMD_LISTEN: cannot listen on 127.0.0.1:${port} (EADDRINUSE)`);
  await expect(start({ listen: { host: '192.0.2.1', port } })).rejects.toThrow(AddressUnavailable);
  await expect(start({ listen: { host: 'fe80::1', port } })).rejects.toThrow(ListenFailed);
});

test('an address in IPv6 is written as one, in the URL and in the error', async () => {
  const listen = { host: '::1', port: 0 };
  const { url } = await start({ listen });
  expect(url).toMatch(/^http:\/\/\[::1\]:\d+$/);
  expect((await fetch(`${url}/livez`)).status).toBe(200);
  await expect(start({ listen: { ...listen, port: Number(new URL(url).port) } })).rejects.toThrow('cannot listen on [::1]:');
});

test('close ends connections that are kept alive, and those that never asked anything', async () => {
  const { url, close } = await start();
  const { hostname, port } = new URL(url);
  const idle = connect(Number(port), hostname);
  await new Promise((resolve) => idle.once('connect', resolve));
  const ended = new Promise((resolve) => idle.once('close', resolve));
  await (await fetch(`${url}/livez`)).text();
  const startedAt = performance.now();
  await close();
  await ended;
  expect(performance.now() - startedAt).toBeLessThan(2_000);
  await expect(fetch(`${url}/livez`)).rejects.toThrow();
});
