import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { installPgBoss, openDatabase } from '../support/database.ts';
import { createPrivatePostgres } from '../support/private-postgres.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker, type Worker } from '../support/worker.ts';

/** As if everybody had been cut off from the database for an hour: far past every threshold. */
const AN_HOUR_PASSES = [
  `UPDATE reclaimd.executor SET beat_at = beat_at - interval '1 hour', session_at = session_at - interval '1 hour', started_at = started_at - interval '1 hour'`,
  `UPDATE pgboss.instance SET heartbeat_on = heartbeat_on - interval '1 hour', started_on = started_on - interval '1 hour'`,
  `UPDATE reclaimd.node SET beat_at = beat_at - interval '1 hour', started_at = started_at - interval '1 hour'`,
  `UPDATE reclaimd.daemon SET beat_at = beat_at - interval '1 hour'`,
  `UPDATE reclaimd.turn SET due_at = due_at - interval '1 hour', lease_until = lease_until - interval '1 hour'`,
];
/** Two beats of these workers; the configured grace is shorter. */
const GRACE_SECONDS = 10;

async function createFleet() {
  const postgres = await createPrivatePostgres();
  const { url } = postgres;
  await installPgBoss(url, { queues: [{ name: 'work', retryLimit: 3 }] });
  const database = openDatabase(url);
  await migrate(database, 'reclaimd');
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  const recoveries = () =>
    database.query<{ executor: string; proof: string | null; afterStart: number }>(
      `SELECT executor_id AS executor, proof, extract(epoch FROM recovered_at - pg_postmaster_start_time())::float8 AS "afterStart" FROM recovery`,
    );
  return {
    postgres,
    url,
    database,
    recoveries,
    back: async () => {
      await postgres.start();
      await waitFor('our connection to be back', () =>
        database.query('SELECT 1').then(
          () => true,
          () => false,
        ),
      );
    },
    adopted: (count: number) =>
      waitFor(`${count} workers to be adopted`, async () => {
        const [row] = await database.query<{ count: number }>(
          'SELECT count(*)::int AS count FROM executor WHERE witness_node IS NOT NULL AND proof IS NULL',
        );
        return row?.count === count;
      }),
    known: (...workers: Worker[]) =>
      waitFor('every worker to be known', async () => {
        const rows = await database.query<{ id: string }>('SELECT id FROM executor');
        return workers.every(({ instance }) => rows.some(({ id }) => id === instance));
      }),
    verdicts: async () => {
      const rows = await database.query<{ id: string; verdict: string }>('SELECT id, verdict FROM executor');
      return new Map(rows.map(({ id, verdict }) => [id, verdict]));
    },
  };
}

/** A busy worker; one of another host has no daemon beside it, so that its beats alone speak for it. */
async function spawnBusy(url: string, boss: { send(queue: string, data: object): Promise<unknown> }, host?: string) {
  await boss.send('work', {});
  const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever', ...(host ? { hostname: host } : {}) });
  await worker.started(1);
  return worker;
}

const end = async (worker: Worker) => {
  worker.kill('SIGKILL');
  await worker.exited;
};

for (const fault of ['stopped', 'killed'] as const) {
  test(`Postgres ${fault} for longer than every threshold: no living worker is taken for it, the dead are afterwards`, async () => {
    const fleet = await createFleet();
    const { url, postgres, database, recoveries } = fleet;
    const boss = await installPgBoss(url);
    const living = await spawnBusy(url, boss);
    const livingElsewhere = await spawnBusy(url, boss, 'elsewhere');
    const dead = await spawnBusy(url, boss);
    const deadElsewhere = await spawnBusy(url, boss, 'elsewhere');
    for (const node of ['a', 'b']) await startTestDaemon(url, { RECLAIMD_NODE: node, RECLAIMD_OUTAGE_GRACE: '1s' });
    await fleet.adopted(2);
    await fleet.known(living, livingElsewhere, dead, deadElsewhere);
    await (fault === 'stopped' ? postgres.stop() : postgres.kill());
    await Promise.all([end(dead), end(deadElsewhere)]);
    await postgres.inTheDark(...AN_HOUR_PASSES);
    await fleet.back();

    await waitFor('both dead workers to be taken', async () => (await recoveries()).length >= 2);
    const taken = new Map((await recoveries()).map((recovery) => [recovery.executor, recovery]));
    expect([...taken.keys()].sort()).toEqual([dead.instance, deadElsewhere.instance].sort());
    expect(taken.get(dead.instance), 'proof needs no grace').toMatchObject({ proof: 'process_gone' });
    expect(taken.get(dead.instance)?.afterStart).toBeLessThan(GRACE_SECONDS);
    expect(taken.get(deadElsewhere.instance)).toMatchObject({ proof: null });
    expect(taken.get(deadElsewhere.instance)?.afterStart).toBeGreaterThan(GRACE_SECONDS);
    expect(await database.query('SELECT FROM fleet WHERE comeback_at > pg_postmaster_start_time()')).toHaveLength(1);
    await waitFor('the living to be known as alive', async () => {
      const verdicts = await fleet.verdicts();
      return verdicts.get(living.instance) === 'alive' && verdicts.get(livingElsewhere.instance) === 'alive';
    });

    await end(living);
    await waitFor('daemons that work as before', async () => (await recoveries()).some(({ executor }) => executor === living.instance));
    expect(await recoveries()).toHaveLength(3);
  });
}

test('a daemon that starts before its Postgres waits, says so, and resumes by itself', async () => {
  const { postgres, url, back, adopted, recoveries } = await createFleet();
  const boss = await installPgBoss(url);
  const worker = await spawnBusy(url, boss);
  await postgres.stop();
  const daemon = await startTestDaemon(url, { RECLAIMD_LISTEN: '127.0.0.1:0' });
  const ask = async (page: string) => {
    const response = await fetch(`${daemon.url}${page}`);
    return { status: response.status, body: await response.text() };
  };
  expect(await ask('/livez')).toMatchObject({ status: 200 });
  const notReady = await ask('/readyz');
  expect(notReady.status).toBe(503);
  expect(JSON.parse(notReady.body)).toMatchObject({ ok: false, database: 'down' });
  expect((await ask('/metrics')).body).toContain('reclaimd_database_up 0');
  await back();
  await adopted(1);
  await waitFor('the daemon to be ready', async () => (await ask('/readyz')).status === 200);
  await end(worker);
  await waitFor('the dead worker to be taken', async () => (await recoveries()).length > 0);
  expect(await recoveries()).toMatchObject([{ executor: worker.instance, proof: 'process_gone' }]);
});

test('a worker killed while Postgres and the daemon are both away is proven dead by the next daemon', async () => {
  const { postgres, url, back, adopted, recoveries } = await createFleet();
  const boss = await installPgBoss(url);
  const worker = await spawnBusy(url, boss);
  const first = await startTestDaemon(url);
  await adopted(1);
  postgres.kill();
  await first.stop();
  await end(worker);
  await back();
  await startTestDaemon(url);
  await waitFor('the dead worker to be taken', async () => (await recoveries()).length > 0);
  expect(await recoveries()).toMatchObject([{ executor: worker.instance, proof: 'process_gone' }]);
});
