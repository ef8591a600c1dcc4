import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { getRollbackPlans, PgBoss } from 'pg-boss';
import { expect, onTestFinished, test } from 'vitest';
import { coverNewTables, installOwnership, ownershipState, removeOwnership } from '../../src/ownership/install.ts';
import { rotateOwnership } from '../../src/ownership/rotate.ts';
import type { Database } from '../../src/postgres/database.ts';
import { createFleetDatabase } from '../support/database.ts';
import { waitFor } from '../support/wait.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

async function createOwned() {
  const fleet = await createFleetDatabase({
    queues: [
      { name: 'work', retryLimit: 9 },
      { name: 'own-table', partition: true },
    ],
  });
  await installOwnership(fleet.database, TARGET);
  return fleet;
}

async function startConsumer(url: string, name: string, schema = 'pgboss'): Promise<PgBoss> {
  const boss = new PgBoss({
    connectionString: url,
    application_name: name,
    schema,
    supervise: false,
    schedule: false,
    registerInstance: false,
    max: 1,
  });
  boss.on('error', () => undefined);
  await boss.start();
  onTestFinished(() => boss.stop({ graceful: false }));
  return boss;
}

async function openClient(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}

const readAttempts = (database: Database) =>
  database.query<{ queue: string; jobId: string; retryCount: number; name: string }>(
    'SELECT queue, job_id AS "jobId", retry_count AS "retryCount", application_name AS name FROM attempt ORDER BY started_on, retry_count',
  );

test('each attempt is recorded once, under the name of whoever fetched it; nothing else records one', async () => {
  const { url, boss, database } = await createOwned();
  const [a, b] = [await startConsumer(url, 'consumer-a'), await startConsumer(url, 'consumer-b')];
  const id = await boss.send('work', {}, { heartbeatSeconds: 10 });
  await a.fetch('work');
  await b.touch('work', id ?? '');
  await b.fail('work', id ?? '');
  await b.fetch('work');
  await a.complete('work', id ?? '');
  const batch = await boss.insert('own-table', [{}, {}, {}], { returnId: true });
  await b.fetch('own-table', { batchSize: 3 });
  const attempts = await readAttempts(database);
  expect(attempts.slice(0, 2)).toEqual([
    { queue: 'work', jobId: id, retryCount: 0, name: 'consumer-a' },
    { queue: 'work', jobId: id, retryCount: 1, name: 'consumer-b' },
  ]);
  expect(
    attempts
      .slice(2)
      .map(({ jobId, name }) => `${jobId} ${name}`)
      .sort(),
  ).toEqual((batch ?? []).map((job) => `${job} consumer-b`).sort());
});

test('installing twice, removing twice and installing again are all the same as once', async () => {
  const { url, boss, database } = await createOwned();
  expect(await installOwnership(database, TARGET)).toMatchObject({ installed: [], present: expect.arrayContaining(['job_common']) });
  expect(await ownershipState(database, TARGET)).toMatchObject({ installed: true, missing: [] });
  await removeOwnership(database, TARGET);
  await removeOwnership(database, TARGET);
  expect(await ownershipState(database, TARGET)).toMatchObject({ installed: false });
  const consumer = await startConsumer(url, 'c');
  await boss.send('work', {});
  expect(await consumer.fetch('work')).toHaveLength(1);
  expect(await readAttempts(database)).toEqual([]);
  await installOwnership(database, TARGET);
  await boss.send('work', {});
  await consumer.fetch('work');
  expect(await readAttempts(database)).toHaveLength(1);
});

test('the table of a queue made later is covered by the periodic pass, but only where ownership is installed', async () => {
  const { boss, database } = await createOwned();
  await boss.createQueue('later', { partition: true });
  expect((await ownershipState(database, TARGET)).missing).toHaveLength(1);
  expect(await coverNewTables(database, TARGET)).toHaveLength(1);
  expect((await ownershipState(database, TARGET)).missing).toEqual([]);
  await removeOwnership(database, TARGET);
  expect(await coverNewTables(database, TARGET)).toEqual([]);
});

test('a disabled trigger counts as none, and is replaced', async () => {
  const { database } = await createOwned();
  await database.query('ALTER TABLE pgboss.job_common DISABLE TRIGGER ALL');
  expect((await ownershipState(database, TARGET)).missing).toEqual(['job_common']);
  expect(await coverNewTables(database, TARGET)).toEqual(['job_common']);
  expect((await ownershipState(database, TARGET)).missing).toEqual([]);
});

test.each([
  ['the attempt tables are dropped', 'DROP TABLE attempt_a, attempt_b CASCADE'],
  ['one is renamed', 'ALTER TABLE attempt_a RENAME TO elsewhere'],
  ['a column is dropped', 'ALTER TABLE attempt_a DROP COLUMN application_name CASCADE'],
  ['the turn is lost', 'DELETE FROM attempt_turn'],
  ["the turn's table is dropped", 'DROP TABLE attempt_turn'],
  ['a constraint refuses every row', 'ALTER TABLE attempt_a ADD CHECK (false) NOT VALID'],
  ['our whole schema is dropped', 'DROP SCHEMA reclaimd CASCADE'],
])('fetches go on when %s', async (_, damage) => {
  const { url, boss, database } = await createOwned();
  const consumer = await startConsumer(url, 'c');
  await boss.insert('work', [{}, {}]);
  expect(await consumer.fetch('work')).toHaveLength(1);
  await database.query(damage);
  const [job] = await consumer.fetch('work');
  expect(job).toBeDefined();
  await consumer.complete('work', job?.id ?? '');
});

test('a lock on the attempt tables holds a fetch up for a moment only', async () => {
  const { url, boss } = await createOwned();
  const consumer = await startConsumer(url, 'c');
  await boss.send('work', {});
  const locker = await openClient(url);
  await locker.query('BEGIN; LOCK TABLE reclaimd.attempt_a IN ACCESS EXCLUSIVE MODE');
  expect(await consumer.fetch('work')).toHaveLength(1);
  await locker.query('ROLLBACK');
});

test('a worker needs no right on our schema', async () => {
  const { url, boss, database } = await createOwned();
  const role = `worker_${new URL(url).pathname.slice(1)}`;
  await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'x'`);
  await database.query(`GRANT USAGE ON SCHEMA pgboss TO ${role}; GRANT ALL ON ALL TABLES IN SCHEMA pgboss TO ${role}`);
  const own = new URL(url);
  own.username = role;
  own.password = 'x';
  const consumer = await startConsumer(own.href, 'unprivileged');
  await boss.send('work', {});
  expect(await consumer.fetch('work')).toHaveLength(1);
  expect(await readAttempts(database)).toMatchObject([{ name: 'unprivileged' }]);
});

test('installing waits behind a long transaction without stalling the fleet', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  const long = await openClient(url);
  await boss.insert('work', [{}, {}, {}]);
  await long.query(`BEGIN; UPDATE pgboss.job_common SET priority = 1 WHERE id = (SELECT id FROM pgboss.job_common LIMIT 1)`);
  const installing = installOwnership(database, TARGET);
  const consumer = await startConsumer(url, 'c');
  // While installing tries and gives way again and again, fetches get through.
  expect(await consumer.fetch('work')).toHaveLength(1);
  await delay(300);
  expect(await consumer.fetch('work')).toHaveLength(1);
  await long.query('ROLLBACK');
  expect(await installing).toMatchObject({ installed: ['job_common'] });
});

test('rotation drops finished attempts, and no active one is ever without its owner', async () => {
  const { url, boss, database } = await createOwned();
  await boss.insert(
    'work',
    Array.from({ length: 400 }, () => ({})),
  );
  let working = true;
  const consumers = Array.from({ length: 4 }, async (_, index) => {
    const consumer = await startConsumer(url, `consumer-${index}`);
    while (working) {
      const [unfinished, ...finished] = await consumer.fetch('work', { batchSize: 5 });
      if (unfinished === undefined) return;
      if (finished.length === 0) continue;
      await consumer.complete(
        'work',
        finished.map(({ id }) => id),
      );
    }
  });
  const outcomes = new Set<string>();
  const rotating = (async () => {
    while (working) {
      await database.query(`UPDATE attempt_turn SET switched_at = now() - interval '1 hour'`);
      outcomes.add(await rotateOwnership(database, { pages: 0 }));
      const lost = await database.query(
        `SELECT FROM job j WHERE name = 'work' AND state = 'active'
           AND NOT EXISTS (SELECT FROM attempt a WHERE a.job_id = j.id AND a.retry_count = j.retry_count AND a.started_on = j.started_on)`,
      );
      expect(lost).toEqual([]);
    }
  })();
  await Promise.all(consumers).finally(() => {
    working = false;
  });
  await rotating;
  expect([...outcomes]).toEqual(expect.arrayContaining(['switched', 'emptied']));
  for (let pass = 0; pass < 4; pass++) {
    await database.query(`UPDATE attempt_turn SET switched_at = now() - interval '1 hour'`);
    await rotateOwnership(database, { pages: 0 });
  }
  const active = await database.query(`SELECT FROM job WHERE name = 'work' AND state = 'active'`);
  expect((await readAttempts(database)).length).toBe(active.length);
});

test('a transaction that still writes to the old table makes the emptying wait; a rotation cut short is completed', async () => {
  const { url, boss, database } = await createOwned();
  const consumer = await startConsumer(url, 'c');
  await boss.insert('work', [{}, {}]);
  const [kept] = await consumer.fetch('work');
  const writer = await openClient(url);
  await writer.query('BEGIN; LOCK TABLE reclaimd.attempt_a IN ROW EXCLUSIVE MODE');
  await database.query(`UPDATE attempt_turn SET switched_at = now() - interval '1 hour'`);
  expect(await rotateOwnership(database, { pages: 0 })).toBe('switched');
  expect(await rotateOwnership(database, { pages: 0 })).toBe('busy');
  const [other] = await consumer.fetch('work');
  await writer.query('ROLLBACK');
  // The next pass, of whichever node, completes what the first began.
  expect(await rotateOwnership(database, { pages: 0 })).toBe('emptied');
  expect((await readAttempts(database)).map(({ jobId }) => jobId).sort()).toEqual([kept?.id, other?.id].sort());
  expect(await rotateOwnership(database, { pages: 0 })).toBe('idle');
});

test("pg-boss's own drift check, migration and queue deletion get along with the triggers", async () => {
  const { url, boss, database } = await createOwned();
  expect(await boss.detectSchemaDrift()).toMatchObject({ ok: true });
  const client = await openClient(url);
  await client.query(getRollbackPlans('pgboss', 46));
  const upgraded = new PgBoss({ connectionString: url, supervise: false, schedule: false, registerInstance: false });
  onTestFinished(() => upgraded.stop({ graceful: false }));
  await upgraded.start();
  expect(await ownershipState(database, TARGET)).toMatchObject({ installed: true, missing: [] });
  await upgraded.deleteQueue('own-table');
  expect((await ownershipState(database, TARGET)).tables.map(({ name }) => name)).toEqual(['job_common']);
  await waitFor('a fetch after all that', async () => {
    await upgraded.send('work', {});
    return (await upgraded.fetch('work')).length === 1;
  });
});
