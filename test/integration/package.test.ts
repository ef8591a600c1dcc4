import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';

const read = async (name: string) => JSON.parse(await readFile(new URL(`../../${name}`, import.meta.url), 'utf8'));

interface Locked {
  dev?: true;
  optional?: true;
  hasInstallScript?: true;
  resolved?: string;
}

test('whoever installs the package gets what is tested here: npm ignores the overrides of a dependency', async () => {
  expect(await read('package.json')).not.toHaveProperty('overrides');
});

test('nothing that the package requires is built or run by its installation; the lock names no registry', async () => {
  const packages = Object.entries((await read('package-lock.json')).packages as Record<string, Locked>);
  expect(packages.length).toBeGreaterThan(10);
  const required = packages.filter(([, { dev, optional }]) => !dev && !optional);
  expect(required.filter(([, { hasInstallScript }]) => hasInstallScript).map(([path]) => path)).toEqual([]);
  expect(packages.filter(([, { resolved }]) => resolved?.startsWith('http')).map(([path]) => path)).toEqual([]);
});

test.each([
  ['0.0.0.0', '0.0.0.0'],
  ['127.0.0.2', '127.0.0.2'],
  ['::', '[::]'],
])("the container's health is asked where the daemon listens: %s", async (host, written) => {
  const dockerfile = await readFile(new URL('../../Dockerfile', import.meta.url), 'utf8');
  const [, ...argv] = JSON.parse(/^HEALTHCHECK .*CMD (\[.*\])$/m.exec(dockerfile)?.[1] ?? '[]') as string[];
  const server = createServer((socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'));
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const ask = (listen: string) => promisify(execFile)(process.execPath, argv, { env: { RECLAIMD_LISTEN: listen } });
  await ask(`${written}:${port}`);
  await ask('off');
  await expect(ask('127.0.0.3:1')).rejects.toMatchObject({ code: 1 });
});
