import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { startEmbeddedPostgres } from '../../src/postgres/embedded.ts';
import { COMPILE_CACHE } from './compile-cache.ts';
import { binariesOfMajor } from './postgres-majors.ts';

declare module 'vitest' {
  interface ProvidedContext {
    databaseUrl: string;
  }
}

/** One Postgres for the whole run: TEST_DATABASE_URL's, or a private one of TEST_POSTGRES_MAJOR. */
export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  Object.assign(process.env, COMPILE_CACHE);
  const given = process.env['TEST_DATABASE_URL'];
  if (given !== undefined) {
    project.provide('databaseUrl', given);
    return undefined;
  }
  const directory = await mkdtemp(join(tmpdir(), 'reclaimd-test-'));
  const major = process.env['TEST_POSTGRES_MAJOR'] ?? '18';
  const server = await startEmbeddedPostgres(directory, { binaries: await binariesOfMajor(major), settings: { fsync: 'off' } });
  project.provide('databaseUrl', server.url);
  return async () => {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  };
}
