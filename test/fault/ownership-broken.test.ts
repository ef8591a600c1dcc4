import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker, type Worker } from '../support/worker.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };
/** A worker that works, and a daemon beside it; ownership as the test has it. */
async function createFleet({ installed }: { installed: boolean }) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'work', retryLimit: 3 }] });
  const { url, database } = fleet;
  if (installed) await installOwnership(database, TARGET);
  const worker = await spawnWorker({ url, queues: ['work'], batchSize: 10, jobMs: 10 });
  const daemon = await startTestDaemon(url, { RECLAIMD_LISTEN: '127.0.0.1:0' });
  const ready = async () => {
    const response = await fetch(`${daemon.url}/readyz`);
    return { status: response.status, ...((await response.json()) as { ok: boolean; ownership: string }) };
  };
  return {
    ...fleet,
    worker,
    ready,
    becomes: (ownership: string) => waitFor(`ownership to be ${ownership}`, async () => (await ready()).ownership === ownership),
    /** Its one incident is there, and open or resolved; written right after the page has changed. */
    incidentIs: (expected: 'open' | 'resolved') =>
      waitFor(`the incident to be ${expected}`, async () => {
        const [incident, ...others] = await database.query<{ open: boolean }>(
          `SELECT resolved_at IS NULL AS open FROM incident WHERE class = 'ownership_missing'`,
        );
        return others.length === 0 && incident?.open === (expected === 'open');
      }),
    /** Ten more jobs sent, fetched and completed by the worker. */
    tenMoreJobsAreDone: async () => {
      const finished = () => worker.events.filter(({ event }) => event === 'finished').length;
      const before = finished();
      await fleet.boss.insert(
        'work',
        Array.from({ length: 10 }, () => ({})),
      );
      await waitFor('ten more jobs to be done', () => finished() >= before + 10);
      await waitFor('their completion', async () => (await database.query(`SELECT FROM job WHERE state <> 'completed'`)).length === 0);
      expect(errorsOf(worker)).toEqual([]);
    },
  };
}

const errorsOf = (worker: Worker) => worker.events.filter(({ event }) => event === 'error');

test.each([
  ['the attempt tables are dropped', 'DROP TABLE attempt_a, attempt_b CASCADE'],
  ['one of them is renamed', 'ALTER TABLE attempt_b RENAME TO elsewhere'],
  ['a column of them is dropped', 'ALTER TABLE attempt_a DROP COLUMN application_name CASCADE'],
  ['the turn is lost', 'DELETE FROM attempt_turn'],
  ['the function is dropped with its triggers', 'DROP FUNCTION record_attempts CASCADE'],
  [
    'the triggers are dropped',
    'DROP TRIGGER reclaimd_record_attempts ON pgboss.job_common; ALTER FUNCTION record_attempts RENAME TO elsewhere',
  ],
])('%s mid-way: fetches go on, and the daemon says so', async (_, damage) => {
  const fleet = await createFleet({ installed: true });
  await fleet.becomes('installed');
  expect(await fleet.ready()).toMatchObject({ status: 200, ok: true });
  await fleet.tenMoreJobsAreDone();
  await fleet.database.query(damage);
  await fleet.tenMoreJobsAreDone();
  await fleet.becomes('missing');
  expect(await fleet.ready()).toMatchObject({ status: 503, ok: false });
  await fleet.incidentIs('open');
  await fleet.tenMoreJobsAreDone();
});

test('ownership that was never installed: fetches go on, the daemon says so and takes nothing, until it is installed', async () => {
  const { url, boss, database, ...fleet } = await createFleet({ installed: false });
  await fleet.tenMoreJobsAreDone();
  await fleet.becomes('missing');
  expect(await fleet.ready()).toMatchObject({ status: 503, ok: false });
  await fleet.incidentIs('open');
  fleet.worker.kill('SIGTERM');
  await fleet.worker.exited;

  await boss.send('work', {});
  const unowned = await spawnWorker({ url, queues: ['work'], mode: 'forever' });
  await unowned.started(1);
  await waitFor(
    'its adoption',
    async () => (await database.query('SELECT FROM executor WHERE id = $1 AND witness_node IS NOT NULL', [unowned.instance])).length > 0,
  );
  unowned.kill('SIGKILL');
  await waitFor(
    'its death to be proven',
    async () => (await database.query('SELECT FROM executor WHERE id = $1 AND proof IS NOT NULL', [unowned.instance])).length > 0,
  );

  await installOwnership(database, TARGET);
  await boss.send('work', {});
  const owned = await spawnWorker({ url, queues: ['work'], mode: 'forever' });
  const [job] = await owned.started(1);
  await fleet.becomes('installed');
  expect(await fleet.ready()).toMatchObject({ status: 200, ok: true });
  await fleet.incidentIs('resolved');
  await waitFor(
    'its adoption',
    async () => (await database.query('SELECT FROM executor WHERE id = $1 AND witness_node IS NOT NULL', [owned.instance])).length > 0,
  );
  owned.kill('SIGKILL');
  await waitFor('its job to come back', async () => (await database.query('SELECT FROM recovery')).length > 0);
  expect(await database.query('SELECT job_id AS id, executor_id AS executor FROM recovery')).toEqual([
    { id: job?.id, executor: owned.instance },
  ]);
  expect(await database.query(`SELECT FROM job WHERE state = 'active'`), 'what was never recorded is left alone').toHaveLength(1);
});
