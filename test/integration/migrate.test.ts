import { readdir } from 'node:fs/promises';
import pg from 'pg';
import { expect, test } from 'vitest';
import { refreshHeartbeats } from '../../src/executors/health.ts';
import { migrate, SchemaIsNewer, schemaVersion } from '../../src/postgres/migrate.ts';
import { createTestDatabase } from '../support/database.ts';
import { waitFor } from '../support/wait.ts';

const migrationCount = async () => (await readdir(new URL('../../src/postgres/migrations/', import.meta.url))).length;

test('a database is brought up to date once, and left alone then', async () => {
  const database = (await createTestDatabase()).connect();
  const { known } = await schemaVersion(database, 'reclaimd');
  expect(await schemaVersion(database, 'reclaimd')).toEqual({ present: 0, known });
  expect(await migrate(database, 'reclaimd')).toHaveLength(await migrationCount());
  const ledger = await database.query('SELECT version, applied_at::text FROM migration');
  expect(ledger).toHaveLength(await migrationCount());
  expect(await migrate(database, 'reclaimd')).toEqual([]);
  expect(await database.query('SELECT version, applied_at::text FROM migration')).toEqual(ledger);
  expect(await schemaVersion(database, 'reclaimd')).toEqual({ present: known, known });
});

test('of many migrators at once one does it, and none fails', async () => {
  const { connect } = await createTestDatabase();
  const applied = await Promise.all(Array.from({ length: 8 }, () => migrate(connect(), 'reclaimd')));
  expect(applied.filter((names) => names.length > 0)).toHaveLength(1);
  expect(applied.flat()).toHaveLength(await migrationCount());
});

test('a migrator that dies half way leaves nothing, and the next one does it all', async () => {
  const { url, connect } = await createTestDatabase();
  const database = connect();
  const blocker = new pg.Client({ connectionString: url });
  await blocker.connect();
  // Somebody else has begun to make the schema: the migrator's CREATE SCHEMA waits for the end of that.
  await blocker.query('BEGIN; CREATE SCHEMA reclaimd');
  const dying = migrate(connect(), 'reclaimd').catch((error: unknown) => error);
  const pid = await waitFor('the migrator to wait', async () => {
    const [row] = await database.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'CREATE SCHEMA%'`,
    );
    return row?.pid;
  });
  await database.query('SELECT pg_terminate_backend($1)', [pid]);
  expect(await dying).toBeInstanceOf(Error);
  await blocker.end();
  expect((await schemaVersion(database, 'reclaimd')).present).toBe(0);
  expect(await migrate(database, 'reclaimd')).not.toEqual([]);
});

test('a schema that a newer program made is refused, and not touched', async () => {
  const database = (await createTestDatabase()).connect();
  await migrate(database, 'reclaimd');
  await database.query(`INSERT INTO migration (version, name) VALUES (9999, 'from_the_future')`);
  await expect(migrate(database, 'reclaimd')).rejects.toBeInstanceOf(SchemaIsNewer);
  await expect(migrate(database, 'reclaimd')).rejects.toThrow(/"reclaimd" is at version 9999/);
  expect(
    await database.query('SELECT FROM migration WHERE version > $1', [(await schemaVersion(database, 'reclaimd')).known]),
  ).toHaveLength(1);
});

test.each(['My-Schema', 'with space', 'tab\there', 'back\\slash', 'quo"ted', "apo'strophe", 'co,mma', 'dollar$', 'ünï'])(
  'a schema may be called %j',
  async (schema) => {
    const database = (await createTestDatabase()).connect({ schema });
    expect(await migrate(database, schema)).not.toEqual([]);
    expect(await migrate(database, schema)).toEqual([]);
    const [table] = await database.query<{ schema: string }>(
      `SELECT nspname AS schema FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE pg_class.oid = 'executor'::regclass`,
    );
    expect(table?.schema).toBe(schema);
    await refreshHeartbeats(database, [{ executorId: 'it', applicationName: 'it', beatSeconds: 5 }]);
    expect(await database.query('SELECT id FROM executor')).toEqual([{ id: 'it' }]);
  },
);

test("a caller's temporary table never stands in for ours where a function runs with its owner's rights", async () => {
  const database = (await createTestDatabase()).connect();
  await migrate(database, 'reclaimd');
  await database.transaction(async (tx) => {
    await tx.query('CREATE TEMP TABLE executor (LIKE reclaimd.executor INCLUDING ALL) ON COMMIT DROP');
    await tx.query(`SELECT reclaimd.heartbeat('it')`);
  });
  expect(await database.query('SELECT id FROM reclaimd.executor')).toEqual([{ id: 'it' }]);
});
