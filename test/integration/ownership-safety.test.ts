import pg from 'pg';
import { PgBoss } from 'pg-boss';
import { expect, onTestFinished, test } from 'vitest';
import { coverNewTables, installOwnership, ownershipState, removeOwnership } from '../../src/ownership/install.ts';
import { rotateOwnership } from '../../src/ownership/rotate.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase, createTestDatabase, installPgBoss } from '../support/database.ts';
import { waitFor } from '../support/wait.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

async function openClient(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}

async function createRole(url: string, name: string, grants: (role: string) => string): Promise<string> {
  const role = `${name}_${new URL(url).pathname.slice(1)}`;
  const owner = await openClient(url);
  await owner.query(`CREATE ROLE ${role} LOGIN PASSWORD 'x'; ${grants(role)}`);
  const own = new URL(url);
  own.username = role;
  own.password = 'x';
  return own.href;
}

/** A consumer that fetches and completes for as long as it is let; how long each took, and what failed. */
async function startBusyConsumer(url: string) {
  const boss = new PgBoss({ connectionString: url, supervise: false, schedule: false, registerInstance: false, max: 1 });
  boss.on('error', () => undefined);
  await boss.start();
  const fetches: number[] = [];
  let working = true;
  const done = (async () => {
    while (working) {
      const startedAt = performance.now();
      const jobs = await boss.fetch('work');
      fetches.push(performance.now() - startedAt);
      for (const { id } of jobs) await boss.complete('work', id);
    }
  })();
  const stop = async () => {
    working = false;
    await done;
    await boss.stop({ graceful: false });
  };
  return { fetches, stop };
}

test('installing and removing in turns while the fleet works never fails or stalls a fetch', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await boss.insert(
    'work',
    Array.from({ length: 3_000 }, () => ({})),
  );
  const consumers = await Promise.all([startBusyConsumer(url), startBusyConsumer(url), startBusyConsumer(url)]);
  for (let round = 0; round < 8; round++) {
    await installOwnership(database, TARGET);
    const before = (await database.query('SELECT FROM attempt')).length;
    await waitFor('attempts to be recorded', async () => (await database.query('SELECT FROM attempt')).length > before);
    await removeOwnership(database, TARGET);
  }
  await Promise.all(consumers.map((consumer) => consumer.stop()));
  const fetches = consumers.flatMap((consumer) => consumer.fetches);
  expect(fetches.length).toBeGreaterThan(50);
  expect(Math.max(...fetches)).toBeLessThan(2_000);
});

test('what is being removed, a daemon does not cover again; what is left half removed, the next call finishes', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  const long = await openClient(url);
  await boss.send('work', {});
  await long.query('BEGIN; LOCK TABLE pgboss.job_common IN ROW EXCLUSIVE MODE');
  const removing = removeOwnership(database, TARGET);
  await waitFor('the removal to have begun', async () => !(await ownershipState(database, TARGET)).installed);
  expect(await coverNewTables(database, TARGET)).toEqual([]);
  // Somebody changes their mind in the middle, and again.
  await long.query('ROLLBACK');
  await removing;
  await installOwnership(database, TARGET);
  await database.query('ALTER FUNCTION reclaimd.record_attempts() RENAME TO record_attempts_retired');
  await installOwnership(database, TARGET);
  expect(await ownershipState(database, TARGET)).toMatchObject({ installed: true, missing: [] });
  await database.query('ALTER FUNCTION reclaimd.record_attempts() RENAME TO record_attempts_retired');
  await removeOwnership(database, TARGET);
  expect(await database.query(`SELECT FROM pg_proc WHERE proname LIKE 'record_attempts%'`)).toEqual([]);
  expect(await database.query(`SELECT FROM pg_trigger WHERE tgname LIKE '%record_attempts%'`)).toEqual([]);
});

test('a table that stays locked is named, and holds up none of the others', async () => {
  const { url, database } = await createFleetDatabase({ queues: [{ name: 'work' }, { name: 'apart', partition: true }] });
  await installOwnership(database, TARGET);
  const { tables } = await ownershipState(database, TARGET);
  expect(tables).toHaveLength(2);
  for (const { name } of tables) await database.query(`ALTER TABLE ${name} DISABLE TRIGGER ALL`);
  const long = await openClient(url);
  await long.query('BEGIN; LOCK TABLE pgboss.job_common IN ROW EXCLUSIVE MODE');
  await expect(coverNewTables(database, TARGET)).rejects.toThrow(/"job_common"/);
  expect((await ownershipState(database, TARGET)).missing).toEqual(['job_common']);
});

test('a table that refuses its trigger is named, and holds up none of the others', async () => {
  const { url, database, connect } = await createFleetDatabase({
    queues: [{ name: 'work' }, { name: 'apart', partition: true }, { name: 'third', partition: true }],
  });
  await installOwnership(database, TARGET);
  const [refusing, ...others] = (await ownershipState(database, TARGET)).tables.map(({ name }) => name);
  for (const table of [refusing, ...others]) await database.query(`ALTER TABLE ${table} DISABLE TRIGGER ALL`);
  const own = await createRole(
    url,
    'partly',
    (role) =>
      `GRANT USAGE ON SCHEMA reclaimd, pgboss TO ${role}; GRANT TRIGGER ON ${others.map((name) => `pgboss.${name}`).join()} TO ${role}`,
  );
  await expect(coverNewTables(connect({ url: own }), TARGET)).rejects.toThrow(`"${refusing}" was refused: permission denied`);
  expect((await ownershipState(database, TARGET)).missing).toEqual([refusing]);
});

/** Many attempts are recorded already, so many that the next rotation switches, and its sweep of them is still to come. */
async function createDueForRotation() {
  const fleet = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(fleet.database, TARGET);
  await fleet.database.query(
    `INSERT INTO attempt_a SELECT 'work', gen_random_uuid(), 0, 'pgboss:12345678', now() FROM generate_series(1, 20000)`,
  );
  await fleet.database.query(`UPDATE attempt_turn SET switched_at = now() - interval '1 hour'`);
  const rotated = () =>
    waitFor('the old record to be emptied', async () => {
      const [turn] = await fleet.database.query<{ current: string; emptied: boolean }>('SELECT current, emptied FROM attempt_turn');
      return turn?.current === 'b' && turn.emptied;
    });
  return { ...fleet, rotated };
}

test('rotation goes on while a table refuses its trigger, and the daemon says so', async () => {
  const { url, database, rotated } = await createDueForRotation();
  await database.query(`CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not here'; END $$`);
  await database.query('ALTER TABLE pgboss.job_common DISABLE TRIGGER ALL');
  await database.query(`CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE TRIGGER') EXECUTE FUNCTION public.refuse()`);
  const said: object[] = [];
  const ignore = () => undefined;
  const error = (what: object | string) => void said.push(what as object);
  await startTestDaemon(url, {}, { log: { info: ignore, warn: ignore, debug: ignore, error } });
  await waitFor('the loop to fail', () => said.length > 0);
  await rotated();
  expect(said).toMatchObject([{ loop: 'ownership', error: expect.stringContaining('"job_common" was refused: not here') }]);
});

test('a dry run covers no table, but goes on rotating our own', async () => {
  const { url, database, rotated } = await createDueForRotation();
  await database.query('ALTER TABLE pgboss.job_common DISABLE TRIGGER ALL');
  await startTestDaemon(url, { RECLAIMD_DRY_RUN: 'true' });
  await rotated();
  expect((await ownershipState(database, TARGET)).missing).toEqual(['job_common']);
});

test('a record that is larger than one statement may read is emptied in pieces', async () => {
  const { url, boss, database, connect } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  await boss.insert(
    'work',
    Array.from({ length: 300 }, () => ({})),
  );
  await boss.fetch('work', { batchSize: 300 });
  await database.query(`UPDATE attempt_turn SET switched_at = now() - interval '1 hour'`);
  expect(await rotateOwnership(database, { pages: 0 })).toBe('switched');
  // Each takes its time: all in one statement more than a statement is given, those of a page less.
  const owner = await openClient(url);
  await owner.query(`
    CREATE FUNCTION public.take_time() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
    CREATE TRIGGER take_time BEFORE INSERT ON reclaimd.attempt_b FOR EACH ROW EXECUTE FUNCTION public.take_time()`);
  const hurried = connect({ statementTimeoutMs: 2_500 });
  expect(await rotateOwnership(hurried, { pages: 0, piecePages: 1 })).toBe('emptied');
  expect(await database.query('SELECT count(*)::int AS rows, count(DISTINCT job_id)::int AS jobs FROM attempt')).toEqual([
    { rows: 300, jobs: 300 },
  ]);
});

test('while one record is locked the other takes the attempt', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  const locker = await openClient(url);
  await boss.insert('work', [{}, {}]);
  await locker.query('BEGIN; LOCK TABLE reclaimd.attempt_a IN ACCESS EXCLUSIVE MODE');
  expect(await boss.fetch('work')).toHaveLength(1);
  expect(await database.query('SELECT FROM attempt_b')).toHaveLength(1);
  await locker.query('LOCK TABLE reclaimd.attempt_b, reclaimd.attempt_turn IN ACCESS EXCLUSIVE MODE');
  const startedAt = performance.now();
  expect(await boss.fetch('work')).toHaveLength(1);
  expect(performance.now() - startedAt).toBeLessThan(1_000);
});

test.each([
  ['reclaimd', 'Boss-1'],
  ['Re-claimd', 'pgboss'],
  [`long${'-x'.repeat(29)}`, 'Odd-Boss'],
])('schema "%s" watches pg-boss in "%s"', async (schema, pgbossSchema) => {
  const { boss, database } = await createFleetDatabase({
    schema: `"${pgbossSchema}"`,
    reclaimdSchema: schema,
    queues: [{ name: 'work' }, { name: 'apart', partition: true }],
  });
  const target = { schema, pgbossSchema };
  await installOwnership(database, target);
  expect(await ownershipState(database, target)).toMatchObject({ installed: true, missing: [], tables: [{}, {}] });
  for (const queue of ['work', 'apart']) {
    await boss.send(queue, {});
    await boss.fetch(queue);
  }
  expect(await database.query('SELECT FROM attempt')).toHaveLength(2);
  await database.query(`UPDATE attempt_turn SET switched_at = now() - interval '1 hour'`);
  expect(await rotateOwnership(database, { pages: -1 })).toBe('switched');
  expect(await rotateOwnership(database, { pages: -1 })).toBe('emptied');
  expect(await database.query('SELECT FROM attempt')).toHaveLength(2);
  await removeOwnership(database, target);
  expect(await ownershipState(database, target)).toMatchObject({ installed: false });
});

test('two schemas of ours watch the same pg-boss, and one of them another', async () => {
  const fleet = await createTestDatabase();
  const shared = await installPgBoss(fleet.url, { queues: [{ name: 'work' }] });
  const other = await installPgBoss(fleet.url, { schema: 'other', queues: [{ name: 'work' }] });
  const watch = async (schema: string, pgbossSchema: string) => {
    const target = { schema, pgbossSchema };
    const database = fleet.connect(target);
    await migrate(database, schema);
    await installOwnership(database, target);
    return { target, database, count: async () => (await database.query('SELECT FROM attempt')).length };
  };
  const [one, two, three] = [await watch('one', 'pgboss'), await watch('two', 'pgboss'), await watch('three', 'other')];
  const run = async (boss: PgBoss) => {
    await boss.send('work', {});
    await boss.fetch('work');
  };
  await run(shared);
  expect([await one.count(), await two.count(), await three.count()]).toEqual([1, 1, 0]);
  await removeOwnership(one.database, one.target);
  await run(shared);
  await run(other);
  expect([await one.count(), await two.count(), await three.count()]).toEqual([1, 2, 1]);
});

test('whoever may look into our schema can forge no owner with a table of its own', async () => {
  const { url, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  const forger = await openClient(
    await createRole(url, 'forger', (role) => `GRANT USAGE ON SCHEMA reclaimd TO ${role}; CREATE SCHEMA AUTHORIZATION ${role}`),
  );
  await forger.query(`
    CREATE TABLE job (name text, id uuid, retry_count int, state text, started_on timestamptz);
    INSERT INTO job VALUES ('work', gen_random_uuid(), 0, 'created');
    CREATE TRIGGER forge AFTER UPDATE ON job REFERENCING NEW TABLE AS now_rows FOR EACH STATEMENT EXECUTE FUNCTION reclaimd.record_attempts();
    UPDATE job SET state = 'active', started_on = now()`);
  expect(await database.query('SELECT FROM attempt')).toEqual([]);
});

test("pg-boss's owner cannot make its job_now() run with our rights", async () => {
  const { boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  await database.query('CREATE TABLE public.callers (name text)');
  await database.query(`CREATE OR REPLACE FUNCTION pgboss.job_now() RETURNS timestamptz LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO public.callers SELECT query FROM (SELECT pg_catalog.current_setting('search_path') AS query) s; RETURN pg_catalog.now(); END $$`);
  await boss.send('work', {});
  await boss.fetch('work');
  const callers = await database.query<{ name: string }>('SELECT DISTINCT name FROM public.callers');
  expect(callers.length).toBeGreaterThan(0);
  expect(callers.filter(({ name }) => name.startsWith('pg_catalog'))).toEqual([]);
  expect(await database.query('SELECT FROM attempt')).toHaveLength(1);
});

test('the right to create triggers suffices to cover a table, and to replace a trigger that was disabled', async () => {
  const { url, boss, database, connect } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  const own = await createRole(
    url,
    'coverer',
    (role) => `GRANT USAGE ON SCHEMA reclaimd, pgboss TO ${role};
      ALTER DEFAULT PRIVILEGES IN SCHEMA pgboss GRANT TRIGGER ON TABLES TO ${role}; GRANT TRIGGER ON pgboss.job_common TO ${role}`,
  );
  await boss.createQueue('later', { partition: true });
  await database.query('ALTER TABLE pgboss.job_common DISABLE TRIGGER ALL');
  expect(await coverNewTables(connect({ url: own }), TARGET)).toHaveLength(2);
  expect((await ownershipState(database, TARGET)).missing).toEqual([]);
});

/** Rotates, up to a moment at which it stands still. */
async function rotateUntil(moment: string) {
  const { url, boss, database, connect } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  await boss.insert(
    'work',
    Array.from({ length: 50 }, () => ({})),
  );
  await boss.fetch('work', { batchSize: 50 });
  await database.query(`UPDATE attempt_turn SET switched_at = now() - interval '1 hour'`);
  expect(await rotateOwnership(database, { pages: 0 })).toBe('switched');
  const owner = await openClient(url);
  await owner.query(`
    CREATE FUNCTION public.stand_still() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
    CREATE TRIGGER stand_still ${moment} FOR EACH STATEMENT EXECUTE FUNCTION public.stand_still()`);
  const rotating = expect(rotateOwnership(database, { pages: 0 })).rejects.toThrow();
  const pid = await waitFor('the rotation to stand there', async () => {
    const { rows } = await owner.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`,
    );
    return rows[0]?.pid;
  });
  return {
    database,
    connect,
    kill: async () => {
      await owner.query('SELECT pg_terminate_backend($1)', [pid]);
      await rotating;
      await owner.query('DROP FUNCTION public.stand_still() CASCADE');
    },
  };
}

test('while a rotation copies, the attempts can be read', async () => {
  const { connect, kill } = await rotateUntil('BEFORE INSERT ON reclaimd.attempt_b');
  expect(await connect({ lockTimeoutMs: 100 }).query('SELECT FROM attempt')).toHaveLength(50);
  await kill();
});

test.each([
  ['before its copy', 'BEFORE INSERT ON reclaimd.attempt_b'],
  ['between copy and emptying', 'BEFORE TRUNCATE ON reclaimd.attempt_a'],
  ['after the emptying', 'AFTER TRUNCATE ON reclaimd.attempt_a'],
  ['at its mark', 'AFTER UPDATE ON reclaimd.attempt_turn'],
])('a rotation whose backend is killed %s is done again, whole, by the next', async (_, moment) => {
  const { database, kill } = await rotateUntil(moment);
  await kill();
  const count = () => database.query('SELECT count(*)::int AS rows, count(DISTINCT job_id)::int AS jobs FROM attempt');
  expect(await count()).toEqual([{ rows: 50, jobs: 50 }]);
  expect(await rotateOwnership(database, { pages: 0 })).toBe('emptied');
  expect(await count()).toEqual([{ rows: 50, jobs: 50 }]);
  expect(await database.query('SELECT FROM attempt_a')).toEqual([]);
});
