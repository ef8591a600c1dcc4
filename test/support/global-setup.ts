import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { startEmbeddedPostgres } from '../../src/postgres/embedded.ts';
import { administer } from './administer.ts';
import { COMPILE_CACHE } from './compile-cache.ts';
import { createFleetTemplate } from './fleet-template.ts';
import { binariesOfMajor } from './postgres-majors.ts';

declare module 'vitest' {
  interface ProvidedContext {
    databaseUrl: string;
    /** The database that each test's is a copy of. */
    fleetTemplate: string;
  }
}

/** One Postgres for the whole run: TEST_DATABASE_URL's, or a private one of TEST_POSTGRES_MAJOR. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  Object.assign(process.env, COMPILE_CACHE);
  const given = process.env['TEST_DATABASE_URL'];
  if (given !== undefined) {
    const template = await createFleetTemplate(given);
    project.provide('databaseUrl', given);
    project.provide('fleetTemplate', template);
    return () => administer(given, `DROP DATABASE ${template}`);
  }
  const directory = await mkdtemp(join(tmpdir(), 'reclaimd-test-'));
  const major = process.env['TEST_POSTGRES_MAJOR'] ?? '18';
  const server = await startEmbeddedPostgres(directory, { binaries: await binariesOfMajor(major), settings: { fsync: 'off' } });
  project.provide('databaseUrl', server.url);
  project.provide('fleetTemplate', await createFleetTemplate(server.url));
  return async () => {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  };
}
