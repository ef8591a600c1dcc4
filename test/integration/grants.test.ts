import pg from 'pg';
import { expect, test } from 'vitest';
import { grantStatements } from '../../src/cli/grants.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import { REPLAY_EVENT, trackStep } from '../../src/workflows/tracking.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext } from '../support/executor.ts';
import { createScriptedUnits, FAILED } from '../support/scripted-units.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

/** A role with just what `reclaimd grants` prints, and the URL to be it. */
async function createLeastRole(url: string): Promise<string> {
  const owner = new pg.Client({ connectionString: url });
  await owner.connect();
  const role = `least_${new URL(url).pathname.slice(1)}`;
  await owner.query(`CREATE ROLE ${role} LOGIN PASSWORD 'least'`);
  await owner.query(grantStatements({ role, ...TARGET }));
  await owner.end();
  const own = new URL(url);
  own.username = role;
  own.password = 'least';
  return own.href;
}

test('the printed privileges suffice for everything that the daemon does', async () => {
  const { url, boss, database } = await createFleetDatabase({
    queues: [{ name: 'dead' }, { name: 'work', notify: true, deadLetter: 'dead', retryLimit: 0 }],
  });
  await installOwnership(database, TARGET);
  await boss.insert('work', [{}, {}]);
  const worker = await spawnWorker({ url, queues: ['work'], mode: 'forever', batchSize: 2 });
  await worker.started(2);
  const leastUrl = await createLeastRole(url);
  const daemon = await startTestDaemon(leastUrl, { RECLAIMD_LISTEN: '127.0.0.1:0' });
  await waitFor(
    'the worker to be adopted',
    async () => (await database.query('SELECT FROM executor WHERE witness_node IS NOT NULL')).length === 1,
  );
  worker.kill('SIGKILL');
  await waitFor('the rescue', async () => (await database.query('SELECT FROM recovery')).length === 2);
  expect(await database.query(`SELECT FROM job WHERE name = 'dead'`)).toHaveLength(2);
  // A queue with a table of its own, made by the owner after the grants were given.
  await boss.createQueue('late', { partition: true });
  await waitFor(
    'the new table to be covered',
    async () => (await database.query(`SELECT FROM pg_trigger WHERE tgname = 'reclaimd_record_attempts'`)).length === 2,
    30_000,
  );
  await database.query(`UPDATE attempt_turn SET emptied = false`);
  await waitFor('the rotation', async () => (await database.query('SELECT FROM attempt_turn WHERE emptied')).length === 1, 30_000);
  const metrics = await (await fetch(`${daemon.url}/metrics`)).text();
  expect(metrics.split('\n').filter((line) => /^reclaimd_loop_runs_total.*"error"/.test(line))).toEqual([]);
});

test('restart, discard and hold work with them too', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'a' }, { name: 'b' }, { name: 'c' }] });
  await installOwnership(database, TARGET);
  const executor = await createExecutor(url, database, 'worker');
  for (const queue of ['a', 'b', 'c']) {
    await boss.send(queue, {});
    await executor.fetch(queue);
  }
  await executor.die();
  const context = await openTestContext(await createLeastRole(url), { RECLAIMD_POLICIES: 'a=restart,b=discard,c=hold' });
  const { sweep } = await import('../../src/recovery/sweep.ts');
  expect(await sweep(context.sweepDependencies(null, false))).toMatchObject({ restarted: 1, discarded: 1, held: 1 });
});

test('workflows and supervision work with them too', async () => {
  const { url, boss, database } = await createFleetDatabase({
    queues: [{ name: 'parent', retryLimit: 0 }, { name: 'child' }, { name: 'heard' }],
  });
  const ids = (await boss.flow([
    { ref: 'parent', name: 'parent' },
    { ref: 'child', name: 'child', dependsOn: ['parent'] },
  ])) as Record<string, string>;
  await boss.subscribe(REPLAY_EVENT, 'heard');
  const [parent] = (await boss.fetch('parent')) ?? [];
  await boss.fail('parent', parent?.id ?? '');
  await trackStep(database, { instanceId: 'i', step: 's', queue: 'parent', jobId: ids['parent'] });
  const daemon = await startTestDaemon(await createLeastRole(url), {
    RECLAIMD_LISTEN: '127.0.0.1:0',
    RECLAIMD_PGBOSS_SUPERVISE: 'true',
    RECLAIMD_RECONCILE_INTERVAL: '500ms',
    RECLAIMD_REPLAY_AFTER: '0s',
    RECLAIMD_WORKFLOW_POLICIES: '*=cancel-children',
  });
  await waitFor('the child to be cancelled', async () => (await boss.getJobById('child', ids['child'] ?? ''))?.state === 'cancelled');
  await waitFor('the replay', async () => ((await boss.fetch('heard')) ?? []).length === 1);
  await waitFor('a pass of supervision', async () => (await database.query('SELECT FROM queue WHERE monitor_on IS NULL')).length === 0);
  const metrics = await (await fetch(`${daemon.url}/metrics`)).text();
  expect(metrics.split('\n').filter((line) => /^reclaimd_loop_runs_total.*"error"/.test(line))).toEqual([]);
});

test('healing a unit works with them too', async () => {
  const { url, database } = await createFleetDatabase();
  const units = createScriptedUnits();
  units.set('a.service', FAILED);
  const env = { RECLAIMD_UNITS: 'a', RECLAIMD_HEAL_SETTLE: '100ms', RECLAIMD_LISTEN: '127.0.0.1:0' };
  const daemon = await startTestDaemon(await createLeastRole(url), env, { units: { manager: units.manager, journal: units.journal } });
  await waitFor(
    'the heal',
    async () => (await database.query(`SELECT FROM audit WHERE action = 'unit_heal' AND outcome = 'done'`)).length === 1,
  );
  const metrics = await (await fetch(`${daemon.url}/metrics`)).text();
  expect(metrics).toContain('reclaimd_heals_total{outcome="healed"} 1');
  expect(metrics).toMatch(/reclaimd_loop_runs_total\{loop="units",result="ok"\}/);
  expect(metrics).not.toMatch(/reclaimd_loop_runs_total\{loop="units",result="error"\}/);
});
