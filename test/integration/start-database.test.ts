import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { expect, onTestFinished, test } from 'vitest';
import { startDatabase } from '../../src/cli/start-database.ts';
import { SchemaIsNewer } from '../../src/postgres/migrate.ts';
import { testConfig } from '../support/daemon.ts';

async function query(url: string, statement: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return (await client.query(statement).finally(() => client.end())).rows;
}

test('embedded:DIR is a server with our schema in it, as long as it is needed; one that cannot be used is stopped', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'reclaimd-embedded-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const isServed = () => existsSync(join(directory, 'data', 'postmaster.pid'));
  const config = testConfig(`embedded:${directory}`, { RECLAIMD_SCHEMA: 'My Schema' });
  {
    await using database = await startDatabase(config);
    expect(database.urlFile).toBe(join(directory, 'database-url'));
    expect(isServed()).toBe(true);
    expect(await query(database.url, `SELECT FROM "My Schema".executor`)).toEqual([]);
    await query(database.url, `INSERT INTO "My Schema".migration (version, name) VALUES (9999, 'from_the_future')`);
  }
  expect(isServed()).toBe(false);
  await expect(startDatabase(config)).rejects.toBeInstanceOf(SchemaIsNewer);
  expect(isServed()).toBe(false);
});
