import { expect, test } from 'vitest';
import { installOwnership } from '../../src/ownership/install.ts';
import { sweep } from '../../src/recovery/sweep.ts';
import { anotherNodeBeats } from '../support/beat.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext, sweepOnce } from '../support/executor.ts';
import { waitFor } from '../support/wait.ts';

const RULES = { RECLAIMD_POLICIES: '*=fail:stale=10m' };
/** What these jobs beat by, in seconds; silence counts once the server has run for as long. */
const BEAT = 10;

/** Executors that hold a job each, which has not beaten for twenty minutes. */
async function createStale(...executors: { id: string; env?: string }[]) {
  const fleet = await createFleetDatabase({ queues: [{ name: 'silent' }, { name: 'beats', heartbeatSeconds: BEAT, retryLimit: 3 }] });
  const { url, boss, database } = fleet;
  await installOwnership(database, { schema: 'reclaimd', pgbossSchema: 'pgboss' });
  await anotherNodeBeats(database);
  await waitFor('the server to have run for a beat', async () => {
    const old = `SELECT WHERE now() - pg_postmaster_start_time() > make_interval(secs => $1)`;
    return (await database.query(old, [BEAT + 1])).length > 0;
  });
  const created = [];
  for (const { id, env } of executors) {
    const executor = await createExecutor(url, database, id, env ? { env } : {});
    await boss.send('beats', {});
    expect(await executor.fetch('beats')).toHaveLength(1);
    created.push(executor);
  }
  await database.query(`UPDATE job SET heartbeat_on = now() - interval '20 minutes' WHERE state = 'active'`);
  return { ...fleet, executors: created };
}

test("stale attempts of jobs that beat are orphans only where a policy says so, and never a living owner's", async () => {
  const { url, database } = await createStale({ id: 'a' });
  expect(await sweepOnce(url, RULES)).toMatchObject({ recovered: [] });
  await database.query('TRUNCATE attempt_a, attempt_b');
  expect(await sweepOnce(url)).toMatchObject({ recovered: [] });
  expect(await sweepOnce(url, RULES)).toMatchObject({ failed: 1, recovered: [{ verdict: 'unknown', executorId: null }] });
});

test('executors that the mass-failure brake holds back keep their stale attempts', async () => {
  const { url, executors } = await createStale({ id: 'a' }, { id: 'b' }, { id: 'c' }, { id: 'd' });
  for (const executor of executors) await executor.fallSilent(3600);
  expect(await sweepOnce(url, RULES)).toMatchObject({ failed: 0, recovered: [], restraints: [{ reason: 'mass_failure' }] });
});

test('executors of another env keep theirs, silent or dead; their own node takes them, by what is known of them', async () => {
  const { url, executors } = await createStale({ id: 'a', env: 'prod' });
  await executors[0]?.fallSilent(3600);
  expect(await sweepOnce(url, { ...RULES, RECLAIMD_ENV: 'staging' })).toMatchObject({ failed: 0, recovered: [] });
  await executors[0]?.die();
  expect(await sweepOnce(url, { ...RULES, RECLAIMD_ENV: 'staging' })).toMatchObject({ failed: 0, recovered: [] });
  expect(await sweepOnce(url, { ...RULES, RECLAIMD_ENV: 'prod' })).toMatchObject({
    failed: 1,
    recovered: [{ verdict: 'dead', executorId: 'a' }],
  });
});

test('so does one that has been out of view for long', async () => {
  const { url, executors } = await createStale({ id: 'a', env: 'prod' });
  await executors[0]?.fallSilent(2 * 86_400);
  expect(await sweepOnce(url, { ...RULES, RECLAIMD_ENV: 'staging' })).toMatchObject({ failed: 0, recovered: [] });
});

test('a comeback between the judging and the taking voids the silence of a job, too', async () => {
  const { url, database } = await createStale({ id: 'a' });
  await database.query('TRUNCATE attempt_a, attempt_b');
  const context = await openTestContext(url, RULES);
  const dependencies = context.sweepDependencies(null, false);
  const transaction: typeof database.transaction = async (work) => {
    await database.query('UPDATE fleet SET comeback_at = now()');
    return database.transaction(work);
  };
  expect(await sweep({ ...dependencies, database: { ...database, transaction } })).toMatchObject({ failed: 0, skipped: 1 });
  expect(await sweep(dependencies), 'a job has had no time for a beat').toMatchObject({ failed: 0, skipped: 0 });
  await database.query(`UPDATE fleet SET comeback_at = now() - make_interval(secs => $1)`, [BEAT + 1]);
  expect(await sweep(dependencies)).toMatchObject({ failed: 1 });
});
