import { PgBoss } from 'pg-boss';
import { expect, test, vi } from 'vitest';
import { sealAudit } from '../../src/audit/chain.ts';
import { grantStatements, OWN_TABLES } from '../../src/cli/grants.ts';
import { installOwnership } from '../../src/ownership/install.ts';
import type { Database } from '../../src/postgres/database.ts';
import { PermissionDenied } from '../../src/postgres/errors.ts';
import { projectIncidents } from '../../src/project-incidents.ts';
import { executeRepair } from '../../src/repairs/execute.ts';
import { previewRepair } from '../../src/repairs/preview.ts';
import { runArchivePrune } from '../../src/retention/prune.ts';
import { REPLAY_EVENT, trackStep } from '../../src/workflows/tracking.ts';
import { addDueRecoveries, addEvents } from '../support/archive.ts';
import { startTestDaemon } from '../support/daemon.ts';
import { createFleetDatabase } from '../support/database.ts';
import { createExecutor, openTestContext } from '../support/executor.ts';
import { createScriptedUnits, FAILED } from '../support/scripted-units.ts';
import { waitFor } from '../support/wait.ts';
import { spawnWorker } from '../support/worker.ts';

const TARGET = { schema: 'reclaimd', pgbossSchema: 'pgboss' };

/** A role with just what `reclaimd grants` prints, and the URL to be it. */
async function createLeastRole(url: string, database: Database, { supervise = false } = {}): Promise<string> {
  const role = `least_${new URL(url).pathname.slice(1)}`;
  await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'least'`);
  await database.query(await grantStatements(database, { role, ...TARGET, supervise }));
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
  const leastUrl = await createLeastRole(url, database);
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
  );
  await database.query(`UPDATE attempt_turn SET emptied = false`);
  await waitFor('the rotation', async () => (await database.query('SELECT FROM attempt_turn WHERE emptied')).length === 1);
  const metrics = await (await fetch(`${daemon.url}/metrics`)).text();
  expect(metrics.split('\n').filter((line) => /^reclaimd_loop_runs_total.*"error"/.test(line))).toEqual([]);
});

test("without the right to see others' sessions, which only some may grant, the daemon says so once", async () => {
  const { url, database } = await createFleetDatabase();
  const leastUrl = await createLeastRole(url, database);
  const role = new URL(leastUrl).username;
  const printed = await grantStatements(database, { role, ...TARGET, supervise: false });
  expect(printed).toMatch(/^-- .*run by a superuser.*\nGRANT pg_read_all_stats TO .*;$/m);
  await database.query(`REVOKE pg_read_all_stats FROM ${role}`);
  const warn = vi.fn();
  const daemon = await startTestDaemon(
    leastUrl,
    { RECLAIMD_LISTEN: '127.0.0.1:0' },
    { log: { info: warn, error: warn, debug: warn, warn } },
  );
  const sessions = async () => ((await (await fetch(`${daemon.url}/readyz`)).json()) as { sessions: string }).sessions;
  await waitFor('the look at the rights', async () => (await sessions()) === 'not seen');
  await database.query(`GRANT pg_read_all_stats TO ${role}`);
  await waitFor('the next look', async () => (await sessions()) === 'seen');
  expect(warn.mock.calls.filter(([said]) => String(said).includes('pg_read_all_stats'))).toHaveLength(1);
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
  const context = await openTestContext(await createLeastRole(url, database), { RECLAIMD_POLICIES: 'a=restart,b=discard,c=hold' });
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
  const daemon = await startTestDaemon(await createLeastRole(url, database, { supervise: true }), {
    RECLAIMD_LISTEN: '127.0.0.1:0',
    RECLAIMD_PGBOSS_SUPERVISE: 'true',
    RECLAIMD_OUTAGE_GRACE: '1s',
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
  const daemon = await startTestDaemon(await createLeastRole(url, database), env, {
    units: { manager: units.manager, journal: units.journal },
  });
  await waitFor(
    'the heal',
    async () => (await database.query(`SELECT FROM audit WHERE action = 'unit_heal' AND outcome = 'done'`)).length === 1,
  );
  const scrape = async () => (await fetch(`${daemon.url}/metrics`)).text();
  await waitFor('the pass to be told of', async () => /reclaimd_loop_runs_total\{loop="units",result="ok"\}/.test(await scrape()));
  const metrics = await scrape();
  expect(metrics).toContain('reclaimd_heals_total{outcome="healed"} 1');
  expect(metrics).not.toMatch(/reclaimd_loop_runs_total\{loop="units",result="error"\}/);
});

test('pruning, what a person does to jobs and incidents, and the chain of the audit work with them too', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'mail', retryLimit: 0 }] });
  const context = await openTestContext(await createLeastRole(url, database));
  await addEvents(database, 3, 400);
  await addDueRecoveries(database, 3);
  const run = await runArchivePrune(context.pruneDependencies(), { actor: 'ann@desk', reason: 'a test' });
  const classes = 'classes' in run ? run.classes : {};
  expect(Object.entries(classes).filter(([, { error }]) => error !== undefined)).toEqual([]);
  expect(classes).toMatchObject({ audit: { archived: 3 }, recoveries: { archived: 3 } });
  const repairs = context.repairDependencies();
  for (const [action, state] of [
    ['job_cancel', 'created'],
    ['job_retry', 'failed'],
    ['job_retry', 'cancelled'],
  ] as const) {
    const id = (await boss.send('mail', {})) ?? '';
    if (state === 'failed') await boss.fetch('mail');
    if (state === 'failed') await boss.fail('mail', id);
    if (state === 'cancelled') await boss.cancel('mail', id);
    const preview = await previewRepair(repairs, { action, targets: [`mail/${id}`], actor: 'ann@desk' });
    const token = 'token' in preview ? (preview.token ?? '') : '';
    const order = { token, actor: 'ann@desk', reason: 'long enough' };
    expect([action, state, await executeRepair(repairs, order)]).toMatchObject([action, state, { done: true }]);
    await boss.deleteAllJobs('mail');
  }
  await projectIncidents(context);
  await sealAudit(context.database);
  expect(await database.query('SELECT FROM audit_seal')).toHaveLength(4);
  expect(await database.query('SELECT FROM incident')).not.toEqual([]);
});

test('a pass of supervision does all of it with them: expiry, retention, and the instances of long ago', async () => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'work' }, { name: 'own', partition: true }] });
  const leastUrl = await createLeastRole(url, database, { supervise: true });
  const [expired, old] = [await boss.send('work', {}), await boss.send('own', {})];
  await boss.fetch('work');
  await boss.fetch('own');
  await boss.complete('own', old ?? '');
  await database.query(`UPDATE job SET started_on = now() - interval '1 hour', completed_on = completed_on - interval '30 days'`);
  const gone = new PgBoss({ connectionString: url, supervise: false });
  await gone.start();
  await gone.stop({ graceful: false });
  await database.query(`UPDATE instance SET started_on = now() - interval '90 days', heartbeat_on = now() - interval '90 days'`);
  const context = await openTestContext(leastUrl, { RECLAIMD_PGBOSS_SUPERVISE: 'true', RECLAIMD_OUTAGE_GRACE: '1s' });
  await context.supervision.supervise(async () => undefined);
  expect((await boss.findJobs('work', { id: expired ?? '' }))[0]?.state).toBe('retry');
  expect(await boss.findJobs('own', { id: old ?? '' })).toEqual([]);
  expect(await database.query('SELECT FROM instance')).toEqual([]);
});

test.each([false, true])('they are no more than that, with supervision: %s', async (supervise) => {
  const { url, boss, database } = await createFleetDatabase({ queues: [{ name: 'own', partition: true }] });
  const leastUrl = await createLeastRole(url, database, { supervise });
  await boss.createQueue('late', { partition: true });
  const held = await database.query<{ schema: string; table: string; held: string }>(
    `SELECT n.nspname AS schema, c.relname AS table, string_agg(p.name, ', ' ORDER BY p.place) AS held
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) WITH ORDINALITY AS p(name, place)
     WHERE n.nspname IN ('pgboss', 'reclaimd') AND c.relkind IN ('r', 'p', 'v') AND has_table_privilege($1, c.oid, p.name)
     GROUP BY 1, 2 ORDER BY 1, 2`,
    [new URL(leastUrl).username],
  );
  const of = (schema: string) => held.filter((row) => row.schema === schema);
  const isLeaf = (name: string) => name === 'job_common' || /^j[0-9a-f]{40,}$/.test(name);
  const leaves = of('pgboss').filter(({ table }) => isLeaf(table));
  expect(leaves.map((row) => row.held)).toEqual(Array(3).fill('SELECT, INSERT, UPDATE, DELETE, TRIGGER'));
  expect(Object.fromEntries(of('pgboss').flatMap((row) => (isLeaf(row.table) ? [] : [[row.table, row.held]])))).toEqual({
    instance: supervise ? 'SELECT, DELETE' : 'SELECT',
    job: 'SELECT, INSERT, UPDATE, DELETE',
    job_dependency: 'SELECT, DELETE',
    queue: supervise ? 'SELECT, UPDATE' : 'SELECT',
    subscription: 'SELECT',
    version: 'SELECT',
  });
  const inOrder = (privileges: string) => privileges.replace(/, (UPDATE|INSERT) \([\w, ]+\)/, '');
  expect(of('reclaimd').map((row) => [row.table, row.held])).toEqual(
    of('reclaimd').map(({ table }) => [table, inOrder(OWN_TABLES[table] ?? 'nothing')]),
  );
});

test('what a migration adds is granted, or named as not to be', async () => {
  const { database } = await createFleetDatabase();
  const tables = await database.query<{ name: string }>(
    `SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'reclaimd'::regnamespace AND c.relkind IN ('r', 'p', 'v')`,
  );
  expect(tables.map(({ name }) => name).filter((name) => !Object.hasOwn(OWN_TABLES, name))).toEqual([]);
});

test.each([
  'UPDATE pgboss.version SET version = 47',
  'DELETE FROM pgboss.schedule',
  'DELETE FROM reclaimd.migration',
  `UPDATE reclaimd.recovery SET outcome = 'held'`,
  'DELETE FROM reclaimd.audit',
  `INSERT INTO reclaimd.audit (at, actor, action, target, outcome, node, detail) VALUES (now() - interval '1 day', 'a', 'x', 't', 'done', 'n', '{}')`,
  `INSERT INTO reclaimd.audit (seq, actor, action, target, outcome, node, detail) OVERRIDING SYSTEM VALUE VALUES (1, 'a', 'x', 't', 'done', 'n', '{}')`,
  'UPDATE reclaimd.audit_seal SET position = 1',
  'INSERT INTO pgboss.queue (name) VALUES (1)',
  'TRUNCATE reclaimd.executor',
])('its role is denied: %s', async (statement) => {
  const { url, database, connect } = await createFleetDatabase();
  const least = connect({ url: await createLeastRole(url, database, { supervise: true }) });
  await expect(least.query(statement)).rejects.toBeInstanceOf(PermissionDenied);
});
