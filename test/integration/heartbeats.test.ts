import { readFileSync } from 'node:fs';
import pg from 'pg';
import { PgBoss } from 'pg-boss';
import { expect, onTestFinished, test } from 'vitest';
import { listExecutorHealth, refreshHeartbeats } from '../../src/executors/health.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { anotherNodeBeats } from '../support/beat.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, sweepOnce } from '../support/executor.ts';

test('a beat registers, refreshes and ends an executor; its thresholds travel with it', async () => {
  const { database } = await createFleetDatabase();
  await refreshHeartbeats(database, [
    { executorId: 'e', applicationName: 'app', beatSeconds: 15, lateAfterSeconds: 45, missingAfterSeconds: 120, queues: ['q'] },
  ]);
  const read = async () => (await listExecutorHealth(database))[0];
  expect(await read()).toMatchObject({ id: 'e', kind: 'own', verdict: 'alive', applicationName: 'app', missingAfter: 120, queues: ['q'] });
  for (const [silence, verdict] of [
    [44, 'alive'],
    [46, 'late'],
    [119, 'late'],
    [121, 'missing'],
  ] as const) {
    await database.query('UPDATE executor SET beat_at = now() - make_interval(secs => $1)', [silence]);
    expect(await read()).toMatchObject({ verdict });
  }
  await refreshHeartbeats(database, [{ executorId: 'e' }]);
  expect(await read()).toMatchObject({ verdict: 'alive', missingAfter: 45 });
  await refreshHeartbeats(database, [{ executorId: 'e', stopped: true }]);
  expect(await read()).toMatchObject({ verdict: 'stopped' });
});

test("another role may beat with nothing but USAGE, and its session's name is the default", async () => {
  const { url, database } = await createFleetDatabase();
  const role = `beater_${new URL(url).pathname.slice(1)}`;
  await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA reclaimd TO ${role}`);
  const own = new URL(url);
  own.username = role;
  own.password = 'x';
  const client = new pg.Client({ connectionString: own.href, application_name: 'any-language' });
  await client.connect();
  await client.query(`SELECT reclaimd.heartbeat('e', beat_seconds => 7)`);
  await expect(client.query('SELECT FROM reclaimd.executor')).rejects.toThrow(/permission denied/);
  await client.end();
  expect(await listExecutorHealth(database)).toMatchObject([{ id: 'e', applicationName: 'any-language', beatSeconds: 7 }]);
});

test('a beat after a recorded death refutes its proof; a graceful end stands', async () => {
  const { database } = await createFleetDatabase();
  await refreshHeartbeats(database, [{ executorId: 'e' }]);
  await database.query(`UPDATE executor SET proof = 'process_gone', dead_at = now(), last_alive_at = now()`);
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'dead' }]);
  await refreshHeartbeats(database, [{ executorId: 'e', host: 'h', pid: 1 }]);
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'alive', proof: null }]);
  expect(await database.query('SELECT dead_at, last_alive_at FROM executor')).toEqual([{ dead_at: null, last_alive_at: null }]);
  await refreshHeartbeats(database, [{ executorId: 'e', stopped: true }]);
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'stopped' }]);
});

test('a beat does not touch a pg-boss instance', async () => {
  const { database } = await createFleetDatabase();
  await refreshHeartbeats(database, [{ executorId: 'e', applicationName: 'app' }]);
  await database.query(`UPDATE executor SET kind = 'pgboss'`);
  await refreshHeartbeats(database, [{ executorId: 'e', applicationName: 'other', stopped: true }]);
  expect(await listExecutorHealth(database)).toMatchObject([{ verdict: 'alive', applicationName: 'app' }]);
});

test.each(['beat_seconds', 'late_after_seconds', 'missing_after_seconds'])(
  'nonsense in a beat is refused by the database: %s',
  async (name) => {
    const { database } = await createFleetDatabase();
    for (const seconds of [-1, 86_401, 'infinity', 'NaN'])
      await expect(database.query(`SELECT heartbeat('e', ${name} => $1)`, [seconds])).rejects.toThrow(`${name}_at_most_a_day`);
    await database.query(`SELECT heartbeat('e', ${name} => 86400)`);
    await expect(database.query(`SELECT heartbeat('e', ${name} => 'infinity')`)).rejects.toThrow(`${name}_at_most_a_day`);
  },
);

test('beats without bounds of an earlier schema are bounded by the migration', async () => {
  const { database } = await createFleetDatabase();
  const bounds = ['beat_seconds', 'late_after_seconds', 'missing_after_seconds'];
  await database.query(`ALTER TABLE executor ${bounds.map((name) => `DROP CONSTRAINT executor_${name}_at_most_a_day`).join(', ')},
    ADD CONSTRAINT executor_beat_seconds_check CHECK (beat_seconds > 0)`);
  await database.query(`INSERT INTO executor (id, kind, beat_seconds, late_after_seconds, missing_after_seconds) VALUES
    ('endless', 'own', 'infinity', '-infinity', 'NaN'), ('sane', 'own', 15, NULL, 120)`);
  await database.query(readFileSync(new URL('../../src/postgres/migrations/0026_beat_bounds.sql', import.meta.url), 'utf8'));
  expect(await listExecutorHealth(database)).toMatchObject([
    { id: 'endless', beatSeconds: 86_400, lateAfterSeconds: 0, missingAfterSeconds: 86_400 },
    { id: 'sane', beatSeconds: 15, lateAfterSeconds: null, missingAfterSeconds: 120 },
  ]);
});

test('a beat that does not say who the executor is leaves that as it was; its process may be told later, once', async () => {
  const { database } = await createFleetDatabase();
  await refreshHeartbeats(database, [{ executorId: 'e', applicationName: 'app', env: 'prod', stack: 'blue' }]);
  await refreshHeartbeats(database, [{ executorId: 'e', host: 'h', pid: 1 }]);
  const who = { applicationName: 'app', env: 'prod', stack: 'blue', host: 'h', pid: 1 };
  expect(await listExecutorHealth(database)).toMatchObject([who]);
  await refreshHeartbeats(database, [{ executorId: 'e', host: 'other', pid: 2, env: 'test' }]);
  expect(await listExecutorHealth(database)).toMatchObject([{ ...who, env: 'test' }]);
});

test("the README's two beats, from a session of another name, lose no job", async () => {
  const { url, boss, database, connect } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
  const [first, goodbye] = readme.match(/^SELECT reclaimd\.heartbeat\([^;]*;/gm) ?? [];
  const elsewhere = connect({ url });
  await elsewhere.query(first ?? '');
  const billing = new PgBoss({
    connectionString: url,
    application_name: 'billing-7f3a',
    supervise: false,
    schedule: false,
    registerInstance: false,
  });
  onTestFinished(() => billing.stop({ graceful: false }));
  await billing.start();
  await boss.send('work', {});
  expect(await billing.fetch('work')).toHaveLength(1);
  await billing.stop({ graceful: false });
  await elsewhere.query(goodbye ?? '');
  expect(await sweepOnce(url, { RECLAIMD_ENV: 'prod' })).toMatchObject({
    failed: 1,
    recovered: [{ executorId: 'billing-7f3a', verdict: 'stopped' }],
  });
});

test('the jobs of an own executor that fell silent come back', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }] });
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  await anotherNodeBeats(database);
  const executor = await createExecutor(url, database, 'e');
  await boss.send('work', {});
  await executor.fetch('work');
  await executor.boss.stop({ graceful: false });
  // Just silent enough, then past it: however fast the beat, the floor is fifteen seconds.
  await executor.fallSilent(14);
  expect(await sweepOnce(url)).toMatchObject({ failed: 0 });
  await executor.fallSilent(16);
  expect(await sweepOnce(url)).toMatchObject({ failed: 1, recovered: [{ verdict: 'missing', proof: null }] });
});
