import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import type { Database } from '../../src/postgres/database.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { spawnDaemon } from '../support/daemon-process.ts';
import { createFleetDatabase } from '../support/database.ts';
import { sweepOnce } from '../support/executor.ts';
import { fallSilent } from '../support/silence.ts';
import { twoSweepsPass } from '../support/turns.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker, type Worker } from '../support/worker.ts';
import type { WorkerOptions } from '../support/worker-main.ts';

/** A busy worker beside a daemon that has adopted it. */
async function createFleet(worker: Partial<WorkerOptions> & { hostname?: string } = { mode: 'forever' }) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'work', retryLimit: 3 }] });
  await installOwnership(fleet.database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const spawned = await spawnWorker({ url: fleet.url, queues: ['work'], ...worker });
  return { ...fleet, worker: spawned };
}

const adopted = (database: Database) =>
  waitFor('the worker to be adopted', async () => (await database.query('SELECT FROM executor WHERE witness_node IS NOT NULL')).length > 0);

const verdictIs = (database: Database, { instance }: Worker, verdict: string) =>
  waitFor(`the verdict ${verdict}`, async () => {
    const rows = await database.query('SELECT FROM executor WHERE id = $1 AND verdict = $2', [instance, verdict]);
    return rows.length > 0;
  });

const recoveries = (database: Database) =>
  database.query<{ executor: string; proof: string }>('SELECT executor_id AS executor, proof FROM recovery');
const incidents = (database: Database) =>
  database.query<{ class: string; open: boolean }>('SELECT class, resolved_at IS NULL AS open FROM incident');

test('a worker stopped (SIGSTOP) for longer than every threshold is hung, never taken, and well again when it goes on', async () => {
  const { url, boss, database, worker } = await createFleet();
  await startTestDaemon(url);
  await adopted(database);
  await boss.send('work', {});
  await worker.started(1);
  worker.kill('SIGSTOP');
  await fallSilent(database, 3600, [worker]);
  await verdictIs(database, worker, 'hung');
  await waitFor('its incident', async () => (await incidents(database)).length > 0);
  await twoSweepsPass(database);
  expect(await sweepOnce(url)).toMatchObject({ failed: 0, recovered: [] });
  expect(await incidents(database)).toEqual([{ class: 'hung_executor', open: true }]);
  expect(await recoveries(database)).toEqual([]);

  worker.kill('SIGCONT');
  await verdictIs(database, worker, 'alive');
  await waitFor('its incident to end', async () => !(await incidents(database))[0]?.open);
  expect(await incidents(database)).toEqual([{ class: 'hung_executor', open: false }]);
  expect(await recoveries(database)).toEqual([]);
  expect(await database.query(`SELECT state::text, retry_count FROM job`)).toEqual([{ state: 'active', retry_count: 0 }]);
});

test('a worker that is killed while it is stopped is dead, not hung: its job comes back', async () => {
  const { url, boss, database, worker } = await createFleet();
  await startTestDaemon(url);
  await adopted(database);
  await boss.send('work', {});
  await worker.started(1);
  worker.kill('SIGSTOP');
  await fallSilent(database, 3600, [worker]);
  await verdictIs(database, worker, 'hung');
  worker.kill('SIGKILL');
  await waitFor('its job to come back', async () => (await recoveries(database)).length > 0);
  expect(await recoveries(database)).toEqual([{ executor: worker.instance, proof: 'process_gone' }]);
  await waitFor('its incident to end', async () => (await incidents(database)).every(({ open }) => !open));
});

test('a worker whose event loop is blocked is hung, never taken, and its result stands', async () => {
  const { url, boss, database, worker } = await createFleet({ mode: 'block', jobMs: 12_000 });
  await startTestDaemon(url);
  await adopted(database);
  await boss.send('work', {});
  await worker.started(1);
  await fallSilent(database, 3600, [worker]);
  await verdictIs(database, worker, 'hung');
  await waitFor('its incident', async () => (await incidents(database)).some(({ open }) => open));
  await twoSweepsPass(database);
  expect(await recoveries(database)).toEqual([]);
  await verdictIs(database, worker, 'alive');
  await waitFor('its job to be completed', async () => (await database.query(`SELECT FROM job WHERE state = 'completed'`)).length > 0);
  await waitFor('its incident to end', async () => (await incidents(database)).every(({ open }) => !open));
  expect(await database.query('SELECT retry_count FROM job')).toEqual([{ retry_count: 0 }]);
  expect(await recoveries(database)).toEqual([]);
});

test.each([
  ['stopped (SIGSTOP)', { mode: 'sleep', jobMs: 20_000 }],
  ['blocked', { mode: 'block', jobMs: 15_000 }],
] as const)('a worker that was %s before any daemon had seen it is hung, never taken, and its result stands', async (how, job) => {
  const { url, boss, database, worker } = await createFleet(job);
  await boss.send('work', {});
  await worker.started(1);
  if (how !== 'blocked') worker.kill('SIGSTOP');
  await fallSilent(database, 3600, [worker], { keepsStart: true });
  await startTestDaemon(url);
  await verdictIs(database, worker, 'hung');
  await waitFor('its incident', async () => (await incidents(database)).length > 0);
  await twoSweepsPass(database);
  expect(await sweepOnce(url)).toMatchObject({ failed: 0, recovered: [] });
  expect(await database.query('SELECT verdict, verdict_reason AS reason, proof, witness_node FROM executor')).toEqual([
    { verdict: 'hung', reason: 'silent past 15 s, but a process that may be its is there', proof: null, witness_node: null },
  ]);

  worker.kill('SIGCONT');
  await verdictIs(database, worker, 'alive');
  await adopted(database);
  await waitFor('its job to be completed', async () => (await database.query(`SELECT FROM job WHERE state = 'completed'`)).length > 0);
  await waitFor('its incident to end', async () => (await incidents(database)).every(({ open }) => !open));
  expect(await database.query('SELECT retry_count FROM job')).toEqual([{ retry_count: 0 }]);
  expect(await recoveries(database)).toEqual([]);
  expect(await database.query('SELECT sighting_daemon_id AS sighting FROM executor')).toEqual([{ sighting: null }]);
});

test('the end of a process that nobody had seen while its worker beat proves nothing: silence speaks', async () => {
  const { url, boss, database, worker } = await createFleet();
  await boss.send('work', {});
  await worker.started(1);
  worker.kill('SIGSTOP');
  await fallSilent(database, 3600, [worker], { keepsStart: true });
  await startTestDaemon(url);
  await verdictIs(database, worker, 'hung');
  worker.kill('SIGKILL');
  await waitFor('its job to come back', async () => (await recoveries(database)).length > 0);
  expect(await recoveries(database)).toEqual([{ executor: worker.instance, proof: null }]);
});

test("a daemon stopped for longer than every threshold holds nobody's silence against them when it goes on", async () => {
  const { url, boss, database, worker } = await createFleet();
  const elsewhere = await spawnWorker({ url, queues: ['work'], mode: 'forever', hostname: 'elsewhere' });
  await boss.insert('work', [{}, {}]);
  await Promise.all([worker.started(1), elsewhere.started(1)]);
  const daemon = await spawnDaemon(url, { RECLAIMD_OUTAGE_GRACE: '1m' });
  await adopted(database);
  await waitFor('both to be judged', async () => (await database.query(`SELECT FROM executor WHERE verdict = 'alive'`)).length === 2);
  daemon.kill('SIGSTOP');
  // Its statement in flight ends; a transaction that it was in is ended by Postgres, as its own time-out would do.
  await waitFor('the daemon to be still', async () => {
    const sessions = await database.query<{ state: string }>(
      `SELECT state, CASE WHEN state LIKE 'idle in %' THEN pg_terminate_backend(pid, 5000) END FROM pg_stat_activity
       WHERE application_name LIKE 'reclaimd:%' AND datname = current_database() AND state <> 'idle'`,
    );
    return sessions.length === 0;
  });
  elsewhere.kill('SIGSTOP');
  await fallSilent(database, 3600, [worker, elsewhere]);
  await database.query(`UPDATE node SET beat_at = beat_at - interval '1 hour', started_at = started_at - interval '2 hours'`);
  await database.query(`UPDATE daemon SET beat_at = beat_at - interval '1 hour'`);
  await database.query(`UPDATE turn SET due_at = now() - interval '1 hour', lease_until = NULL`);
  daemon.kill('SIGCONT');
  await waitFor(
    'it to notice that it was cut off',
    async () => (await database.query('SELECT FROM fleet WHERE comeback_at IS NOT NULL')).length > 0,
  );
  await verdictIs(database, elsewhere, 'missing');
  await twoSweepsPass(database);
  expect(await recoveries(database)).toEqual([]);
  elsewhere.kill('SIGCONT');
  await verdictIs(database, worker, 'alive');
  await verdictIs(database, elsewhere, 'alive');
  expect(await recoveries(database)).toEqual([]);
  expect(await database.query('SELECT comeback_reason AS reason FROM fleet')).toEqual([
    { reason: expect.stringMatching(/^node test was cut off for 36\d\d s$/) },
  ]);
});
