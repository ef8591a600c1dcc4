import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { getRollbackPlans, PgBoss } from 'pg-boss';
import { expect, onTestFinished, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { decideGate, PgBossMoved } from '../../src/pgboss/gate.ts';
import { findRelease, PgBossModuleUnusable } from '../../src/pgboss/release.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { spawnDaemon } from '../support/daemon-process.ts';
import { createFleetDatabase, createTestDatabase } from '../support/database.ts';
import { createExecutor, openTestContext, sweepOnce } from '../support/executor.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

/** Takes a real schema back, release by release, with pg-boss's own plans. */
async function rollBack(url: string, to: number): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query<{ version: number }>('SELECT version::int AS version FROM pgboss.version');
  for (let version = rows[0]?.version ?? 0; version > to; version--) await client.query(getRollbackPlans('pgboss', version));
  await client.end();
}

async function upgrade(url: string): Promise<void> {
  const upgraded = new PgBoss({ connectionString: url, supervise: false, registerInstance: false });
  await upgraded.start();
  await upgraded.stop({ graceful: false });
}

async function createOrphan() {
  const fleet = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(fleet.database, TARGET);
  const executor = await createExecutor(fleet.url, fleet.database, 'worker');
  const id = await fleet.boss.send('work', {});
  await executor.fetch('work');
  const isActive = async () => (await fleet.database.query(`SELECT FROM job WHERE id = $1 AND state = 'active'`, [id])).length === 1;
  return { ...fleet, executor, isActive };
}

test.each([
  [null, 46, 'wait'],
  [43, 46, 'observe'],
  [44, 46, 'observe'],
  [44, 44, 'act'],
  [45, 45, 'act'],
  [46, 46, 'act'],
  [46, 45, 'observe'],
  [47, 47, 'observe'],
  [47, 46, 'observe'],
] as const)('schema %j with a client of %j: %s', (schema, client, mode) => {
  expect(decideGate(schema, { version: '12.x', schemaVersion: client }).mode).toBe(mode);
});

test.each([43, 44, 45, 47])('on schema %i the daemon says so, changes nothing, and acts once it fits', async (version) => {
  const { url, database, executor, isActive } = await createOrphan();
  if (version < 46) await rollBack(url, version);
  else await database.query('UPDATE pgboss.version SET version = 47');
  await executor.die();
  const daemon = await startTestDaemon(url, { RECLAIMD_LISTEN: '127.0.0.1:0' });
  const [incident] = await waitFor('the incident', async () => {
    const rows = await database.query<{ summary: string }>(
      `SELECT summary FROM incident WHERE class = 'pgboss_unsupported' AND resolved_at IS NULL`,
    );
    return rows.length === 1 && rows;
  });
  expect(incident?.summary).toContain(`schema ${version}`);
  const ready = await fetch(`${daemon.url}/readyz`);
  expect(ready.status).toBe(503);
  expect(await ready.text()).toContain(`schema ${version}`);
  expect(await (await fetch(`${daemon.url}/metrics`)).text()).toMatch(/^reclaimd_pgboss_supported 0$/m);
  await expect(sweepOnce(url)).rejects.toThrow();
  expect(await isActive()).toBe(true);
  if (version < 46) {
    await upgrade(url);
  } else await database.query('UPDATE pgboss.version SET version = 46');
  await waitFor('the rescue after the upgrade', async () => !(await isActive()));
  await waitFor(
    'the incident to be resolved',
    async () => (await database.query(`SELECT FROM incident WHERE resolved_at IS NULL AND class = 'pgboss_unsupported'`)).length === 0,
  );
});

test('a schema that moves under a running daemon: not one job is touched by what it knew of the one before', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  await boss.insert('work', [{}, {}]);
  const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever', batchSize: 2 });
  await worker.started(2);
  await startTestDaemon(url);
  await waitFor('the adoption', async () => (await database.query('SELECT FROM executor WHERE witness_node IS NOT NULL')).length === 1);
  await database.query('UPDATE pgboss.version SET version = 47');
  worker.kill('SIGKILL');
  await waitFor('the proof', async () => (await database.query(`SELECT FROM executor WHERE proof = 'process_gone'`)).length === 1);
  await waitFor(
    'the daemon to say so',
    async () => (await database.query(`SELECT FROM incident WHERE class = 'pgboss_unsupported' AND resolved_at IS NULL`)).length === 1,
  );
  const untouched = {
    jobs: await database.query(`SELECT FROM job WHERE state = 'active'`),
    rescues: await database.query('SELECT FROM recovery'),
  };
  expect([untouched.jobs.length, untouched.rescues.length]).toEqual([2, 0]);
  await database.query('UPDATE pgboss.version SET version = 46');
  await waitFor('the rescue', async () => (await database.query('SELECT FROM recovery')).length === 2);
});

test('whatever is about to change jobs asks for the schema first', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }, { name: 'heard' }] });
  await boss.subscribe('event', 'heard');
  const context = await openTestContext(url, { RECLAIMD_PGBOSS_SUPERVISE: 'true', RECLAIMD_OUTAGE_GRACE: '1s' });
  const { jobs, flows, supervision } = context;
  await database.query('UPDATE pgboss.version SET version = 47');
  const ways = {
    rescue: () => database.transaction((tx) => jobs.lock(tx, 'work', [])),
    repair: () => database.transaction((tx) => jobs.readJobs(tx, [], { lock: true })),
    replay: () => database.transaction((tx) => flows.publish(tx, 'heard', [{}])),
    flows: () => flows.resolve(),
    supervision: () => supervision.supervise(async () => undefined),
  };
  for (const [name, way] of Object.entries(ways)) {
    const error = await way().catch((cause: unknown) => cause);
    expect([name, error]).toEqual([name, expect.any(PgBossMoved)]);
  }
  expect(await jobs.readJobs(database, [], { lock: false })).toEqual([]);
});

test('pg-boss not installed yet: the daemon waits, then works', async () => {
  const empty = await createTestDatabase();
  const database = empty.connect();
  await migrate(database, 'reclaimd');
  const daemon = await startTestDaemon(empty.url, { RECLAIMD_LISTEN: '127.0.0.1:0' });
  await waitFor('the daemon to say what it waits for', async () =>
    (await (await fetch(`${daemon.url}/readyz`)).text()).includes('not installed yet'),
  );
  const boss = new PgBoss({ connectionString: empty.url, supervise: false });
  await boss.start();
  await waitFor('pg-boss to be noticed', async () => (await (await fetch(`${daemon.url}/readyz`)).text()).includes('schema 46, client'));
  const metrics = async () => (await fetch(`${daemon.url}/metrics`)).text();
  // A quarter of an hour is the interval of its loop.
  await waitFor('retention to be looked at', async () => /^reclaimd_retained_rows\{class="nodes"\} 1$/m.test(await metrics()));
  expect(await metrics()).not.toMatch(/^reclaimd_loop_runs_total.*"error"/m);
  await boss.stop({ graceful: false });
});

test("the application's own pg-boss is loaded from its directory, its package, or refused clearly", async () => {
  const root = fileURLToPath(new URL('../../', import.meta.url));
  expect(findRelease(root)).toMatchObject({ schemaVersion: 46 });
  expect(findRelease(`${root}node_modules/pg-boss`)).toMatchObject({ schemaVersion: 46, version: '12.38.0' });
  expect(findRelease(`${root}node_modules/pg-boss-12.35`)).toMatchObject({ schemaVersion: 43, version: '12.35.0' });
  expect(() => findRelease('/nowhere')).toThrow(PgBossModuleUnusable);
  const { url, executor } = await createOrphan();
  await executor.die();
  // What was pointed at speaks another schema, and ours this one.
  const context = await openTestContext(url, { RECLAIMD_PGBOSS_MODULE: `${root}node_modules/pg-boss-12.35` });
  expect(await context.probePgBoss()).toMatchObject({ mode: 'act', detail: 'pg-boss schema 46, client 12.38.0' });
  await rollBack(url, 45);
  expect(await context.probePgBoss()).toMatchObject({ mode: 'observe', detail: expect.stringMatching(/has in .*pg-boss-12\.35/) });
  const { probePgBoss } = await openTestContext(url);
  expect(await probePgBoss()).toMatchObject({ mode: 'observe', detail: expect.stringContaining('point RECLAIMD_PGBOSS_MODULE at') });
  await upgrade(url);
  expect(await sweepOnce(url, { RECLAIMD_PGBOSS_MODULE: root })).toMatchObject({ failed: 1 });
});

/**
 * An application whose pg-boss speaks an older schema. 12.36 and 12.37 cannot be had for a test; 12.38's statements that
 * we call touch no column that 44 lacks, so it stands in for them, with its manifest saying what theirs says.
 */
async function createOlderApplication(schemaVersion: number): Promise<string> {
  const root = fileURLToPath(new URL('../../node_modules/', import.meta.url));
  const application = await mkdtemp(join(tmpdir(), 'reclaimd-application-'));
  onTestFinished(() => rm(application, { recursive: true }));
  const modules = join(application, 'node_modules');
  await mkdir(modules);
  for (const name of await readdir(root))
    if (name !== 'pg-boss' && !name.startsWith('.')) await symlink(join(root, name), join(modules, name));
  await cp(join(root, 'pg-boss'), join(modules, 'pg-boss'), { recursive: true });
  await installInPlace(application, schemaVersion);
  return application;
}

async function installInPlace(application: string, schemaVersion: number): Promise<void> {
  const manifest = join(application, 'node_modules/pg-boss/package.json');
  const { pgboss: _, ...rest } = JSON.parse(await readFile(manifest, 'utf8'));
  await writeFile(manifest, JSON.stringify({ ...rest, version: `schema-${schemaVersion}`, pgboss: { schema: schemaVersion } }));
}

test('the application installs another release in its place: the daemon goes on with that one, or with ours where ours fits', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  const rescued = async (id: string) => {
    const executor = await createExecutor(url, database, id);
    await boss.send('work', {});
    await executor.fetch('work');
    return async () => {
      await executor.die();
      await waitFor(
        `the rescue from ${id}`,
        async () => (await database.query('SELECT FROM recovery WHERE executor_id = $1', [id])).length === 1,
      );
    };
  };
  const [first, second, third] = [await rescued('first'), await rescued('second'), await rescued('third')];
  await rollBack(url, 45);
  const application = await createOlderApplication(45);
  const daemon = await spawnDaemon(url, { RECLAIMD_PGBOSS_MODULE: application });
  await first();
  await rollBack(url, 44);
  await installInPlace(application, 44);
  await second();
  await upgrade(url);
  await third();
  const said = () => daemon.log.flatMap(({ msg }) => (/^pg-boss schema \d+, client/.test(msg) ? [msg] : []));
  await waitFor('the daemon to say so', () => said().length >= 3);
  expect(said()).toEqual(['45, client schema-45', '44, client schema-44', '46, client 12.38.0'].map((what) => `pg-boss schema ${what}`));
});

test.each([44, 45])("on schema %i, with the application's own release, every policy acts", async (version) => {
  const queues = ['a', 'b', 'c'].map((name) => ({ name, retryLimit: 2 }));
  const { url, boss, database } = await createFleetDatabase({ queues });
  await installOwnership(database, TARGET);
  const executor = await createExecutor(url, database, 'worker');
  for (const { name } of queues) {
    await boss.send(name, {});
    await executor.fetch(name);
  }
  await rollBack(url, version);
  await executor.die();
  const env = { RECLAIMD_PGBOSS_MODULE: await createOlderApplication(version), RECLAIMD_POLICIES: 'a=fail,b=restart,c=discard' };
  expect(await sweepOnce(url, env)).toMatchObject({ failed: 1, restarted: 1, discarded: 1 });
  expect(await database.query('SELECT name, state::text FROM job ORDER BY name')).toEqual([
    { name: 'a', state: 'retry' },
    { name: 'b', state: 'retry' },
    { name: 'c', state: 'failed' },
  ]);
});

test('one reclaimd schema serves one pg-boss schema; two pairs live in one database', async () => {
  const { url, boss, database, connect } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, TARGET);
  const other = new PgBoss({ connectionString: url, schema: '"Other-Boss"', supervise: false, registerInstance: false });
  await other.start();
  await other.createQueue('work');
  await openTestContext(url);
  await expect(openTestContext(url, { RECLAIMD_PGBOSS_SCHEMA: '"Other-Boss"' })).rejects.toThrow(
    /already serves the pg-boss schema "pgboss"/,
  );
  const names = { RECLAIMD_SCHEMA: 'Second One', RECLAIMD_PGBOSS_SCHEMA: '"Other-Boss"' };
  const second = connect({ schema: 'Second One', pgbossSchema: '"Other-Boss"' });
  await migrate(second, 'Second One');
  await installOwnership(second, { schema: 'Second One', pgbossSchema: 'Other-Boss' });
  await boss.send('work', {});
  await other.send('work', {});
  const first = await createExecutor(url, database, 'first');
  await first.fetch('work');
  const executor = await createExecutor(url, second, 'second', { schema: '"Other-Boss"' });
  expect(await executor.fetch('work')).toHaveLength(1);
  await first.die();
  await executor.die();
  expect(await sweepOnce(url)).toMatchObject({ failed: 1, recovered: [{ executorId: 'first' }] });
  expect(await sweepOnce(url, names)).toMatchObject({ failed: 1, recovered: [{ executorId: 'second' }] });
  await other.stop({ graceful: false });
});
