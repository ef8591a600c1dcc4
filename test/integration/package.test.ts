import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';

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
